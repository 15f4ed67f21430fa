"""The transition path of :class:`agents.DoubleDQN`: any observations, as Stable-Baselines3's ``DQN`` learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.dqn.policies import DQNPolicy

from agents.double_dqn.base import LearningAgent
from agents.double_dqn.encoder_policy import EncoderPolicy, texts_of
from agents.double_dqn.losses import ensemble_values, transition_loss
from agents.double_dqn.paths import Choice, LearningPath, Loss
from agents.double_dqn.transition_policies import TransitionPolicy
from agents.exploration import EpsilonGreedy, SimHash, context_keys
from agents.replay.prioritized import PrioritizedDictReplayBuffer, PrioritizedReplayBuffer, TransitionBatch
from textgym import TokenSequence
from textgym.spaces import sequence_lengths


class TransitionPath(LearningPath):
    """Learns single transitions; with every enhancement off, its updates are those of SB3's ``DQN`` to the bit."""

    name = "transitions"
    default_n_envs = 1
    default_log_interval = 4

    def __init__(self, model: LearningAgent) -> None:
        super().__init__(model)
        self._hash = SimHash()  # from a fixed seed: the counts of a saved model keep their meaning

    @property
    def policy(self) -> DQNPolicy:
        """The model's policy."""
        return self.model.policy

    def check(self) -> None:  # noqa: D102
        model = self.model
        for name, value in (
            ("lower_bound", model.lower_bound),
            ("q_lambda", model.q_lambda),
            ("keep_best", model.keep_best),
            ("best_share", model.best_share),
            ("self_imitation", model.self_imitation),
        ):
            if value:
                raise ValueError(f"{name}={value} needs whole episodes, got {model.policy_name}: use PerformerPolicy")
        if model.loss == "cross_entropy" or model.value_range is not None:
            raise ValueError(f'loss="cross_entropy" needs a policy for sequences, got {model.policy_name}')
        if model.dueling and not issubclass(model.policy_class, TransitionPolicy):
            raise ValueError(
                f"policy must be a TransitionPolicy for dueling=True, got {model.policy_class.__name__}; "
                "dueling=False takes any DQNPolicy"
            )
        if model.head_arguments()["n_ensemble"] > 1 and not issubclass(model.policy_class, TransitionPolicy):
            raise ValueError(
                f"policy must be a TransitionPolicy for exploration={model.exploration!r}, which needs several heads, "
                f"got {model.policy_class.__name__}"
            )

    def policy_arguments(self) -> dict[str, Any]:  # noqa: D102
        model = self.model
        arguments = model.head_arguments() if issubclass(model.policy_class, TransitionPolicy) else {}
        if issubclass(model.policy_class, EncoderPolicy) and model.env is not None and model.env.has_attr("task"):
            arguments |= texts_of(model.env.get_attr("task")[0])
        return arguments

    def kept_policy_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """With an encoder's path its fingerprint, and the texts of the tokens: files need no environment to read it."""
        policy = self.policy
        if not isinstance(policy, EncoderPolicy):
            return given
        names = ("encoder", "fingerprint", "token_texts", "separator")
        return {**given, **{name: getattr(policy, name) for name in names}}

    def buffer(self) -> tuple[type[ReplayBuffer], dict[str, Any]]:  # noqa: D102
        model = self.model
        is_dict = isinstance(model.observation_space, spaces.Dict)
        default = PrioritizedDictReplayBuffer if is_dict else PrioritizedReplayBuffer
        buffer_class = model.replay_buffer_class or default
        if issubclass(buffer_class, PrioritizedReplayBuffer):
            return buffer_class, model.priority_arguments() | {"n_steps": model.n_steps, "gamma": model.gamma}
        if model.prioritized_replay or model.n_steps > 1:
            raise ValueError(
                "replay_buffer_class must be a PrioritizedReplayBuffer for prioritized_replay=True and n_steps > 1, "
                f"got {buffer_class.__name__}"
            )
        return buffer_class, {}

    # ------------------------------------------------------------------ acting

    def predict(  # noqa: D102
        self,
        observation: Any,
        state: Any,
        episode_start: NDArray[np.bool_] | None,
        masks: NDArray[np.bool_] | None,
        explore: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        if isinstance(observation, tuple):
            raise ValueError("observation must be an array or a dictionary, got a tuple: reset returns (obs, info)")
        rows, vectorized = self.policy.obs_to_tensor(observation)
        actions = self._choose(rows, masks, explore).actions
        return (actions if vectorized else actions.squeeze(0)), state

    def act(self, masks: NDArray[np.bool_] | None) -> Choice:  # noqa: D102
        assert self.model._last_obs is not None
        rows, _ = self.policy.obs_to_tensor(self.model._last_obs)
        return self._choose(rows, masks, explore=True)

    @torch.no_grad()
    def _choose(self, rows: PyTorchObs, masks: NDArray[np.bool_] | None, explore: bool) -> Choice:
        explorer = self.model.explorer
        if explore and explorer.ensemble:
            q_values = ensemble_values(self.policy.q_net, rows).cpu().numpy()  # (B, K, V)
        else:
            q_values = self.policy.q_net(rows).cpu().numpy()  # (B, V)
        if not explore:
            legal = q_values if masks is None else np.where(masks, q_values, -np.inf)
            return Choice(legal.argmax(axis=1), None)
        if explorer.context == 0:  # it does not count
            contexts = np.zeros(len(q_values), np.uint64)
        else:
            contexts = self._contexts(rows, explorer.context)
        if type(explorer) is EpsilonGreedy:  # as in DQN, `exploration_rate` decides, whoever has set it
            rate = min(max(self.model.exploration_rate, 0.0), 1.0)
            explorer = EpsilonGreedy(rate, rate)
        return Choice(self.model.explore(q_values, masks, contexts, explorer), contexts)

    def _contexts(self, rows: PyTorchObs, n_tokens: int) -> NDArray[np.uint64]:
        """Keys of the contexts in which an explorer counts: last tokens of a text, directions of anything else."""
        space = self.model.observation_space
        if isinstance(rows, dict):
            return self._hash.keys({name: values.cpu().numpy() for name, values in rows.items()})
        observations = rows.cpu().numpy()
        if isinstance(space, TokenSequence):
            return context_keys(observations, sequence_lengths(observations, space.pad_id), n_tokens)
        return self._hash.keys(observations)

    # ------------------------------------------------------------------ learning

    def store(  # noqa: D102
        self,
        replay_buffer: ReplayBuffer,
        new_obs: Any,
        actions: NDArray[np.int64],
        rewards: NDArray[np.floating],
        dones: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        masks: NDArray[np.bool_] | None,
    ) -> None:
        next_masks = self.model._masks
        if next_masks is not None:
            # Replay reads masks from the infos. Where an episode has ended, `next_masks` is already that of the next.
            for row in np.flatnonzero(~np.asarray(dones, bool)):
                infos[row].setdefault("action_mask", next_masks[row])
        DQN._store_transition(self.model, replay_buffer, actions, new_obs, rewards, dones, infos)

    def sample(self, batch_size: int, beta: float) -> Any:  # noqa: D102
        buffer, env = self.model.replay_buffer, self.model._vec_normalize_env
        if isinstance(buffer, PrioritizedReplayBuffer):
            return buffer.sample(batch_size, env=env, beta=beta)
        if self.model.prioritized_replay:
            raise ValueError(
                f"replay_buffer must be a PrioritizedReplayBuffer for prioritized_replay=True, got {buffer!r}; "
                "prioritized_replay=False takes any"
            )
        if self.model.seed is None:
            return buffer.sample(batch_size, env=env)
        # SB3's buffers draw from NumPy's global generator: it is lent to them, and given back.
        assert self.model._generator is not None
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(self.model._generator.integers(2**32))  # noqa: NPY002
        try:
            return buffer.sample(batch_size, env=env)
        finally:
            np.random.set_state(state)  # noqa: NPY002

    def loss(self, batch: TransitionBatch) -> Loss:  # noqa: D102
        policy, model = self.policy, self.model
        loss, td_errors, q_t = transition_loss(
            policy.q_net, policy.q_net_target, batch, gamma=model.gamma, double_q=model.double_q
        )
        auxiliary_loss = getattr(policy.q_net.features_extractor, "auxiliary_loss", None)
        if (
            auxiliary_loss is not None
        ):  # what an extractor learns beside the values, such as to reconstruct (1910.01741)
            loss = loss + auxiliary_loss(preprocess_obs(batch.observations, policy.observation_space))
        errors, q_values = td_errors.abs(), q_t.detach()
        return Loss(loss, errors.mean(), q_values.mean(), (q_values.amin(), q_values.amax()), errors)

    def on_step(self) -> None:
        """Move the target network every ``target_update_interval`` environment steps, as ``DQN`` does."""
        model = self.model
        model._n_calls += 1
        if model._n_calls % max(model.target_update_interval // model.n_envs, 1) == 0:
            polyak_update(model.q_net.parameters(), model.q_net_target.parameters(), model.tau)
            polyak_update(model.batch_norm_stats, model.batch_norm_stats_target, 1.0)
        if isinstance(model.explorer, EpsilonGreedy):
            model.exploration_rate = model.exploration_schedule(model._current_progress_remaining)
            model.logger.record("rollout/exploration_rate", model.exploration_rate)

    def get_acting_state(self) -> dict[str, Any] | None:
        """Vectors that a frozen encoder has computed: in other batches they would be others in their last bits."""
        policy = self.policy
        return {"cache": policy.embedding.cache.get_state()} if isinstance(policy, EncoderPolicy) else None

    def set_acting_state(self, state: dict[str, Any] | None) -> None:  # noqa: D102
        policy = self.policy
        if state is not None and isinstance(policy, EncoderPolicy):
            policy.embedding.cache.set_state(state["cache"])

    def on_learn(self, resets: bool) -> None:  # noqa: D102
        if resets and isinstance(self.model.replay_buffer, PrioritizedReplayBuffer):
            self.model.replay_buffer.cut()
