"""What steering has changed: samples of a language model and of the steered one, beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.double_dqn import DoubleDQN
from agents.double_dqn.evaluation import EvaluationResult, Scores, evaluate, score
from agents.double_dqn.language_models import LanguageModelPolicy
from agents.double_dqn.language_models.writer import Writer
from agents.saving.arguments import make_env
from agents.saving.files import write_json
from agents.vec_env import rewards_of

STEERED = "steered.json"
_N_TEXTS, _N_SHOWN = 64, 6


@dataclass(frozen=True)
class SteeredTexts:
    """Texts of equal prompts, drawn without steering and with it.

    Attributes:
        plain: The language model's own.
        steered: The steered model's.
        nats: KL divergence of each steered text from the model, in nats.
    """

    plain: EvaluationResult
    steered: EvaluationResult
    nats: list[float]

    @property
    def scores(self) -> dict[str, Scores]:
        """Statistics of both."""
        return {"plain": score(self.plain), "steered": score(self.steered)}

    def save(self, folder: Path) -> SteeredTexts:
        """Write all texts, and their statistics, into a run folder."""
        texts = zip(
            self.plain.prompts,
            *(column for one in (self.plain, self.steered) for column in (one.completions, one.returns.tolist())),
            self.nats,
            strict=True,
        )
        names = ("prompt", "plain", "plain_reward", "steered", "steered_reward", "nats")
        means = {
            name: {"reward": scores.mean, "interval": list(scores.mean_interval)}
            for name, scores in self.scores.items()
        }
        means["steered"]["nats"] = float(np.mean(self.nats))
        write_json(folder / STEERED, {**means, "texts": [dict(zip(names, text, strict=True)) for text in texts]})
        return self

    def shown(self) -> str:
        """Statistics and some texts, for people."""
        lines = [f"Sampled on {len(self.nats)} held-out prompts:"]
        for name, scores in self.scores.items():
            low, high = scores.mean_interval
            lines.append(f"  {name:8} reward {scores.mean:.3f}  (95 % interval {low:.3f} to {high:.3f})")
        lines[-1] += f"  KL {np.mean(self.nats):.2f} nats a text"
        first = {prompt: row for row, prompt in reversed(list(enumerate(self.plain.prompts)))}
        rows = sorted(first.values()) + sorted(set(range(len(self.nats))) - set(first.values()))
        for row in rows[:_N_SHOWN]:  # each prompt once, as far as there are others
            lines.append(f"\n  {self.plain.prompts[row]}")
            for name, one in (("plain", self.plain), ("steered", self.steered)):
                lines.append(f"    {name:8}{one.returns[row]:6.3f}  {one.completions[row]}")
        return "\n".join(lines) + "\n"


def compare(model: DoubleDQN, env_id: str, env_args: dict[str, Any], seed: int, strength: float = 1.0) -> SteeredTexts:
    """Draw a text of the language model and one of the steered model for each of some prompts.

    Where it has learned from what every candidate changes in a dense reward, the reward is asked for that here, too.

    Args:
        model: With a ``LanguageModelPolicy``.
        env_id: Environment.
        env_args: Its arguments.
        seed: Seed of the prompts, of which row ``i`` has ``seed + i``, and of the draws.
        strength: See :meth:`agents.DoubleDQN.steering`.
    """
    assert isinstance(model.policy, LanguageModelPolicy)
    results = []
    for one in (0.0, strength):
        asks = one > 0 and model.policy.candidate_rewards and model.policy.value_range[0] < 0  # as dense rewards have
        env = make_env(env_id, _N_TEXTS, seed, env_args | {"dense": True} if asks else env_args)
        writer = Writer(model, one, seed, rewards_of=partial(rewards_of, env) if asks else None)
        results.append(evaluate(writer, env, _N_TEXTS, seed=seed, deterministic=False))
        env.close()
    plain, steered = results
    return SteeredTexts(plain, steered, writer.nats.tolist())
