"""The third path of :class:`agents.DoubleDQN`: the trunk is a frozen language model, and only a head learns."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from agents.double_dqn import targets
from agents.double_dqn.base import LearningAgent
from agents.double_dqn.heads import checked_value_range
from agents.double_dqn.language_models import objectives
from agents.double_dqn.language_models.head import CandidateQNetwork
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import Reader, States
from agents.double_dqn.language_models.replay import StatesBatch, StatesReplayBuffer
from agents.double_dqn.paths import Choice, Loss
from agents.double_dqn.sequences import SequencePath
from agents.double_dqn.targets.losses import weighted_mean
from agents.exploration import EXPLORATIONS
from agents.replay.episodes import sequence_priorities
from agents.vec_env import rewards_of
from textgym.rewards import RewardError

_RECENT = 100  # texts whose divergence is averaged


class LanguageModelPath(SequencePath):
    """Reads each token once while it acts, stores what the model said, and learns from that alone.

    Attributes:
        nats: KL divergence from the model of the last texts that the guided policy began, as long as it led, in nats.
    """

    name = "language_models"
    acts_from_start = True
    explores = False
    default_buffer = StatesReplayBuffer
    _UNUSED: ClassVar[dict[str, Any]] = {
        "keep_best": False,
        "best_share": 0.0,
        "self_imitation": False,
        "q_lambda": None,
        "watkins": False,
        "lower_bound": False,
        "n_steps": 1,
        "double_q": True,
        "dueling": True,
        "exploration_fraction": 0.1,
        "exploration_initial_eps": 1.0,
        "exploration_final_eps": 0.02,
    }
    """Arguments that have no part in it, and their defaults."""

    def __init__(self, model: LearningAgent) -> None:
        super().__init__(model)
        self.reader: Reader | None = None  # of the environments trained in
        self._seen: tuple[States, NDArray[np.float32], NDArray[np.float64]] | None = None
        self._handover: NDArray[np.int64] | None = None  # tokens after which the model goes on alone
        self._nats = np.zeros(0)  # of the texts under way
        self.nats: deque[float] = deque(maxlen=_RECENT)

    @property
    def policy(self) -> LanguageModelPolicy:  # type: ignore[override]
        """The model's policy."""
        assert isinstance(self.model.policy, LanguageModelPolicy)
        return self.model.policy

    @property
    def replay(self) -> StatesReplayBuffer:
        """The model's replay."""
        assert isinstance(self.model.replay_buffer, StatesReplayBuffer)
        return self.model.replay_buffer

    def check(self) -> None:  # noqa: D102
        name = self.model.policy_name
        for argument, default in self._UNUSED.items():
            given = getattr(self.model, argument)
            if given != default:
                raise ValueError(f"{argument} must be {default} for {name}, which has no use for it, got {given!r}")
        explorer = self.model.exploration
        kind = EXPLORATIONS.get(explorer) if isinstance(explorer, str) else type(explorer)
        if kind is not EXPLORATIONS["ucb"] or (isinstance(explorer, str) and self.model.exploration_kwargs):
            given = explorer if kind is not EXPLORATIONS["ucb"] else self.model.exploration_kwargs
            raise ValueError(f"exploration must be left out for {name}, which draws from its policy, got {given!r}")
        super().check()
        asks = (self.model.policy_kwargs or {}).get("candidate_rewards", False)
        if asks and self.model.env is not None and not self.model.env.has_attr("rewards_of"):
            raise ValueError(
                "candidate_rewards needs a native batched environment, as agents.make_vec_env makes them, "
                f"got {type(self.model.env).__name__}"
            )
        if self.model._vec_normalize_env is not None:
            raise ValueError(f"env must not be a VecNormalize for {self.model.policy_name}: rewards lie in [0, 1]")
        task = self.model.env.get_attr("task")[0] if self.model.env is not None else None
        low, high = getattr(task, "reward_range", (0.0, 1.0))
        if math.isfinite(high - low) and (low < 0 or high > 1):
            raise ValueError(
                f"env must have returns in [0, 1] for {self.model.policy_name}, got ({low}, {high}): scale its reward"
            )

    def _choose_loss(self) -> None:
        """The loss is the objective's; returns to go lie in [0, 1], or in [-1, 1] where rewards are changes."""
        model = self.model
        given = None if model.value_range is None else checked_value_range(model.value_range)
        dense = False
        if model.env is not None and model.env.has_attr("task"):
            dense = getattr(model.env.get_attr("task")[0], "dense", False)
        known = (-1.0, 1.0) if dense else (0.0, 1.0)
        if given not in (None, known, (-1.0, 1.0)):
            raise ValueError(
                f"value_range must be (-1, 1){'' if dense else ', (0, 1)'} or None for {model.policy_name} in this "
                f"environment, got {given}"
            )
        model.value_range = given or known

    def policy_arguments(self) -> dict[str, Any]:  # noqa: D102
        return {"value_range": self.model.value_range}

    def kept_policy_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The model by its path and its fingerprint: the agent's files hold the head alone."""
        return {**given, "model": self.policy.language_model.path, "fingerprint": self.policy.fingerprint}

    @torch.no_grad()
    def values(self, observations: Any, masks: NDArray[np.bool_] | None) -> NDArray[np.float64]:  # noqa: D102
        states = self.policy.reader().read(np.asarray(observations), masks)
        result = np.full((len(observations), int(self.model.action_space.n)), -np.inf)  # type: ignore[attr-defined]
        q_values = self.policy.q_net.q_values(states, self.policy.eta).cpu()
        known = states.log_probs > -torch.inf
        rows = np.arange(len(observations))[:, None].repeat(states.tokens.shape[1], axis=1)
        result[rows[known.numpy()], states.tokens[known].numpy()] = q_values[known].cpu().numpy()
        return result

    # ------------------------------------------------------------------ acting

    def predict(  # type: ignore[override]  # noqa: D102
        self,
        observation: Any,
        state: Reader | None,
        episode_start: NDArray[np.bool_] | None,
        masks: NDArray[np.bool_] | None,
        explore: bool,
    ) -> tuple[NDArray[np.int64], Reader]:
        observation = np.asarray(observation)
        vectorized = self.policy.is_vectorized_observation(observation)
        reader = self.policy.reader() if state is None else state
        states = reader.read(observation.reshape(-1, observation.shape[-1]), masks)
        scores = self._policy_log_probs(states).numpy()
        if explore:
            assert self.model._generator is not None
            actions = reader.draw(states, scores, self.model._generator)[0]
        else:
            actions = _at(states.tokens.numpy(), scores.argmax(axis=1))
        return (actions if vectorized else actions.squeeze(0)), reader

    def act(self, masks: NDArray[np.bool_] | None) -> Choice:  # noqa: D102
        model, policy = self.model, self.policy
        assert isinstance(model._last_obs, np.ndarray) and model._generator is not None
        random, n = model._generator, len(model._last_obs)
        if self.reader is None:
            self.reader = policy.reader()
        states = self.reader.read(model._last_obs, masks)
        starts = np.asarray(model._last_episode_starts, bool)
        if self._handover is None:
            self._handover, self._taken, self._nats = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
            starts = np.ones(n, bool)
        self._taken[starts], self._nats[starts] = 0, 0.0
        self._handover[starts] = self._drawn_handovers(int(starts.sum()))
        own_rewards = self._asked(states.tokens.numpy())
        prior = guided = states.prior().numpy()
        alone = self._taken >= self._handover
        if not alone.all():
            log_probs = self._policy_log_probs(states, own_rewards)
            self._nats += np.where(alone, 0.0, objectives.divergence(log_probs, states.prior(), states.mass).numpy())
            guided = np.where(alone[:, None], prior, log_probs.numpy())
        actions, chosen, extra = self.reader.draw(states, guided, random)
        log_ratios = np.where(chosen < 0, 0.0, _at(guided, chosen) - _at(prior, chosen))
        # A ratio of exactly 1 is kept for the model's own choices: see objectives.from_the_prior.
        log_ratios = np.where(alone, 0.0, np.where(log_ratios == 0, 1e-4, log_ratios)).astype(np.float32)
        self._taken += 1
        asked = np.concatenate([own_rewards, self._asked(extra.tokens[:, -1:].numpy())], axis=1)
        self._seen = extra, log_ratios, asked
        return Choice(actions, None)

    def _asked(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each of some tokens would earn, ``(n, k)`` → ``(n, k)``; ``(n, 0)`` where that is not to be asked."""
        if not self.policy.candidate_rewards:
            return np.zeros((len(tokens), 0))
        assert self.model.env is not None
        return rewards_of(self.model.env, tokens)

    def _drawn_handovers(self, n: int) -> NDArray[np.int64]:
        """After how many tokens the model goes on alone, in n new episodes."""
        model, policy = self.model, self.policy
        assert model._generator is not None and model.env is not None
        if model.num_timesteps < model.learning_starts:
            return np.zeros(n, np.int64)
        budget = int(getattr(model.env.get_attr("task")[0], "max_new_tokens", 2**31))
        guided = model._generator.random(n) < policy.guided
        if policy.objective == "qsharp":
            return np.where(guided, model._generator.integers(1, budget + 1, size=n), 0)
        return np.where(guided, budget, 0)

    @torch.no_grad()
    def _policy_log_probs(self, states: States, own_rewards: NDArray[np.float64] | None = None) -> torch.Tensor:
        policy = self.policy
        known = None if own_rewards is None else torch.from_numpy(own_rewards)
        values = policy.q_net.q_values(states, policy.eta, known).cpu()
        return objectives.policy_log_probs(values, states.prior(), policy.eta)

    # ------------------------------------------------------------------ learning

    def store(  # noqa: D102
        self,
        replay_buffer: StatesReplayBuffer,  # type: ignore[override]
        new_obs: NDArray[np.integer],
        actions: NDArray[np.int64],
        rewards: NDArray[np.floating],
        dones: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        masks: NDArray[np.bool_] | None,
    ) -> None:
        model = self.model
        assert isinstance(model._last_obs, np.ndarray) and self._seen is not None
        low, high = self.policy.value_range
        if rewards.min() < low or rewards.max() > high:
            raise RewardError(
                f"env must have returns in [0, 1] for {model.policy_name}, got a reward of "
                f"{rewards.min() if rewards.min() < low else rewards.max()}: scale it"
            )
        replay_buffer.add_states(model._last_obs, new_obs, actions, rewards, dones, infos, *self._seen)
        assert self._handover is not None
        guided = np.flatnonzero(np.asarray(dones, bool) & (self._handover > 0))
        if guided.size:
            self.nats.extend(self._nats[guided].tolist())
            model.logger.record("rollout/kl_nats", float(np.mean(self.nats)))
        model._last_obs = new_obs

    def sample(self, batch_size: int, beta: float) -> StatesBatch:  # type: ignore[override]  # noqa: D102
        return self.replay.sample_states(batch_size, beta=beta)

    def loss(self, batch: StatesBatch) -> Loss:  # type: ignore[override]  # noqa: D102
        policy, episodes = self.policy, batch.episodes
        if policy.objective == "pcl":
            return self._inconsistency(batch)
        states = self._states(policy.q_net, batch)
        chosen = batch.chosen.unsqueeze(-1)
        extra: torch.Tensor | float = 0.0
        logits = policy.q_net.logits(states)  # (B, T, k, bins)
        taken = logits.gather(2, chosen.unsqueeze(-1).expand(-1, -1, -1, policy.n_bins)).squeeze(2)  # (B, T, bins)
        if policy.objective == "soft_q":
            with torch.no_grad():
                rated = self._states(policy.q_net_target, batch)
                q_taken, values = self._soft_values(policy.q_net_target, rated, batch)
                goals = objectives.soft_lambda_targets(
                    episodes.rewards, episodes.valid, q_taken, values, self.model.gamma, policy.lambda_
                )
            counts = episodes.valid
        elif policy.objective == "ilql":
            with torch.no_grad():
                rated = self._states(policy.q_net_target, batch)
                q_values = policy.q_net_target.q_values(rated, policy.eta, batch.own_rewards)
                q_taken = q_values.gather(-1, chosen).squeeze(-1)
                next_values = policy.q_net_target.to_values(policy.q_net_target.state_logits(rated))
            counts = episodes.valid
            goals = objectives.in_sample_targets(episodes.rewards, counts, next_values, self.model.gamma)
            weights = counts * episodes.weights.unsqueeze(1)
            value_logits = policy.q_net.state_logits(states)
            extra = objectives.expectile_cross_entropy(
                value_logits, policy.q_net.shares(q_taken), weights, policy.expectile
            )
        else:
            goals = targets.monte_carlo_returns(episodes.rewards, episodes.valid, self.model.gamma)
            counts = objectives.from_the_prior(batch.log_ratios, episodes.valid)
        if policy.candidate_rewards:
            extra = extra + self._reward_loss(batch, states)
            goals = goals - episodes.rewards  # what follows the token
        shares = policy.q_net.shares(goals)
        loss = extra + objectives.distribution_loss(taken, shares, counts * episodes.weights.unsqueeze(1))
        q_values = policy.q_net.mean_returns(taken.detach())
        return self._reported(loss, torch.where(counts, goals - q_values, 0.0), counts, q_values, counts)

    def _inconsistency(self, batch: StatesBatch) -> Loss:
        """Squared residuals of path consistency, in nats: a unit of η counts as one."""
        policy, episodes = self.policy, batch.episodes
        states = self._states(policy.q_net, batch)
        q_taken, values = self._soft_values(policy.q_net, states, batch)
        residuals, counts = objectives.path_residuals(
            episodes.rewards, episodes.valid, q_taken, values, self.model.gamma, policy.span
        )
        loss = weighted_mean(0.5 * (residuals / policy.eta).square(), counts, episodes.weights)
        if policy.candidate_rewards:
            loss = loss + self._reward_loss(batch, states)
        return self._reported(loss, residuals.detach(), counts, q_taken.detach(), episodes.valid)

    def _reward_loss(self, batch: StatesBatch, states: States) -> torch.Tensor:
        """Half the squared error of the candidates' own rewards; a unit of η counts as one."""
        policy, episodes = self.policy, batch.episodes
        counts = episodes.valid.unsqueeze(-1) & (states.log_probs > -torch.inf)
        predicted, rewards = policy.q_net.own_rewards(states) / policy.eta, batch.own_rewards / policy.eta
        return 0.5 * objectives.candidate_reward_loss(predicted, rewards, counts, episodes.weights)

    def _soft_values(
        self, network: CandidateQNetwork, states: States, batch: StatesBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of the actions taken and soft values of the states acted in, ``(B, T)`` each."""
        eta = self.policy.eta
        q_values = network.q_values(states, eta, batch.own_rewards)
        q_taken = q_values.gather(-1, batch.chosen.unsqueeze(-1)).squeeze(-1)
        return q_taken, objectives.soft_values(q_values, states.prior(), eta)

    @staticmethod
    def _states(network: CandidateQNetwork, batch: StatesBatch) -> States:
        """The batch's states as a network sees them: as they were stored, or read anew by its adapted trunk."""
        if network.trunk is None:
            return batch.states
        hidden = network.trunk.hidden_after(batch.episodes.tokens, batch.episodes.action_positions)
        return batch.states._replace(hidden=hidden)

    def _reported(
        self, loss: torch.Tensor, errors: torch.Tensor, counts: torch.Tensor, q_taken: torch.Tensor, valid: torch.Tensor
    ) -> Loss:
        """A loss with what is logged and what replay draws by: errors that count, and values that are valid."""
        low, high = self.policy.value_range
        return Loss(
            loss,
            errors.abs().sum() / counts.sum().clamp(min=1),
            (q_taken * valid).sum() / valid.sum().clamp(min=1),
            (q_taken.masked_fill(~valid, high).amin(), q_taken.masked_fill(~valid, low).amax()),
            sequence_priorities(errors, counts),
        )

    def on_learn(self, resets: bool) -> None:  # noqa: D102
        super().on_learn(resets)
        self.reader, self._handover = None, None

    def get_acting_state(self) -> dict[str, Any] | None:  # noqa: D102
        if self.reader is None or self._handover is None:
            return None
        counted = {"handover": self._handover.copy(), "taken": self._taken.copy(), "open_nats": self._nats.copy()}
        return {"reader": self.reader.get_state(), "nats": list(self.nats), **counted}

    def set_acting_state(self, state: dict[str, Any] | None) -> None:  # noqa: D102
        self.reader = self._handover = None
        if state is None:
            return
        self.reader = self.policy.reader()
        self.reader.set_state(state["reader"])
        self._handover, self._taken, self._nats = state["handover"], state["taken"], state["open_nats"]
        self.nats.clear()
        self.nats.extend(state["nats"])


def _at(rows: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    return rows[np.arange(len(rows)), places]
