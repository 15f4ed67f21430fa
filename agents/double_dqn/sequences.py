"""The sequence path of :class:`agents.DoubleDQN`: whole episodes of tokens, a causal encoder, recurrent acting."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer

from agents.double_dqn.base import LearningAgent
from agents.double_dqn.defaults import default_batch_size
from agents.double_dqn.heads import legal_argmax
from agents.double_dqn.losses import sequence_loss
from agents.double_dqn.paths import Choice, LearningPath, Loss
from agents.double_dqn.policies import SequencePolicy
from agents.double_dqn.self_imitation import SHARE, SelfImitation
from agents.double_dqn.sequence_network import ActingState
from agents.exploration import context_keys
from agents.replay.episodes import EpisodeBatch, EpisodeReplayBuffer, sequence_priorities
from agents.replay.transfer import to_device
from agents.vec_env import is_deterministic
from textgym import TokenSequence

# For returns in [0, 1]. With 0.02 a success that is rare stays so for long; 0.3 costs where many words are to be tried.
DEFAULT_UCB_COEFFICIENT = 0.1
# Likewise. Warm enough at first that many words are tried wherever a text stands, at its start too, and what can follow
# them is learned; in the end all but greedy. Started at 0.006, it settled for the first text it found.
DEFAULT_TEMPERATURES = {"initial_temperature": 0.02, "final_temperature": 5e-4, "fraction": 0.9}


class SequencePath(LearningPath):
    """Learns all actions of an episode from one pass, and reads each token once when it acts."""

    name = "sequences"
    default_n_envs = 64
    default_log_interval = 100
    default_buffer: ClassVar[type[EpisodeReplayBuffer]] = EpisodeReplayBuffer
    explorer_defaults: ClassVar[dict[str, dict[str, Any]]] = {
        "ucb": {"coefficient": DEFAULT_UCB_COEFFICIENT},
        "boltzmann": DEFAULT_TEMPERATURES,
    }

    def __init__(self, model: LearningAgent) -> None:
        super().__init__(model)
        self.state: ActingState | None = None  # of the environments trained in
        self.imitation = SelfImitation(model)
        self._parameters: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    @property
    def policy(self) -> SequencePolicy:
        """The model's policy."""
        assert isinstance(self.model.policy, SequencePolicy)
        return self.model.policy

    @property
    def replay(self) -> EpisodeReplayBuffer:
        """The model's replay."""
        assert isinstance(self.model.replay_buffer, EpisodeReplayBuffer)
        return self.model.replay_buffer

    def check(self) -> None:  # noqa: D102
        model = self.model
        if not isinstance(model.observation_space, TokenSequence):
            raise ValueError(
                f"env must have TokenSequence observations for {model.policy_name}, got {model.observation_space}; "
                "MlpPolicy, CnnPolicy and MultiInputPolicy take others"
            )
        if model.first_action != 0:
            raise ValueError(f"env must number its actions from 0, as its tokens, got {model.action_space}")
        if model.optimize_memory_usage:
            raise ValueError(f"optimize_memory_usage must be False for {model.policy_name}: tokens are stored once")
        if model._vec_normalize_env is not None and model._vec_normalize_env.norm_obs:
            raise ValueError(f"VecNormalize must have norm_obs=False for {model.policy_name}: tokens are no quantities")
        if model.lower_bound and model.env is not None and not is_deterministic(model.env):
            raise ValueError("lower_bound=True needs rewards that the observation determines; this task hides a secret")
        if model.best_share and not model.keep_best:
            raise ValueError(f"best_share needs keep_best=True, got best_share={model.best_share}")
        self._choose_loss()
        if model.batch_size is None:
            model.batch_size = default_batch_size(model.observation_space.shape[0])

    def _choose_loss(self) -> None:
        """Decide between the losses where that was left open, and on the bounds of the values where they are needed."""
        model = self.model
        if model.loss in (None, "cross_entropy") and model.value_range is None:
            model.value_range = _return_range(model)
        if model.loss is None:
            model.loss = "huber" if model.value_range is None else "cross_entropy"
        elif model.loss == "cross_entropy" and model.value_range is None:
            raise ValueError(
                'loss="cross_entropy" needs value_range=(low, high), as this environment does not tell between which '
                "finite bounds its returns lie (or VecNormalize rescales them), got None"
            )
        elif model.loss != "cross_entropy" and model.value_range is not None:
            raise ValueError(f'value_range needs loss="cross_entropy", got loss={model.loss!r}')

    def policy_arguments(self) -> dict[str, Any]:  # noqa: D102
        return self.model.head_arguments() | {"value_range": self.model.value_range}

    def buffer(self) -> tuple[type[ReplayBuffer], dict[str, Any]]:  # noqa: D102
        model = self.model
        buffer_class = model.replay_buffer_class or self.default_buffer
        if not issubclass(buffer_class, self.default_buffer):
            needed = self.default_buffer.__name__
            raise ValueError(
                f"replay_buffer_class must be {'an' if needed[0] in 'AEIOU' else 'a'} {needed} for "
                f"{model.policy_name}, got {buffer_class.__name__}"
            )
        # Only where they are used: a buffer of somebody's own need not know them.
        flags = {"keep_best": model.keep_best, "best_share": model.best_share}
        best = {name: value for name, value in flags.items() if value}
        return buffer_class, model.priority_arguments() | best

    # ------------------------------------------------------------------ acting

    def predict(  # noqa: D102
        self,
        observation: Any,
        state: ActingState | None,
        episode_start: NDArray[np.bool_] | None,
        masks: NDArray[np.bool_] | None,
        explore: bool,
    ) -> tuple[NDArray[np.int64], ActingState]:
        observation = np.asarray(observation)
        vectorized = self.policy.is_vectorized_observation(observation)
        rows = observation.reshape(-1, observation.shape[-1])
        state = self.policy.q_net.advance(rows, state, episode_start)
        actions = self._choose(rows, state, masks, explore).actions
        return (actions if vectorized else actions.squeeze(0)), state

    def act(self, masks: NDArray[np.bool_] | None) -> Choice:  # noqa: D102
        observations = self.model._last_obs
        assert isinstance(observations, np.ndarray)
        self.state = self.policy.q_net.advance(observations, self.state, self.model._last_episode_starts)
        return self._choose(observations, self.state, masks, explore=True)

    @torch.no_grad()
    def _choose(
        self, observations: NDArray[np.integer], state: ActingState, masks: NDArray[np.bool_] | None, explore: bool
    ) -> Choice:
        head = self.policy.q_net.head
        if not explore:
            legal = None if masks is None else to_device(masks, self.model.device)
            best = head.greedy(state.features, legal) if state.values is None else legal_argmax(state.values, legal)
            return Choice(best.cpu().numpy(), None)
        explorer = self.imitation.explorer
        contexts = context_keys(observations, state.lengths, self.model.explorer.context)
        if explorer.ensemble:
            q_values = head.ensemble(state.features)
        else:
            q_values = head(state.features) if state.values is None else state.values
        return Choice(self.model.explore(q_values.cpu().numpy(), masks, contexts, explorer), contexts)

    def get_acting_state(self) -> dict[str, Any] | None:  # noqa: D102
        if self.state is None:
            return None
        encoder, recent = self.state.encoder, self.state.encoder.recent
        return {
            "lengths": self.state.lengths,
            "features": self.state.features.cpu().clone(),
            "encoder_lengths": encoder.lengths.cpu().clone(),
            "encoder_tensors": tuple(tensor.cpu().clone() for tensor in encoder.tensors),
            "encoder_recent": None if recent is None else recent.cpu().clone(),
        }

    def set_acting_state(self, state: dict[str, Any] | None) -> None:  # noqa: D102
        self.state = None
        if state is None:
            return
        device, recent = self.model.device, state.get("encoder_recent")
        encoder = dataclasses.replace(
            self.policy.q_net.encoder.initial_state(len(state["lengths"])),
            lengths=torch.as_tensor(state["encoder_lengths"]).to(device),
            tensors=tuple(torch.as_tensor(tensor).to(device) for tensor in state["encoder_tensors"]),
            recent=None if recent is None else torch.as_tensor(recent).to(device),
        )
        self.state = ActingState(encoder, torch.as_tensor(state["features"]).to(device), state["lengths"])

    # ------------------------------------------------------------------ learning

    def store(  # noqa: D102
        self,
        replay_buffer: EpisodeReplayBuffer,
        new_obs: NDArray[np.integer],
        actions: NDArray[np.int64],
        rewards: NDArray[np.floating],
        dones: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        masks: NDArray[np.bool_] | None,
    ) -> None:
        model = self.model
        assert isinstance(model._last_obs, np.ndarray)
        if model._vec_normalize_env is not None:
            rewards = model._vec_normalize_env.get_original_reward()
        replay_buffer.add(model._last_obs, new_obs, actions, rewards, dones, infos, action_masks=masks)
        model._last_obs = new_obs

    def sample(self, batch_size: int, beta: float) -> EpisodeBatch:  # noqa: D102
        if self.model.rehearsal is not None:
            batch_size = self.model.rehearsal.online_rows(batch_size)
        options = {"imitated_share": SHARE} if self.imitation.active else {}
        return self.replay.sample(batch_size, env=self.model._vec_normalize_env, beta=beta, **options)

    def loss(self, batch: EpisodeBatch) -> Loss:  # noqa: D102
        self.imitation.regularise()
        q_net, target_net = self.policy.q_net, self.policy.q_net_target
        if self.model.tau == 1.0 and self.model.target_update_interval <= 1:
            target_net = q_net  # the same weights, whose features are there already
        loss, td_errors, q_t = sequence_loss(
            q_net,
            target_net,
            batch,
            gamma=self.model.gamma,
            n_steps=self.model.n_steps,
            double_q=self.model.double_q,
            lower_bound=self.model.lower_bound,
            q_lambda=self.model.current_q_lambda,
            watkins=self.model.watkins,
        )
        rehearsal = self.model.rehearsal
        if rehearsal is not None:
            networks = self.policy.q_net, self.policy.q_net_target
            loss = rehearsal.mix(loss, len(batch.indices), *networks, self.model._vec_normalize_env)
        n_valid, q_values, padding = batch.valid.sum(), q_t.detach(), ~batch.valid
        return Loss(
            loss,
            td_errors.abs().sum() / n_valid,
            (q_values * batch.valid).sum() / n_valid,
            (q_values.masked_fill(padding, np.inf).amin(), q_values.masked_fill(padding, -np.inf).amax()),
            sequence_priorities(td_errors, batch.valid),
        )

    def on_update(self, env_steps: float) -> None:
        """Move the target network, at most once every ``target_update_interval`` environment steps."""
        model = self.model
        model._steps_since_target_update += env_steps
        if model._steps_since_target_update >= model.target_update_interval or env_steps == 0:
            model._steps_since_target_update = 0.0
            if self._parameters is None:
                # Walking through the modules for their parameters takes as long as some of the arithmetic.
                self._parameters = list(self.policy.q_net.parameters()), list(self.policy.q_net_target.parameters())
            online, target = self._parameters
            with torch.no_grad():
                torch._foreach_lerp_(target, online, model.tau)

    def on_learn(self, resets: bool) -> None:  # noqa: D102
        self.state = None
        if resets:
            self.replay.discard_unfinished()


def _return_range(model: LearningAgent) -> tuple[float, float] | None:
    """Between which bounds returns lie, 0 among them: it is what the end of an episode is worth. None if unknown."""
    env = model.env
    if env is None or model._vec_normalize_env is not None or not env.has_attr("task"):
        return None
    low, high = getattr(env.get_attr("task")[0], "reward_range", (-np.inf, np.inf))
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    return (low, high) if np.isfinite([low, high]).all() and low < high else None
