"""DoubleDQN: Stable-Baselines3's DQN, made for text, and for any other environment with discrete actions."""

from __future__ import annotations

import io
import pathlib
import warnings
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule, TrainFreq
from stable_baselines3.common.utils import LinearSchedule, get_parameters_by_name
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import DQNPolicy

from agents.double_dqn.arguments import check_arguments, check_policy
from agents.double_dqn.base import LearningAgent
from agents.double_dqn.defaults import Q_LAMBDA, with_defaults
from agents.double_dqn.encoder_policy import EncoderPolicy
from agents.double_dqn.heads import checked_value_range
from agents.double_dqn.health import UpdateWatch
from agents.double_dqn.language_models.path import LanguageModelPath
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.steering import steering
from agents.double_dqn.paths import LearningPath
from agents.double_dqn.policies import (
    GRUPolicy,
    PerformerPolicy,
    SequencePolicy,
    TransformerPolicy,
    with_encoder_defaults,
)
from agents.double_dqn.sequences import SequencePath
from agents.double_dqn.transition_policies import CnnPolicy, MlpPolicy, MultiInputPolicy, TransitionPolicy
from agents.double_dqn.transitions import TransitionPath
from agents.exploration import EpsilonGreedy, Exploration, make_exploration
from agents.replay import EpisodeReplayBuffer, PrioritizedReplayBuffer
from agents.replay.transfer import Arriving
from agents.vec_env import action_masks, is_shown, make_vec_env, masks_shown_with
from textgym import env_ids
from textgym.checks import check_range
from textgym.rewards import RewardFunction

SelfDoubleDQN = TypeVar("SelfDoubleDQN", bound="DoubleDQN")


