"""Learning from text with a frozen language model as the trunk: it reads the texts once, and its head learns."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from agents.double_dqn import DoubleDQN
from agents.double_dqn.language_models import LanguageModelPolicy
from agents.double_dqn.language_models.replay import COLUMNS, StatesReplayBuffer, as_columns
from agents.offline.episodes import TextEpisodes
from agents.offline.learner import Learned, TextLearner

_CHUNK = 256


class StatesLearner(TextLearner):
    """:class:`TextLearner` with a ``LanguageModelPolicy``, which learns from texts what it learns online."""

    rehearses: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ("conservatism", "expectile", "sharpness", "other_reward")

    @classmethod
    def objectives(cls, model: DoubleDQN) -> tuple[str, ...]:  # noqa: D102
        policy = model.policy
        assert isinstance(policy, LanguageModelPolicy)
        if policy.objective == "qsharp":
            raise ValueError(
                "policy_kwargs['objective'] must be 'soft_q', 'ilql' or 'pcl' to learn from texts, got 'qsharp', which "
                "learns from those of the model alone"
            )
        return (policy.objective,)

    @staticmethod
    def value_range(model: DoubleDQN) -> tuple[float, float] | None:  # noqa: D102
        return 0.0, 1.0

    @staticmethod
    def store(model: DoubleDQN, episodes: TextEpisodes) -> None:
        """Have the language model read the texts, and put what it says of every state into replay."""
        for start in range(0, len(episodes), _CHUNK):
            _store(model, episodes.take(slice(start, start + _CHUNK)))

    def _new_value_head(self) -> None:
        return None  # the head has one of its own

    def _sample(self) -> Any:
        return self.replay.sample_states(self.batch_size, beta=self.model.priority_beta)

    def _loss(self, batch: Any) -> Learned:
        learned = self.model._path.loss(batch)
        valid = batch.episodes.valid
        error, q_mean = (figure.expand(valid.shape) for figure in (learned.td_error, learned.q_mean))
        return Learned(learned.loss, error, q_mean, valid, learned.priorities)


def _store(model: DoubleDQN, episodes: TextEpisodes) -> None:
    policy, replay = model.policy, model.replay_buffer
    assert isinstance(policy, LanguageModelPolicy) and isinstance(replay, StatesReplayBuffer)
    reader, rows = policy.reader(), np.arange(len(episodes))
    columns: list[list[list[Any]]] = [[[] for _ in COLUMNS] for _ in rows]
    places = np.arange(episodes.tokens.shape[1])
    for step in range(int(episodes.n_actions.max())):
        going = step < episodes.n_actions
        ends = np.where(going, episodes.action_positions[:, step], places[-1] + 1)
        actions = np.where(going, episodes.tokens[rows, np.minimum(ends, places[-1])], 0).astype(np.int64)
        prefixes = np.where(places < ends[:, None], episodes.tokens, reader.pad_id)
        masks = None if episodes.action_masks is None else episodes.action_masks[:, step]
        states, log_probs = reader.with_action(reader.read(prefixes, masks), actions)
        if not np.isfinite(log_probs[going]).all():
            row = int(np.flatnonzero(going & ~np.isfinite(log_probs))[0])
            token = policy.language_model.tokenizer.token_text(int(actions[row]))
            raise ValueError(f"data must hold tokens that are legal in the environment, got {token!r}")
        unasked = np.full(states.tokens.shape, np.nan)  # there is no environment to ask
        own_rewards = unasked if policy.candidate_rewards else unasked[:, :0]
        parts = as_columns(states, -log_probs, own_rewards)  # as if no other token could have stood there
        for row in np.flatnonzero(going).tolist():
            for column, part in zip(columns[row], parts, strict=True):
                column.append(part[row])
    stacked = [{name: np.stack(part) for name, part in zip(COLUMNS, one, strict=True)} for one in columns]
    fields = ("tokens", "action_positions", "n_actions", "rewards", "terminated")
    replay.add_texts(tuple(getattr(episodes, name) for name in fields), stacked)
