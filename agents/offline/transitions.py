"""Learning from text on single transitions: whatever makes a vector of a text, such as a pretrained encoder."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import Tensor, nn
from torch.nn import functional as F

from agents.double_dqn import DoubleDQN
from agents.double_dqn.defaults import DEFAULTS
from agents.double_dqn.losses import ensemble_values, transition_loss
from agents.double_dqn.targets import cross_entropy_loss
from agents.offline.episodes import TextEpisodes
from agents.offline.learner import Learned, TextLearner
from agents.offline.losses import CEILING, OfflineObjective
from agents.offline.objectives import advantage_weights, expectile_loss, other_actions_loss
from agents.replay.prioritized import PrioritizedReplayBuffer

_WIDTH = 64  # of the network for state values


class TransitionLearner(TextLearner):
    """:class:`TextLearner` on transitions: with ``"MlpPolicy"``, each token of a text is one of them."""

    rehearses: ClassVar[bool] = False

    @classmethod
    def objectives(cls, model: DoubleDQN) -> tuple[str, ...]:  # noqa: D102
        return tuple(name for name in super().objectives(model) if name != "mc")

    @staticmethod
    def value_range(model: DoubleDQN) -> tuple[float, float] | None:  # noqa: D102
        return None

    @staticmethod
    def store(model: DoubleDQN, episodes: TextEpisodes) -> None:  # noqa: D102
        store_transitions(model, episodes)

    def _new_value_head(self) -> nn.Module:
        width = self.policy.q_net.features_dim
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.model.seed or 0)
            network = nn.Sequential(nn.Linear(width, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1))
        return network.to(self.model.device)

    def _sample(self) -> Any:
        return self.model._path.sample(self.batch_size, self.model.priority_beta)

    def _target_rate(self) -> float:
        return self.model.tau if self.model.tau < 1 else DEFAULTS["tau"].sequences

    def get_state(self) -> dict[str, Any]:
        """With what a frozen encoder has computed, whose last bits depend on the batch."""
        return super().get_state() | {"acting": self.model._path.get_acting_state()}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().set_state(state)
        self.model._path.set_acting_state(state.get("acting"))

    def _loss(self, batch: Any) -> Learned:
        policy, double_q = self.policy, self.model.double_q
        loss, errors, q_t = offline_transition_loss(
            policy.q_net, policy.q_net_target, self._value_head, batch, self.objective, double_q
        )
        auxiliary_loss = getattr(policy.q_net.features_extractor, "auxiliary_loss", None)
        if auxiliary_loss is not None:
            loss = loss + auxiliary_loss(preprocess_obs(batch.observations, policy.observation_space))
        return Learned(loss, errors[:, None], q_t[:, None], torch.ones_like(errors[:, None], dtype=torch.bool))


def offline_transition_loss(
    q_net: Any, target_net: Any, value_head: nn.Module | None, batch: Any, objective: OfflineObjective, double_q: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of B transitions: :func:`agents.offline.losses.offline_loss` where replay holds no episodes.

    Args:
        q_net: The network to train, K heads.
        target_net: The network that rates the next states.
        value_head: Of ``"ilql"`` and ``"crr"``: state values of ``q_net``'s extracted features, ``(B, D)`` →
            ``(B, 1)``; they give these no gradient.
        batch: The transitions, see :class:`agents.replay.prioritized.TransitionBatch`.
        objective: What to learn.
        double_q: Whether ``q_net`` picks the action that ``target_net`` rates.

    Returns:
        The loss, a scalar with a gradient; errors and values of the actions, ``(B,)``, means over the heads.
    """
    weights = getattr(batch, "weights", None)
    if objective.name in ("td", "cql"):
        loss, errors, q_t = transition_loss(q_net, target_net, batch, gamma=objective.gamma, double_q=double_q)
        if objective.conservatism == 0 and objective.other_reward is None:
            return loss, errors, q_t
    rows = ensemble_values(q_net, batch.observations)  # (B, K, V)
    actions = batch.actions.long().expand(-1, rows.shape[1])  # (B, K)
    valid = torch.ones_like(actions, dtype=torch.bool)
    taken = rows.gather(2, actions.unsqueeze(2)).squeeze(2)  # (B, K)
    imitation = weights
    if objective.name == "bc":
        loss, entropies = cross_entropy_loss(rows, actions, valid, None, weights)
        return loss, entropies.mean(dim=1), taken.mean(dim=1)
    if objective.name in ("ilql", "crr"):
        assert value_head is not None
        one = valid[:, :1]
        with torch.no_grad():
            features, following = (
                q_net.extract_features(rows_, q_net.features_extractor)
                for rows_ in (batch.observations, batch.next_observations)
            )
            discounts = objective.gamma if batch.discounts is None else batch.discounts
            target = batch.rewards + (1 - batch.dones) * discounts * value_head(following)  # (B, 1)
            critic = target
            if objective.name == "ilql":
                rated = ensemble_values(target_net, batch.observations).gather(2, actions.unsqueeze(2))
                critic = rated.squeeze(2).mean(dim=1, keepdim=True)
        values = value_head(features)  # (B, 1)
        loss = expectile_loss(values, critic, one, objective.expectile, weights)
        imitation = advantage_weights(critic - values, one, objective.sharpness, CEILING[objective.name])
        imitation = (imitation if weights is None else imitation * weights[:, None]).expand(-1, rows.shape[1])
        errors, q_t = (target - taken.detach()).mean(dim=1), taken.mean(dim=1)
        if objective.name == "crr":
            errors = (target - values.detach()).squeeze(1)
        else:
            losses = F.smooth_l1_loss(taken, target.expand_as(taken), reduction="none")
            loss = loss + (losses if weights is None else losses * weights[:, None]).mean()
    if objective.conservatism:
        loss = loss + objective.conservatism * cross_entropy_loss(rows, actions, valid, None, imitation)[0]
    if objective.other_reward is not None:
        loss = loss + other_actions_loss(rows, actions, valid, objective.other_reward, None, weights)
    return loss, errors, q_t


