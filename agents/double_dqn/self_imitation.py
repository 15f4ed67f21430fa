"""Self-imitation: what the sequence path does otherwise where success is all or nothing, and rare."""

from __future__ import annotations

from stable_baselines3.common.vec_env import VecEnv

from agents.double_dqn.base import LearningAgent
from agents.exploration import ContextUCB, Exploration, OddsMatching
from agents.replay.episodes import EpisodeReplayBuffer
from agents.vec_env import is_deterministic

SHARE = 0.8
"""Of each batch, drawn uniformly from the best episodes."""
DECAY = 1.0
"""Decoupled weight decay (arXiv:1711.05101), in units of the learning rate."""
EPSILON = 0.2
"""Probability of a uniformly random action in the end: what no success is known of may still be right."""


class SelfImitation:
    """Learns more from the few successes there are (self-imitation, arXiv:1806.05635), while these are rare.

    A network that has seen a handful of successes among thousands of failures learns the successes by heart: that is
    what the data says, because the right action of any other prompt has only been seen to fail. And an explorer that
    adds a bonus in units of the reward drowns what little it knows, or tries again what worked for another prompt. So

    * most of each batch are the best episodes, at most one for each prompt, and their actions are imitated: the
      cross-entropy of the softmax of the logits, beside the temporal-difference loss;
    * weights decay, so that what the successes have in common is learned before what tells them apart;
    * actions are drawn in proportion to the odds of their values, on whatever scale these are, in place of UCB.

    The returns say whether success is rare: see :class:`agents.replay.best_episodes.BestEpisodes`. Where it is not,
    nothing changes. Nor does it where a task hides a secret, as what succeeded once need not be right again, or with
    several learners, whose replays may disagree; and remote actors explore as ever.

    Args:
        model: The agent.
    """

    def __init__(self, model: LearningAgent) -> None:
        self.model = model
        self._env: VecEnv | None = None
        self._deterministic = True  # as far as anybody knows, without an environment

    @property
    def active(self) -> bool:
        """Whether success is rare, and the agent may imitate."""
        model = self.model
        return (
            model.self_imitation
            and model.value_range is not None
            and model.learners is None
            and isinstance(model.replay_buffer, EpisodeReplayBuffer)
            and model.replay_buffer.success_is_rare
            and self._success_repeats()
        )

    def _success_repeats(self) -> bool:
        if self.model.env is not self._env:
            self._env = self.model.env
            self._deterministic = self._env is None or is_deterministic(self._env)
        return self._deterministic

    @property
    def explorer(self) -> Exploration:
        """Who explores now: the agent's explorer, unless that is UCB and success is rare."""
        model = self.model
        if not (self.active and isinstance(model.explorer, ContextUCB)):
            return model.explorer
        assert model.value_range is not None
        final = max(model.exploration_final_eps, EPSILON)
        return OddsMatching(model.value_range, model.exploration_initial_eps, final, model.exploration_fraction)

    def regularise(self) -> None:
        """Let weights decay in the next step of the optimizer, or not, unless it has a decay of its own."""
        optimizer = self.model.policy.optimizer
        if "decoupled_weight_decay" not in optimizer.defaults or optimizer.defaults["weight_decay"] != 0:
            return
        for group in optimizer.param_groups:
            group["weight_decay"] = DECAY if self.active else 0.0
            group["decoupled_weight_decay"] = self.active or optimizer.defaults["decoupled_weight_decay"]
