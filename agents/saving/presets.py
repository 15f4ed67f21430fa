"""How long ``textgym train`` trains on each id, and with which arguments: data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """What ``textgym train`` does unless told otherwise.

    Attributes:
        steps: Environment steps.
        n_envs: Parallel environments.
        kwargs: Arguments of :class:`agents.DoubleDQN` that differ from its defaults; plain values, see
            :func:`agents.saving.arguments.constructor_arguments`.
    """

    steps: int = 100_000
    n_envs: int = 64
    kwargs: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "TextGen-v0": Preset(
        steps=900_000,
        n_envs=256,
        # 1,500 words to try out: more texts help more than more updates a text, or than larger ones; and by counts of
        # what follows three words nothing else is tried at the start of a text, where each prompt is new.
        kwargs={
            "updates_per_step": 0.01,
            "batch_size": 32,
            "learning_rate": {"start": 2e-3, "end": 0.0},
            "exploration": "boltzmann",
        },
    ),
    "TextGen/Copy-v0": Preset(steps=20_000),
    "TextGen/Reverse-v0": Preset(steps=20_000),
    "TextGen/Sort-v0": Preset(steps=80_000),
}
"""Presets by id; other ids take the defaults of :class:`Preset`."""
POLICY_PRESETS: dict[str, Preset] = {
    "EncoderPolicy": Preset(
        kwargs={
            # Transitions of a text task are few beside those of a game, for which SB3's defaults are made.
            **{"learning_rate": 1e-3, "buffer_size": 100_000, "learning_starts": 1_000, "batch_size": 128},
            **{"tau": 0.01, "target_update_interval": 32, "train_freq": 1, "updates_per_step": 0.1},
        },
    ),
}
"""Presets by policy, for those that are not made for token sequences, whatever the id."""

DENSE_STEERING: dict[str, Any] = {
    # A token's own reward has many examples and no noise: many small updates. What follows it has one noisy example a
    # state: learned from some thousand texts, it may cost more nats than it is worth.
    "gamma": 0.0,
    "batch_size": 8,
    "updates_per_step": 0.08,
    "policy_kwargs": {"candidate_rewards": True, "lambda_": 0.0, "optimizer_kwargs": {"weight_decay": 1.0}},
}
"""Arguments that steer a language model where each token earns what it changes in the reward."""