def store_transitions(model: DoubleDQN, episodes: TextEpisodes) -> None:
    """Put every action of some texts into a replay of transitions, as the model's environment would have shown it.

    Where replay has several columns, one for each environment, each takes whole texts; shorter ones begin anew until
    the longest is full.

    Args:
        model: With observations that are token rows, or a :class:`agents.StateEmbedding`'s vectors of them.
        episodes: The texts.

    Raises:
        ValueError: If the observations or the actions are others, or replay is too small.
    """
    replay: Any = model.replay_buffer
    n_envs = replay.n_envs
    texts = [np.arange(column, len(episodes), n_envs) for column in range(n_envs)]
    columns = [_steps(episodes, mine if len(mine) else np.array([n % len(episodes)])) for n, mine in enumerate(texts)]
    longest = max(len(column) for column in columns)
    if longest > replay.buffer_size:
        raise ValueError(
            f"data must fit into replay: buffer_size of the model must be at least {longest * n_envs}, got "
            f"{replay.buffer_size * n_envs}"
        )
    order = np.stack([np.resize(np.arange(len(column)), longest) for column in columns])  # (n_envs, longest)
    observe = _observer(model, episodes)
    for place in range(longest):
        chosen = np.stack([column[where] for column, where in zip(columns, order[:, place], strict=True)])
        rows, steps = chosen[:, 0], chosen[:, 1]
        last = steps + 1 == episodes.n_actions[rows]
        following = np.where(last, steps, np.minimum(steps + 1, episodes.action_positions.shape[1] - 1))
        ends = episodes.action_positions[rows, following]
        ends[last] = episodes.tokens.shape[1]
        infos = [
            {"TimeLimit.truncated": bool(done and not episodes.terminated[row])} | _mask(episodes, row, step + 1)
            for row, step, done in zip(rows.tolist(), steps.tolist(), last.tolist(), strict=True)
        ]
        actions = episodes.tokens[rows, episodes.action_positions[rows, steps]]
        observations = observe(rows, episodes.action_positions[rows, steps]), observe(rows, ends)
        replay.add(*observations, actions.astype(np.int64), episodes.rewards[rows, steps], last, infos)
    if isinstance(replay, PrioritizedReplayBuffer):
        replay.cut()


def _steps(episodes: TextEpisodes, rows: NDArray[np.integer]) -> NDArray[np.int64]:
    """Episode and action of every transition of some episodes, in order, shape ``(n, 2)``."""
    return np.array([(row, step) for row in rows.tolist() for step in range(int(episodes.n_actions[row]))])


def _mask(episodes: TextEpisodes, row: int, step: int) -> dict[str, Any]:
    return {} if episodes.action_masks is None else {"action_mask": episodes.action_masks[row, step]}


def _observer(model: DoubleDQN, episodes: TextEpisodes) -> Any:
    """Gives the observations of rows' first tokens: ``(n,)`` and ``(n,)`` → ``(n, ...)``."""
    env, space = model.env, model.observation_space
    assert env is not None  # whose task the texts were encoded for
    task = env.get_attr("task")[0]
    if model.action_space != spaces.Discrete(task.vocab_size):
        raise ValueError(
            f"env must have the {task.vocab_size} tokens of its task as actions to learn from texts, got "
            f"{model.action_space}"
        )
    width, pad_id = task.context_length, task.pad_id
    tokens = np.full((len(episodes), width), pad_id, np.int32)
    tokens[:, : episodes.tokens.shape[1]] = episodes.tokens[:, :width]
    places = np.arange(width)
    embedding: Any = env.get_attr("embedding")[0] if env.has_attr("embedding") else None
    is_row = isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer) and space.shape == (width,)
    if not is_row and (embedding is None or space.shape != (embedding.features_dim,)):
        raise ValueError(
            f"env must show token rows, or their vectors (EmbedObservation), to learn from texts, got {space}"
        )

    def observe(rows: NDArray[np.integer], ends: NDArray[np.integer]) -> NDArray[Any]:
        shown = np.where(places < ends[:, None], tokens[rows], pad_id).astype(np.int32)
        return shown if is_row else embedding.embed(shown)

    return observe
