"""What the constructor of :class:`agents.DoubleDQN` accepts: data, and the check against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy

from agents.double_dqn.heads import checked_value_range
from agents.exploration import check_exploration
from textgym.checks import check_range

INTEGERS: dict[str, tuple[int, float]] = {
    "buffer_size": (1, math.inf),
    "learning_starts": (0, math.inf),
    "batch_size": (1, math.inf),
    "gradient_steps": (-1, math.inf),
    "n_steps": (1, math.inf),
    "target_update_interval": (1, math.inf),
    "stats_window_size": (1, 2**31),
    "verbose": (0, math.inf),
    "seed": (0, 2**32 - 1),
}
"""Name → least and largest value."""
NUMBERS: dict[str, tuple[float, float]] = {
    "tau": (0, 1),
    "gamma": (0, 1),
    "exploration_fraction": (0, 1),
    "exploration_initial_eps": (0, 1),
    "exploration_final_eps": (0, 1),
    "max_grad_norm": (0, math.inf),
    "updates_per_step": (0, 1e9),
    "best_share": (0, 0.9),
    "priority_alpha": (0, 1),
    "priority_beta": (0, 1),
    "priority_beta_final": (0, 1),
}
FLAGS = (
    *("double_q", "dueling", "prioritized_replay", "lower_bound", "watkins", "keep_best", "self_imitation"),
    *("optimize_memory_usage", "_init_setup_model"),
)
NEVER_NONE = frozenset(
    {
        "gamma",
        "n_steps",
        "exploration_fraction",
        "exploration_initial_eps",
        "max_grad_norm",
        "stats_window_size",
        "verbose",
        "device",
        "priority_alpha",
        "best_share",
        *set(FLAGS) - {"dueling", "prioritized_replay", "keep_best", "self_imitation"},
    }
)
"""None stands for a default in all the others."""
WHOLE_FLOATS = ("learning_starts", "target_update_interval")
"""Integers that may be written as floats, such as 1e4: SB3 only compares them and divides by them."""
LOSSES = ("huber", "cross_entropy")
MAPPINGS = ("policy_kwargs", "replay_buffer_kwargs", "exploration_kwargs")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` with the argument, the value and what is accepted, for the first one that is not.

    Args:
        arguments: Name → value; names that are not in the tables above, nor named below, are left alone.
    """
    for name, value in arguments.items():
        if value is None and name not in NEVER_NONE:
            continue
        if name == "verbose" and isinstance(value, bool):
            continue  # SB3 takes it for 0 or 1
        if name in WHOLE_FLOATS and isinstance(value, float) and value.is_integer():
            value = int(value)
        if name in INTEGERS:
            check_range(name, value, *INTEGERS[name], integer=True)
        elif name in FLAGS:
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {value!r}")
        elif name == "max_grad_norm" and value == math.inf:
            continue  # no limit
        elif name in NUMBERS:
            check_range(name, value, *NUMBERS[name])
        elif name in MAPPINGS and not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a mapping of names to values or None, got {value!r}")
        elif name == "learning_rate" and not callable(value):
            if not isinstance(value, Real):
                raise ValueError(
                    f"learning_rate must be a number or a function of the remaining progress, got {value!r}"
                )
            check_range(name, value, 0, math.inf)
        elif name == "q_lambda":
            for part in (value(1.0), value(0.5), value(0.0)) if callable(value) else (value,):
                check_range(name, part, 0, 1)
        elif name == "loss" and value not in LOSSES:
            raise ValueError(f"loss must be one of {LOSSES} or None, got {value!r}")
        elif name == "value_range":
            checked_value_range(value)
        elif name == "exploration":
            check_exploration(value)
        elif name == "device":
            _check_device(value)
        elif name == "replay_buffer_class" and not isinstance(value, type):
            raise ValueError(f"replay_buffer_class must be a class of replay buffers or None, got {value!r}")
        elif name == "train_freq":
            frequency = value[0] if isinstance(value, tuple) and value else value
            if isinstance(frequency, Integral) and frequency < 1:
                raise ValueError(f"train_freq must be at least 1 step or episode, got {value!r}")


def check_policy(policy: Any, aliases: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless it is the name of a policy or a class of policies."""
    known = (
        policy in aliases if isinstance(policy, str) else isinstance(policy, type) and issubclass(policy, BasePolicy)
    )
    if not known:
        raise ValueError(f"policy must be one of {sorted(aliases)} or a subclass of DQNPolicy, got {policy!r}")


def _check_device(device: Any) -> None:
    """Names of devices that torch does not know, and devices that this machine lacks, but for CUDA."""
    if isinstance(device, torch.device) or device == "auto":
        return
    if not isinstance(device, str):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', a torch.device …, got {device!r}")
    try:
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            return  # SB3 falls back to the CPU
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be 'auto' or one that torch can use here, got {device!r}: {reason}") from error
