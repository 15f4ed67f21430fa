"""The page that goes along with an exported model, ``README.md``, in the form that model hubs read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any

import yaml

from agents.double_dqn.evaluation import Scores

CARD_FILE = "README.md"
TAGS = ("textgym", "reinforcement-learning", "text-generation", "gymnasium", "stable-baselines3")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_METRICS = (("mean", "mean_reward", "mean return"), ("iqm", "iqm", "IQM"), ("normalised", "normalised_score", None))
"""Field of the scores, its type in the front matter, and its name where that is another."""


def model_card(
    config: Mapping[str, Any],
    name: str,
    scores: Scores | None = None,
    texts: str | None = None,
    license_id: str | None = None,
) -> str:
    """A model card: YAML front matter, then the task, the scores, texts, how to load it, arguments and versions.

    Args:
        config: Content of the model's ``config.json``: see :mod:`agents.saving.export`.
        name: The model's name.
        scores: What it scored on fresh seeds; None where nobody has measured it.
        texts: Some of what it writes, a line each; None for none.
        license_id: Identifier of its licence, such as ``"mit"``; None for none.

    Raises:
        ValueError: If ``license_id`` is no identifier.
    """
    check_license(license_id)
    environment = config.get("environment") or {}
    env_id, env_args = environment.get("env"), _portable(environment.get("env_args") or {})
    parts = [
        f"---\n{_front_matter(name, env_id, env_args, scores, license_id)}\n---",
        f"# {name}",
        f"An agent that writes text token by token: `{config['policy']}` of TextGym's `DoubleDQN`, after "
        f"{config['num_timesteps']:,} tokens of training.",
    ]
    if env_id is not None:
        parts += ["## Task", f"`{env_id}`" + (f" with\n\n{_block(_as_yaml(env_args), 'yaml')}" if env_args else ".")]
    parts += ["## Scores", _scores(scores)]
    if texts:
        parts += ["## Texts", f"Return, prompt and text, greedy:\n\n{_block(texts)}"]
    parts += [
        "## Use",
        _block(
            "import agents  # of TextGym\nfrom huggingface_hub import snapshot_download\n"
            'model = agents.load(snapshot_download("USER/NAME"))  # or the path of this folder',
            "python",
        ),
        "The folder holds arrays and JSON, and opening it executes nothing. `textgym validate FOLDER` measures the "
        "scores again, `textgym demo FOLDER` shows it at work.",
        "## Arguments",
        _block(_as_yaml(_portable(config["agent"])), "yaml"),
        "## Versions",
        "\n".join(f"* {package} {version}" for package, version in config["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def check_license(license_id: str | None) -> None:
    """Check the identifier of a licence; None is one, too.

    Raises:
        ValueError: If it is no identifier.
    """
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        raise ValueError(
            f"license must be an identifier of small letters, digits, '.', '+' and '-', such as mit, got {license_id!r}"
        )


def _front_matter(
    name: str, env_id: str | None, env_args: dict[str, Any], scores: Scores | None, license_id: str | None
) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # slow to load

    results = None
    if scores is not None and env_id is not None:
        results = [
            EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement learning",
                dataset_type=env_id,
                dataset_name=env_id,
                dataset_args=env_args or None,
                metric_type=kind,
                metric_name=shown or "normalised score",
                metric_value=round(value, 4),
                metric_args={
                    "episodes": scores.episodes,
                    "interval_95": [round(end, 4) for end in getattr(scores, f"{field}_interval")],
                },
            )
            for field, kind, shown in _METRICS
            if (value := getattr(scores, field)) is not None
        ]
    data = ModelCardData(
        library_name="textgym",
        license=license_id,
        tags=[*TAGS, *([env_id] if env_id else [])],
        model_name=name if results else None,
        eval_results=results,
    )
    return data.to_yaml(line_break="\n").strip()


def _scores(scores: Scores | None) -> str:
    if scores is None:
        return "Not measured: `textgym validate FOLDER` does so."
    rows = [("mean return", scores.mean, scores.mean_interval), ("IQM of the returns", scores.iqm, scores.iqm_interval)]
    if scores.normalised is not None and scores.normalised_interval is not None:
        rows.append(("normalised score", scores.normalised, scores.normalised_interval))
    lines = [
        "| score | value | 95 % interval |",
        "|---|---:|---:|",
        *(f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |" for name, value, (low, high) in rows),
    ]
    known = scores.references
    return (
        "\n".join(lines)
        + (f"\n\nGreedy, {scores.episodes:,} episodes on fresh seeds, {scores.mean_length:.1f} tokens on average.")
        + (
            ""
            if known is None
            else f" References: random {known['random']:.3f}, blind to the prompt {known['blind']:.3f}, best known "
            f"{known['best']:.3f}; the normalised score is 0 at random and 1 at the best known."
        )
    )


def _portable(value: Any) -> Any:
    """Paths of this machine mean nothing elsewhere: of an absolute one the last part is left."""
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(item) for item in value]
    if isinstance(value, str) and "\n" not in value:
        for kind in (PurePath, PureWindowsPath):
            if (path := kind(value)).is_absolute():
                return path.name
    return value


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=120).strip()


def _block(text: str, language: str = "") -> str:
    """A block of code whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
