"""DoubleDQN: Stable-Baselines3's DQN, made for text."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule, TrainFreq
from stable_baselines3.common.utils import polyak_update, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from agents.double_dqn.losses import sequence_loss
from agents.double_dqn.policies import ActingState, PerformerPolicy, SequencePolicy
from agents.exploration import Exploration, context_keys, make_exploration
from agents.replay.episodes import EpisodeBatch, EpisodeReplayBuffer, sequence_priorities
from agents.vec_env import action_masks, make_vec_env
from textgym import TokenSequence, env_ids

SelfDoubleDQN = TypeVar("SelfDoubleDQN", bound="DoubleDQN")

DEFAULT_N_ENVS = 32
# For returns in [0, 1] that are paid token by token; a larger one drowns differences of 0.1 between tokens.
DEFAULT_UCB_COEFFICIENT = 0.02


class DoubleDQN(DQN):
    """Deep Q-learning for token sequences, with the enhancements that pay, each a flag.

    The observation of a text environment only grows, so with a causal encoder one pass over a finished episode gives
    the Q-values of *all* its states. Replay therefore holds whole episodes as token rows, one update of ``B`` episodes
    of ``T`` tokens makes ``B × T`` temporal-difference updates, and acting carries a recurrent state that makes the
    next token cost the same at position 10 and at position 10,000.

    What it adds to SB3's ``DQN``: Double Q-learning (arXiv:1509.06461), dueling heads (arXiv:1511.06581), prioritized
    replay (arXiv:1511.05952) of sequences (priorities as in R2D2), n-step targets, a return lower bound
    (arXiv:1611.01606), count-based UCB and Boltzmann exploration, action masks, a Performer (arXiv:2009.14794).

    What differs from ``DQN`` and from the papers, and why:

    * ``batch_size`` counts episodes, ``train_freq`` steps of the vector environment; ``buffer_size``,
      ``learning_starts`` and ``target_update_interval`` count environment steps.
    * By default the number of updates per environment step, ``updates_per_step``, does not depend on the number of
      parallel environments; give ``gradient_steps`` for SB3's rule.
    * The target network moves with the updates, by ``tau``, at most once every ``target_update_interval``
      environment steps, so that its pace does not depend on the number of parallel environments either.
    * ``predict(deterministic=False)`` chooses as during training, for each row on its own.
    * Its random choices come from generators of its own: global random states are left alone.

    :param policy: ``"PerformerPolicy"``, or a subclass of :class:`agents.double_dqn.policies.SequencePolicy`
    :param env: An id, a Gymnasium environment or a ``VecEnv`` with ``TokenSequence`` observations. An id of TextGym
        stands for 32 parallel rows of the native batched environment
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param buffer_size: Environment steps that replay holds
    :param learning_starts: Environment steps of random legal actions before the first update
    :param batch_size: Episodes in one update
    :param tau: Share of the network that the target network takes over at each of its updates, in (0, 1]
    :param gamma: Discount a token, in [0, 1]
    :param train_freq: Steps of the vector environment between two calls of ``train``
    :param gradient_steps: Updates in one call of ``train`` (-1: as many as environment steps since the last); None
        leaves it to ``updates_per_step``
    :param updates_per_step: Updates for each environment step, whatever the number of parallel environments
    :param replay_buffer_class: :class:`agents.replay.EpisodeReplayBuffer` or a subclass
    :param replay_buffer_kwargs: Further arguments of the replay buffer
    :param n_steps: Rewards in a target before it bootstraps
    :param double_q: Whether the online network picks the action that the target network rates
    :param dueling: Whether the head splits state values from advantages
    :param prioritized_replay: Whether episodes with large errors are replayed more often
    :param priority_alpha: How much more often: 0 is uniform, 1 proportional to the priority
    :param priority_beta: Initial strength of the importance weights that correct for it; it grows to 1
    :param lower_bound: Whether the discounted return that replay saw bounds the target from below. Only for
        environments whose rewards the observation determines
    :param exploration: ``"ucb"``, ``"epsilon"``, ``"boltzmann"``, or an :class:`agents.exploration.Exploration`
    :param exploration_kwargs: Arguments of the named explorer that differ from its defaults
    :param exploration_fraction: Share of the training over which random exploration falls
    :param exploration_initial_eps: Probability of a random token at the start
    :param exploration_final_eps: Probability of a random token after that
    :param target_update_interval: Least number of environment steps between two updates of the target network
    :param max_grad_norm: Largest norm of a gradient; larger ones are scaled down
    :param stats_window_size: Episodes over which the logged return is averaged
    :param tensorboard_log: Folder for TensorBoard; None for none
    :param policy_kwargs: Arguments of the policy: ``features_dim``, ``n_layers``, ``n_heads`` …
    :param verbose: 0 prints nothing, 1 the training log, 2 more
    :param seed: Seed of everything random; the same seed repeats a run bit for bit
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"`` …
    :param _init_setup_model: Whether to build the networks at once
    :raises ValueError: if an argument is out of range or the environment has no token observations

    Example:
        >>> from agents import DoubleDQN
        >>> model = DoubleDQN("PerformerPolicy", "TextGen/Reverse-v0", seed=0).learn(1_000)
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"PerformerPolicy": PerformerPolicy}
    policy: SequencePolicy
    replay_buffer: EpisodeReplayBuffer

    def __init__(
        self,
        policy: str | type[SequencePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 100_000,
        learning_starts: int = 1_000,
        batch_size: int = 64,
        tau: float = 0.01,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int | None = None,
        updates_per_step: float = 0.04,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        n_steps: int = 1,
        double_q: bool = True,
        dueling: bool = True,
        prioritized_replay: bool = True,
        priority_alpha: float = 0.6,
        priority_beta: float = 0.4,
        lower_bound: bool = False,
        exploration: str | Exploration = "ucb",
        exploration_kwargs: dict[str, Any] | None = None,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        target_update_interval: int = 1,
        max_grad_norm: float = 10.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(env, str) and env.removeprefix("textgym:") in env_ids():
            env = make_vec_env(env, n_envs=DEFAULT_N_ENVS, seed=seed)
        self.double_q = double_q
        self.dueling = dueling
        self.prioritized_replay = prioritized_replay
        self.priority_alpha = priority_alpha
        self.priority_beta = priority_beta
        self.lower_bound = lower_bound
        self.exploration = exploration
        self.exploration_kwargs = exploration_kwargs or {}
        self.updates_per_step = updates_per_step
        self._updates_due = 0.0
        self._env_steps_collected = 0
        self._steps_since_target_update = 0.0
        self._generator: np.random.Generator | None = None
        self._acting_state: ActingState | None = None
        _check_arguments(
            learning_starts=(learning_starts, 0, np.inf),
            batch_size=(batch_size, 1, np.inf),
            buffer_size=(buffer_size, 1, np.inf),
            tau=(tau, 1e-9, 1),
            gamma=(gamma, 0, 1),
            updates_per_step=(updates_per_step, 0, np.inf),
            n_steps=(n_steps, 1, np.inf),
            priority_alpha=(priority_alpha, 0, 1),
            priority_beta=(priority_beta, 0, 1),
            target_update_interval=(target_update_interval, 1, np.inf),
        )
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            # learn() then asks for as many updates as collect_rollouts() reports: see there.
            gradient_steps=-1 if gradient_steps is None else gradient_steps,
            replay_buffer_class=replay_buffer_class or EpisodeReplayBuffer,
            replay_buffer_kwargs=replay_buffer_kwargs,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        # Set after super().__init__, which would warn that n_steps needs SB3's own n-step buffer.
        self.n_steps = n_steps
        self.fixed_gradient_steps = gradient_steps is not None
        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        if not isinstance(self.observation_space, TokenSequence):
            raise ValueError(f"env must have TokenSequence observations, got {self.observation_space}")
        if self.lower_bound and self.env is not None and not _is_deterministic(self.env):
            raise ValueError("lower_bound=True needs rewards that the observation determines; this task hides a secret")
        generator, n_steps = self._generator, self.n_steps
        self.policy_kwargs = {**self.policy_kwargs, "dueling": self.dueling}
        buffer_kwargs = self.replay_buffer_kwargs
        self.replay_buffer_kwargs = {
            "prioritized": self.prioritized_replay,
            "alpha": self.priority_alpha,
            "beta": self.priority_beta,
            "seed": self.seed,
            **buffer_kwargs,
        }
        # The networks' initial weights come from torch's global generator: it is lent to them, and given back.
        self.n_steps = 1
        with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
            if self.seed is not None:
                torch.random.default_generator.manual_seed(self.seed)
            # Past DQN's own set-up, which would warn of a target_update_interval below the number of environments.
            super(DQN, self)._setup_model()
        self._create_aliases()
        self.n_steps = n_steps
        self.replay_buffer_kwargs = buffer_kwargs
        if self._generator is None:
            self._generator = np.random.default_rng()
        if generator is not None:  # a loaded model goes on where it stopped
            self._generator = generator
        if not isinstance(self.exploration, Exploration):
            self.exploration = self._make_exploration(self.exploration)

    def _make_exploration(self, name: str) -> Exploration:
        schedule = {
            "initial_epsilon": self.exploration_initial_eps,
            "final_epsilon": self.exploration_final_eps,
            "fraction": self.exploration_fraction,
        }
        defaults: dict[str, dict[str, Any]] = {
            "epsilon": {key.removesuffix("_epsilon"): value for key, value in schedule.items()},
            "ucb": {"coefficient": DEFAULT_UCB_COEFFICIENT, **schedule},
            "boltzmann": {},
        }
        return make_exploration(name, **{**defaults.get(name, {}), **self.exploration_kwargs})

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the agent's own generators, the action space and the environment; global states are left alone."""
        if seed is None:
            return
        self._generator = np.random.default_rng(seed)
        self.action_space.seed(seed)
        if self.env is not None:
            self.env.seed(seed)

    # ------------------------------------------------------------------ acting

    def predict(  # type: ignore[override]
        self,
        observation: NDArray[np.integer],
        state: ActingState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], ActingState]:
        """Choose the next token.

        :param observation: Right-padded token ids, shape ``(L,)`` or ``(B, L)``
        :param state: What the last call returned; only the tokens since then are read. None reads the whole text
        :param episode_start: Rows that began a new text since the last call, shape ``(B,)``
        :param deterministic: The best token; otherwise one chosen as during training
        :param action_masks: Legal tokens, shape ``(V,)`` or ``(B, V)``; None allows all
        :return: tokens, shape ``()`` or ``(B,)``, and the state for the next call
        """
        observation = np.asarray(observation)
        vectorized = self.policy.is_vectorized_observation(observation)
        rows = observation.reshape(-1, observation.shape[-1])
        self.policy.set_training_mode(False)
        state = self.policy.q_net.advance(rows, state, episode_start)
        if action_masks is not None:
            action_masks = np.asarray(action_masks, bool).reshape(len(rows), -1)
        actions = self._choose(rows, state, action_masks, explore=not deterministic)[0]
        return (actions if vectorized else actions.squeeze(0)), state

    @torch.no_grad()
    def _choose(
        self,
        observations: NDArray[np.integer],
        state: ActingState,
        masks: NDArray[np.bool_] | None,
        explore: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64] | None]:
        """Actions, and the contexts in which they were chosen (None where greedy)."""
        head = self.policy.q_net.head
        if not explore:
            legal = None if masks is None else torch.as_tensor(masks, device=self.device)
            return head.greedy(state.features, legal).cpu().numpy(), None
        assert isinstance(self.exploration, Exploration) and self._generator is not None
        contexts = context_keys(observations, state.lengths, self.exploration.context)
        progress = 1.0 - self._current_progress_remaining
        q_values = head(state.features).cpu().numpy()
        return self.exploration.select(q_values, masks, contexts, self._generator, progress), contexts

    def _random_actions(self, n_envs: int, masks: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        assert self._generator is not None
        if masks is None:
            return self._generator.integers(int(self.action_space.n), size=n_envs)  # type: ignore[attr-defined]
        return np.where(masks, self._generator.random(masks.shape), -1.0).argmax(axis=1)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Write tokens in all environments and put finished episodes into replay; see SB3's method of that name.

        With ``updates_per_step``, the first number returned is that of the updates that are due, because ``learn``
        makes as many where ``gradient_steps`` is -1.
        """
        assert isinstance(replay_buffer, EpisodeReplayBuffer) and isinstance(self.exploration, Exploration)
        self.policy.set_training_mode(False)
        n_steps, n_episodes = 0, 0
        callback.on_rollout_start()
        while should_collect_more_steps(train_freq, n_steps, n_episodes):
            observations = self._last_obs
            assert isinstance(observations, np.ndarray)
            masks = action_masks(env)
            if self.num_timesteps < learning_starts:
                actions, contexts = self._random_actions(env.num_envs, masks), None
            else:
                self._acting_state = self.policy.q_net.advance(
                    observations, self._acting_state, self._last_episode_starts
                )
                actions, contexts = self._choose(observations, self._acting_state, masks, explore=True)
            new_obs, rewards, dones, infos = env.step(actions)
            assert isinstance(new_obs, np.ndarray)
            self.num_timesteps += env.num_envs
            n_steps += 1

            callback.update_locals(locals())
            if not callback.on_step():
                return RolloutReturn(n_steps * env.num_envs, n_episodes, continue_training=False)

            self._update_info_buffer(infos, dones)
            if contexts is not None:
                self.exploration.observe(contexts, actions)
            replay_buffer.add(observations, new_obs, actions, rewards, dones, infos, action_masks=masks)
            self._last_obs, self._last_episode_starts = new_obs, dones
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            for _ in range(int(dones.sum())):
                n_episodes += 1
                self._episode_num += 1
                if log_interval is not None and self._episode_num % log_interval == 0:
                    self.dump_logs()
        callback.on_rollout_end()
        self._env_steps_collected = n_steps * env.num_envs
        if self.fixed_gradient_steps or self.num_timesteps <= learning_starts:
            return RolloutReturn(n_steps * env.num_envs, n_episodes, continue_training=True)
        self._updates_due += n_steps * env.num_envs * self.updates_per_step
        updates = int(self._updates_due) if replay_buffer.n_episodes else 0
        self._updates_due -= updates
        return RolloutReturn(updates, n_episodes, continue_training=True)

    # ------------------------------------------------------------------ learning

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the network ``gradient_steps`` times, each with ``batch_size`` replayed episodes."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        beta = self.priority_beta + (1.0 - self.priority_beta) * (1.0 - self._current_progress_remaining)
        # Environment steps for which one update stands; 0 before the first rollout.
        steps_per_update = self._env_steps_collected / max(gradient_steps, 1)
        # Walking through the modules for their parameters takes as long as some of the arithmetic: once is enough.
        parameters = list(self.policy.q_net.parameters())
        target_parameters = list(self.policy.q_net_target.parameters())
        losses, errors, values = [], [], []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, beta=beta)
            loss, td_errors, q_t = self._loss(batch)
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            self.policy.optimizer.step()
            if self.prioritized_replay:
                priorities = sequence_priorities(td_errors, batch.valid)
                self.replay_buffer.update_priorities(batch.indices, priorities)
            self._steps_since_target_update += steps_per_update
            if self._steps_since_target_update >= self.target_update_interval or steps_per_update == 0:
                self._steps_since_target_update = 0.0
                polyak_update(parameters, target_parameters, self.tau)
            valid = batch.valid
            losses.append(loss.detach())
            errors.append(td_errors.abs().sum() / valid.sum())
            values.append((q_t.detach() * valid).sum() / valid.sum())
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, figures in (("loss", losses), ("td_error", errors), ("q_mean", values)):
            if figures:
                self.logger.record(f"train/{name}", float(torch.stack(figures).mean()))

    def _loss(self, batch: EpisodeBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return sequence_loss(
            self.policy.q_net,
            self.policy.q_net_target,
            batch,
            gamma=self.gamma,
            n_steps=self.n_steps,
            double_q=self.double_q,
            lower_bound=self.lower_bound,
        )

    def learn(
        self: SelfDoubleDQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "DoubleDQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDoubleDQN:
        """Train for ``total_timesteps`` environment steps; ``log_interval`` counts episodes. See SB3's ``learn``."""
        self._acting_state = None
        if reset_num_timesteps or self._last_obs is None:  # the environments are about to be reset
            self.replay_buffer.discard_unfinished()
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_acting_state"]


def _check_arguments(**ranges: tuple[float, float, float]) -> None:
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            accepted = f"at least {low}" if high == np.inf else f"in [{low}, {high}]"
            raise ValueError(f"{name} must be {accepted}, got {value}")


def _is_deterministic(env: VecEnv) -> bool:
    return not env.has_attr("task") or all(task.deterministic for task in env.get_attr("task"))