class DoubleDQN(LearningAgent):
    """Deep Q-learning with the enhancements that pay, each a flag, on token sequences and on anything else.

    There are three paths, and the policy decides between them.

    *Sequences*, ``"PerformerPolicy"``: the observation of a text environment only grows, so with a causal encoder one
    pass over a finished episode gives the Q-values of *all* its states. Replay therefore holds whole episodes as token
    rows, one update of ``B`` episodes of ``T`` tokens makes ``B × T`` temporal-difference updates, and acting carries a
    recurrent state that makes the next token cost the same at position 10 and at position 10,000.

    *Transitions*, ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``: any environment with ``Discrete`` actions,
    with the networks, the schedule of updates and the defaults of SB3's ``DQN``. With ``double_q``, ``dueling`` and
    ``prioritized_replay`` off, ``exploration="epsilon"`` and ``n_steps=1``, its updates are those of ``DQN`` to the
    bit, given the same replay, draws and weights.

    ``"EncoderPolicy"`` puts a pretrained encoder of texts in front.

    *A language model*, ``"LanguageModelPolicy"``: it stays as it is and reads each token once; a head on its hidden
    states, and low-rank adapters if wanted, learn what its likeliest tokens are worth:
    :class:`agents.double_dqn.language_models.LanguageModelPolicy`.

    What it adds to SB3's ``DQN``: Double Q-learning (arXiv:1509.06461), dueling heads (arXiv:1511.06581), prioritized
    replay (arXiv:1511.05952; of sequences with priorities as in R2D2), n-step targets, a return lower bound
    (arXiv:1611.01606), Boltzmann exploration and UCB by counts or by the disagreement of several heads, action masks,
    a Performer (arXiv:2009.14794).

    What differs from ``DQN`` and from the papers, and why:

    * On sequences ``batch_size`` counts episodes. The target network moves with the updates, by ``tau``, at most once
      every ``target_update_interval`` environment steps, so that its pace does not depend on the number of parallel
      environments; neither does the number of updates per environment step, ``updates_per_step``. Give
      ``gradient_steps`` for SB3's rule, which is the default on transitions.
    * ``predict(deterministic=False)`` chooses as during training, for each row on its own, where ``DQN`` flips one coin
      for the whole batch. ε-greedy on transitions goes by ``exploration_rate``, as there.
    * Illegal actions are never chosen, not even at random, where the environment says which they are
      (``action_masks()``), and never rated in the next state (``info["action_mask"]``).
    * Its random choices come from generators of its own: global random states are left alone.

    :param policy: ``"PerformerPolicy"``, ``"TransformerPolicy"`` or ``"GRUPolicy"`` for sequences, ``"MlpPolicy"``,
        ``"CnnPolicy"``, ``"MultiInputPolicy"`` or ``"EncoderPolicy"`` for transitions, ``"LanguageModelPolicy"``, or
        a subclass of
        :class:`agents.double_dqn.policies.SequencePolicy` or of SB3's ``DQNPolicy``
    :param env: An id, a Gymnasium environment or a ``VecEnv``; for sequences, one with ``TokenSequence`` observations.
        An id of TextGym stands for the native batched environment, with 64 parallel rows for sequences and 1 otherwise
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0). None: 2e-3 on sequences,
        1e-4 on transitions
    :param buffer_size: Environment steps that replay holds. None: 100,000; 1,000,000 on transitions
    :param learning_starts: Environment steps of random legal actions before the first update. None: 1,000; 100 on
        transitions
    :param batch_size: Episodes, or transitions, in one update. None: 16 to 64 episodes, about 1,024 tokens, or 32
        transitions
    :param tau: Share of the network that the target network takes over at each of its updates, in [0, 1]; on sequences,
        1 learns without one (as arXiv:2407.04811), which saves a pass of the encoder. None: 0.01; 1 on transitions
    :param gamma: Discount a step, in [0, 1]
    :param train_freq: Steps of the vector environment between two calls of ``train``, or a pair such as
        ``(1, "episode")``. None: 1; 4 on transitions
    :param gradient_steps: Updates in one call of ``train`` (-1: as many as environment steps since the last). None
        leaves it to ``updates_per_step``; without that, it is 1
    :param replay_buffer_class: Another replay buffer: a subclass of :class:`agents.replay.EpisodeReplayBuffer` or
        :class:`agents.replay.PrioritizedReplayBuffer`, or, on transitions, any of SB3's
    :param replay_buffer_kwargs: Further arguments of the replay buffer
    :param optimize_memory_usage: Transitions only: store each observation once. As in ``DQN``, it needs
        ``replay_buffer_kwargs={"handle_timeout_termination": False}``
    :param n_steps: Rewards in a target before it bootstraps
    :param target_update_interval: Environment steps between two updates of the target network; on sequences, the least
        number of them. None: 1; 10,000 on transitions
    :param exploration_fraction: Share of the training over which random exploration falls
    :param exploration_initial_eps: Probability of a random action at the start
    :param exploration_final_eps: Probability of a random action after that. None: 0.02; 0.05 on transitions
    :param max_grad_norm: Largest norm of a gradient; larger ones are scaled down
    :param stats_window_size: Episodes over which the logged return is averaged
    :param tensorboard_log: Folder for TensorBoard; None for none
    :param policy_kwargs: Arguments of the policy: ``features_dim``, ``n_heads``, ``n_layers`` (1 unless given),
        ``n_gram`` (2 unless given) … for sequences, ``net_arch`` … for transitions
    :param verbose: 0 prints nothing, 1 the training log, 2 more; True is 1
    :param seed: Seed of everything random; the same seed repeats a run bit for bit
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"`` …
    :param _init_setup_model: Whether to build the networks at once
    :param updates_per_step: Updates for each environment step, whatever the number of parallel environments;
        ``gradient_steps``, where given, decides instead. None: 0.02 on sequences
    :param double_q: Whether the online network picks the action that the target network rates
    :param dueling: Whether the head splits state values from advantages. None: yes, unless ``policy`` is a class that
        can't, such as SB3's ``DQNPolicy``
    :param prioritized_replay: Whether episodes, or transitions, with large errors are replayed more often. None: yes,
        unless ``replay_buffer_class`` is one of SB3's that can't, such as ``HerReplayBuffer``
    :param priority_alpha: How much more often: 0 is uniform, 1 proportional to the priority
    :param priority_beta: Initial strength of the importance weights that correct for it. None: 0; 0.4 on transitions
    :param priority_beta_final: Their strength in the end; with 0 for both there are none (as in R2D2). None: 0; 1 on
        transitions
    :param lower_bound: Sequences only: whether the discounted return that replay saw bounds the target from below. Only
        for environments whose rewards the observation determines
    :param keep_best: Sequences only: whether replay never drops the best episode of a prompt, in up to a quarter of
        ``buffer_size``: where rewards are rare, a success that was forgotten may not come again. None: yes
    :param best_share: Sequences only: share of each batch, in [0, 0.9], that is drawn from these episodes whatever
        their priorities (self-imitation, arXiv:1806.05635); needs ``keep_best``
    :param self_imitation: Sequences only: whether the best episodes are imitated where success is all or nothing, and
        rare: see :class:`agents.double_dqn.self_imitation.SelfImitation`. Nothing changes elsewhere, nor without
        ``keep_best`` and ``loss="cross_entropy"``. None: yes
    :param q_lambda: Sequences only: λ of Peng's Q(λ), in [0, 1], which mixes the targets of all numbers of steps up to
        the end of the episode: 0 is one step, 1 the return; or a function of the remaining progress (from 1 to 0), as
        for ``learning_rate``. None: from 0.9 to 0, unless ``n_steps`` or ``lower_bound`` carries rewards over
        several tokens
    :param watkins: Whether Q(λ) stops before the first action that was not greedy (Watkins's)
    :param exploration: ``"ucb"`` (counts of last tokens, or of hashes of other observations), ``"ensemble_ucb"`` (with
        ``policy_kwargs={"n_ensemble": 5}`` heads unless told otherwise), ``"epsilon"``, ``"boltzmann"``, or an
        :class:`agents.exploration.Exploration`. None: ``"ucb"``; ``"epsilon"`` on transitions
    :param exploration_kwargs: Arguments of the named explorer that differ from its defaults
    :param loss: ``"huber"``, of the difference between value and target; on sequences also ``"cross_entropy"``, for
        returns between known bounds: the head's values are Q = low + (high − low)·σ(z), and the loss is the binary
        cross-entropy of the target's place between the bounds (two bins of arXiv:2403.03950). Targets beyond the bounds
        count as the bound. None: ``"cross_entropy"`` where the bounds are given or known, else ``"huber"``
    :param value_range: The bounds, ``(low, high)``, in units of the reward. None: those of an episode's return that the
        environment's task states, with 0
    :raises ValueError: if an argument is out of range, or does not fit the policy or the observations

    Example:
        >>> from agents import DoubleDQN
        >>> model = DoubleDQN("PerformerPolicy", "TextGen/Reverse-v0", seed=0).learn(1_000)
        >>> model = DoubleDQN("MlpPolicy", "CartPole-v1", seed=0).learn(200)
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "PerformerPolicy": PerformerPolicy,
        "TransformerPolicy": TransformerPolicy,
        "GRUPolicy": GRUPolicy,
        "LanguageModelPolicy": LanguageModelPolicy,
        "EncoderPolicy": EncoderPolicy,
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    def __init__(
        self,
        policy: str | type[DQNPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule | None = None,
        buffer_size: int | None = None,
        learning_starts: int | None = None,
        batch_size: int | None = None,
        tau: float | None = None,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] | None = None,
        gradient_steps: int | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int | None = None,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float | None = None,
        max_grad_norm: float = 10.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        updates_per_step: float | None = None,
        double_q: bool = True,
        dueling: bool | None = None,
        prioritized_replay: bool | None = None,
        priority_alpha: float = 0.6,
        priority_beta: float | None = None,
        lower_bound: bool = False,
        q_lambda: float | Schedule | None = None,
        watkins: bool = False,
        exploration: str | Exploration | None = None,
        exploration_kwargs: dict[str, Any] | None = None,
        keep_best: bool | None = None,
        best_share: float = 0.0,
        self_imitation: bool | None = None,
        priority_beta_final: float | None = None,
        loss: str | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        check_arguments(locals())
        seed = None if seed is None else int(seed)  # torch takes no integer of NumPy's
        check_policy(policy, self.policy_aliases)
        policy_class = self.policy_aliases[policy] if isinstance(policy, str) else policy
        if env is None and _init_setup_model:
            raise ValueError("env must be an environment or an id, got None; None needs _init_setup_model=False")
        self._path: LearningPath = _path_class(policy_class)(self)
        chosen = with_defaults(
            self._path.name,
            {
                "learning_rate": learning_rate,
                "buffer_size": buffer_size,
                "learning_starts": None if learning_starts is None else int(learning_starts),
                "batch_size": batch_size,
                "tau": tau,
                "train_freq": train_freq,
                "updates_per_step": updates_per_step,
                "dueling": dueling,
                "prioritized_replay": prioritized_replay,
                "exploration": exploration,
                "exploration_final_eps": exploration_final_eps,
                "target_update_interval": None if target_update_interval is None else int(target_update_interval),
                "keep_best": keep_best,
                "self_imitation": self_imitation,
                "priority_beta": priority_beta,
                "priority_beta_final": priority_beta_final,
                "loss": loss,
            },
            from_file=not _init_setup_model,
        )
        self.updates_per_step = chosen.pop("updates_per_step")
        self.exploration = chosen.pop("exploration")
        self.dueling = chosen.pop("dueling")
        self.prioritized_replay = chosen.pop("prioritized_replay")
        self.keep_best, self.best_share = chosen.pop("keep_best"), best_share
        self.self_imitation = chosen.pop("self_imitation")
        self.priority_beta = chosen.pop("priority_beta")
        self.priority_beta_final = chosen.pop("priority_beta_final")
        self.loss = chosen.pop("loss")
        self.value_range = None if value_range is None else checked_value_range(value_range)
        if gradient_steps is None and self.updates_per_step is None:
            gradient_steps = 1
        if isinstance(env, str) and env.removeprefix("textgym:") in env_ids():
            env = make_vec_env(env, n_envs=self._path.default_n_envs, seed=seed)
        self.double_q = double_q
        self.priority_alpha = priority_alpha
        self.lower_bound = lower_bound
        if _init_setup_model and self._path.name == "sequences":  # a file names its own
            if q_lambda is None and n_steps == 1 and not lower_bound:
                q_lambda = LinearSchedule(*Q_LAMBDA, 1.0)
            policy_kwargs = with_encoder_defaults(policy_class, policy_kwargs)
        self.q_lambda, self.watkins = q_lambda, watkins
        if q_lambda is not None and n_steps > 1:
            raise ValueError(f"n_steps must be 1 with q_lambda, which takes its place, got {n_steps}")
        if watkins and q_lambda is None:
            raise ValueError("watkins=True needs q_lambda, got None")
        self.exploration_kwargs = exploration_kwargs or {}
        self._updates_due = 0.0
        self._env_steps_collected = 0
        self._steps_since_target_update = 0.0
        self._generator = None
        self._env_has_masks = False
        self._masks = None
        self._contexts: NDArray[np.uint64] | None = None
        self.rehearsal = None
        self.actors = self.learners = None
        self._largest_reward = 0.0
        self._diverged = False
        self.last_checkpoint = None
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            gamma=gamma,
            # learn() then asks for as many updates as collect_rollouts() reports: see there.
            gradient_steps=-1 if gradient_steps is None else gradient_steps,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            exploration_fraction=exploration_fraction,
            exploration_initial_eps=exploration_initial_eps,
            max_grad_norm=max_grad_norm,
            stats_window_size=int(stats_window_size),
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
            **chosen,
        )
        self.fixed_gradient_steps = gradient_steps is not None
        if _init_setup_model:
            self._setup_model()

    # ------------------------------------------------------------------ set-up

    def _setup_model(self) -> None:
        self._path = type(self._path)(self)
        if self.dueling is None:
            self.dueling = issubclass(self.policy_class, (TransitionPolicy, SequencePolicy))
        if self.prioritized_replay is None:
            ours = (PrioritizedReplayBuffer, EpisodeReplayBuffer)
            self.prioritized_replay = self.replay_buffer_class is None or issubclass(self.replay_buffer_class, ours)
        self._path.check()
        generator, self._generator = self._generator, np.random.default_rng()
        given = self.policy_kwargs, self.replay_buffer_kwargs, self.n_steps
        self.replay_buffer_class, buffer_arguments = self._path.buffer()
        self.replay_buffer_kwargs = {**buffer_arguments, **self.replay_buffer_kwargs}
        self.policy_kwargs = {**self._path.policy_arguments(), **self.policy_kwargs}
        self.n_steps = 1  # SB3 would warn that it needs SB3's own n-step buffer
        # The networks' initial weights come from torch's global generator: it is lent to them, and given back.
        with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
            if self.seed is not None:
                torch.random.default_generator.manual_seed(self.seed)
            if isinstance(self._path, TransitionPath):
                super()._setup_model()
            else:  # past DQN's own, which would warn of a target_update_interval below the number of environments
                super(DQN, self)._setup_model()
        self.policy_kwargs, self.replay_buffer_kwargs, self.n_steps = given
        self.policy_kwargs = self._path.kept_policy_arguments(self.policy_kwargs)
        self._create_aliases()
        self.batch_norm_stats = get_parameters_by_name(self.q_net, ["running_"])
        self.batch_norm_stats_target = get_parameters_by_name(self.q_net_target, ["running_"])
        if generator is not None:  # a loaded model goes on where it stopped
            self._generator = generator
        if not isinstance(self.exploration, Exploration):
            self.exploration = self._make_exploration(self.exploration)
        self._set_exploration_schedule()

    def _set_exploration_schedule(self) -> None:
        """What ``exploration_rate`` follows: the explorer's own schedule, where it is ε-greedy."""
        schedule = self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        if isinstance(self.exploration, EpsilonGreedy):
            schedule = self.exploration.initial, self.exploration.final, self.exploration.fraction
        self.exploration_schedule = LinearSchedule(*schedule)

    def _make_exploration(self, name: str) -> Exploration:
        schedule = {
            "initial_epsilon": self.exploration_initial_eps,
            "final_epsilon": self.exploration_final_eps,
            "fraction": self.exploration_fraction,
        }
        schedules: dict[str, dict[str, Any]] = {
            "epsilon": {key.removesuffix("_epsilon"): value for key, value in schedule.items()},
            "ucb": schedule,
            "ensemble_ucb": schedule,
        }
        defaults = {**self._path.explorer_defaults.get(name, {}), **schedules.get(name, {})}
        return make_exploration(name, **{**defaults, **self.exploration_kwargs})

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the agent's own generators, the action space and the environment; global states are left alone."""
        if seed is None:
            return
        self._generator = np.random.default_rng(seed)
        self.action_space.seed(seed)
        if self.env is not None:
            self.env.seed(seed)

    # ------------------------------------------------------------------ acting

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        """Choose the next action.

        :param observation: One observation, or B of them; a dictionary of arrays where the space is ``Dict``
        :param state: Sequences: what the last call returned; only the tokens since then are read, and None reads the
            whole text. Transitions have no state
        :param episode_start: Rows that began a new episode since the last call, shape ``(B,)``
        :param deterministic: The best action; otherwise one chosen as during training
        :param action_masks: Legal actions, shape ``(V,)`` or ``(B, V)``. None: those of the
            :class:`agents.TextGenVecEnv` that gave these observations in its last step, so that SB3's
            ``evaluate_policy`` and ``EvalCallback`` respect them; elsewhere all, with a warning if the environment
            trained in has masks
        :return: actions, shape ``()`` or ``(B,)``, and the state for the next call
        """
        self.policy.set_training_mode(False)
        if action_masks is not None:
            action_masks = np.asarray(action_masks, bool)
            action_masks = action_masks.reshape(-1, action_masks.shape[-1])
        else:
            action_masks = self._masks_of(observation)
        actions, state = self._path.predict(observation, state, episode_start, action_masks, explore=not deterministic)
        return np.asarray(actions + self.first_action), state  # a sum without dimensions would be no array

    def action_values(self, observations: Any, action_masks: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Values of every action; -inf where it is illegal, or no candidate of a ``LanguageModelPolicy``.

        :param observations: n observations
        :param action_masks: Legal actions, shape ``(n, V)``; None where all are
        :return: shape ``(n, V)``
        """
        self.policy.set_training_mode(False)
        return self._path.values(observations, action_masks)

    def _masks_of(self, observation: Any) -> NDArray[np.bool_] | None:
        """Masks of the native environment that shows these observations now; a warning where there may be others."""
        masks = masks_shown_with(observation)
        if masks is None and self._env_has_masks and not is_shown(observation) and self._legal_actions() is not None:
            warnings.warn(
                "predict() got no action_masks, and the environment trained in has them: it may act illegally; "
                "give action_masks, or evaluate on a TextGenVecEnv (agents.make_vec_env), which tells them by itself",
                stacklevel=3,
            )
        return masks

    def _legal_actions(self) -> NDArray[np.bool_] | None:
        """Masks of the last observations, ``(n_envs, V)``; None where all is legal or there are no masks."""
        return action_masks(self.env) if self._env_has_masks and self.env is not None else None

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.num_timesteps >= learning_starts or self._path.acts_from_start:
            actions, self._contexts = self._path.act(self._masks)
            return actions + self.first_action, actions
        assert self._generator is not None
        self._contexts = None
        if self._masks is None:
            actions = self._generator.integers(int(self.action_space.n), size=n_envs)  # type: ignore[attr-defined]
        else:
            actions = np.where(self._masks, self._generator.random(self._masks.shape), -1.0).argmax(axis=1)
        return actions + self.first_action, actions

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: NDArray[Any],
        new_obs: Any,
        reward: NDArray[Any],
        dones: NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> None:
        if self._contexts is not None:
            self.explorer.observe(self._contexts, buffer_action)
        masks, self._masks = self._masks, self._legal_actions()
        self._path.store(replay_buffer, new_obs, buffer_action, reward, dones, infos, masks)
        self._last_episode_starts = dones

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """Never below 0, though the last rollout of many rows goes past the end: schedules are defined in [0, 1]."""
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _on_step(self) -> None:
        self._path.on_step()

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
        """Act in all environments and fill the replay buffer; see SB3's method of that name.

        With ``updates_per_step``, the first number returned is that of the updates that are due, because ``learn``
        makes as many where ``gradient_steps`` is -1.
        """
        before = self.num_timesteps
        if self.actors is not None:
            rollout = self.actors.collect(callback, train_freq, learning_starts, log_interval)
        else:
            rollout = super().collect_rollouts(
                env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
            )
        self._env_steps_collected = self.num_timesteps - before
        if not rollout.continue_training or self.fixed_gradient_steps or self.num_timesteps <= learning_starts:
            return rollout
        self._updates_due += self._env_steps_collected * self.updates_per_step
        updates = int(self._updates_due) if replay_buffer.size() else 0
        self._updates_due -= updates
        return rollout._replace(episode_timesteps=updates)

    # ------------------------------------------------------------------ learning

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the network ``gradient_steps`` times with ``batch_size`` replayed episodes, or transitions, each.

        Nothing happens as long as replay holds nothing: on sequences, until an episode has ended.

        :raises agents.double_dqn.health.NumericalError: if a loss or a gradient is NaN or infinite
        """
        if self.replay_buffer.size() == 0:
            return
        if self.learners is not None:
            batch_size = self.learners.begin(gradient_steps, batch_size)
            if batch_size == 0:
                return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        beta = self.priority_beta_final + (self.priority_beta - self.priority_beta_final) * (
            self._current_progress_remaining
        )
        # Environment steps for which one update stands; 0 before the first rollout.
        steps_per_update = self._env_steps_collected / max(gradient_steps, 1)
        # Walking through the modules for their parameters takes as long as some of the arithmetic: once is enough.
        parameters = list(self.q_net.parameters())
        watch = UpdateWatch(self)
        for _ in range(gradient_steps):
            batch = self._path.sample(batch_size, beta)
            result = self._path.loss(batch)
            arriving = Arriving(result.priorities)
            self.policy.optimizer.zero_grad()
            result.loss.backward()
            if self.learners is not None:
                self.learners.average_gradients(parameters, batch)
            gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            # The one wait of an update, for its forward pass: a GPU has the backward pass to do, and while it does that
            # the next batch, which these priorities decide on, is drawn and on its way.
            priorities = arriving.numpy().astype(np.float64)
            watch.check(batch, priorities)
            self.policy.optimizer.step()
            if self.prioritized_replay:
                self.replay_buffer.update_priorities(batch.indices, priorities)
            self._path.on_update(steps_per_update)
            watch.add(batch, result, gradient_norm)
        watch.log()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        resets = reset_num_timesteps or self._last_obs is None
        self._path.on_learn(resets)
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self.env is not None
        self._env_has_masks = self.env.has_attr("action_masks")
        self._masks = self._legal_actions()
        if self.actors is not None:
            self.actors.on_learn(resets)
        return result

    def learn(
        self: SelfDoubleDQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | Literal["auto"] | None = "auto",
        tb_log_name: str = "DoubleDQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDoubleDQN:
        """Train for ``total_timesteps`` environment steps. See SB3's ``learn``.

        :param log_interval: Episodes between two rows of the log; ``"auto"``: 100 on sequences, 4 on transitions; None
            writes none
        """
        if log_interval == "auto":
            log_interval = self._path.default_log_interval
        elif log_interval is not None:
            check_range("log_interval", log_interval, 1, np.inf)
        super().learn(
            total_timesteps,
            callback,
            log_interval,  # type: ignore[arg-type]
            tb_log_name,
            reset_num_timesteps,
            progress_bar,
        )
        if self.actors is not None:
            self.actors.on_learned()
        return self

    # ------------------------------------------------------------------ loading

    @classmethod
    def load(
        cls: type[SelfDoubleDQN],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        language_model: Any = None,
        **kwargs: Any,
    ) -> SelfDoubleDQN:
        """Load a model, this one's or SB3's ``DQN``'s. See SB3's ``load``.

        :param language_model: With a ``LanguageModelPolicy``: the model, or where it is now. None: where it was
        :param kwargs: Arguments of the constructor that take the place of the saved ones. A ``seed`` starts the random
            streams anew; without, they go on
        """
        check_arguments(kwargs)
        if kwargs.get("seed") is not None:
            kwargs["seed"] = int(kwargs["seed"])
        if language_model is not None:
            data, _, _ = load_from_zip_file(path, device=device, custom_objects=custom_objects)
            moved = {**((data or {}).get("policy_kwargs") or {}), "model": language_model}
            custom_objects = {**(custom_objects or {}), "policy_kwargs": moved}
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        model.set_random_seed(kwargs.get("seed"))
        explorer = model.explorer
        suffix = "" if isinstance(explorer, EpsilonGreedy) else "_epsilon"
        if hasattr(explorer, f"initial{suffix}"):  # it is built already, from the saved arguments
            names = {"initial_eps": f"initial{suffix}", "final_eps": f"final{suffix}", "fraction": "fraction"}
            for argument, attribute in names.items():
                if f"exploration_{argument}" in kwargs:
                    setattr(explorer, attribute, kwargs[f"exploration_{argument}"])
        model._set_exploration_schedule()
        return model

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """Load a replay buffer that ``save_replay_buffer`` wrote. See SB3's method of that name.

        :raises ValueError: if it is of a class that the model can't learn from; the model keeps its own then
        """
        kept = self.replay_buffer, self.replay_buffer_class
        super().load_replay_buffer(path, truncate_last_traj)
        try:
            self.replay_buffer_class = type(self.replay_buffer)
            self._path.buffer()
        except ValueError as error:
            self.replay_buffer = kept[0]
            raise ValueError(f"path must hold a replay buffer that fits the model, got {path!r}: {error}") from error
        finally:
            self.replay_buffer_class = kept[1]

    def steering(
        self, lm: Any, strength: float = 1.0, reward: RewardFunction | None = None
    ) -> AbstractContextManager[Any]:
        """With a ``LanguageModelPolicy``: see :func:`agents.double_dqn.language_models.steering`."""
        return steering(self, lm, strength, reward)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_path", "_masks", "_contexts", "actors", "learners"]


def _path_class(policy_class: type[BasePolicy]) -> type[LearningPath]:
    if issubclass(policy_class, LanguageModelPolicy):
        return LanguageModelPath
    return SequencePath if issubclass(policy_class, SequencePolicy) else TransitionPath
