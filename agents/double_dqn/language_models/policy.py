"""The policy whose trunk is a frozen language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy

from agents.double_dqn.heads import checked_value_range
from agents.double_dqn.language_models.head import CandidateQNetwork
from agents.double_dqn.language_models.lora import AdaptedLM, AdaptedReader, checked_lora
from agents.double_dqn.language_models.objectives import OBJECTIVES, SPANS
from agents.double_dqn.language_models.reader import Reader
from agents.pruning.language_model import load_language_model
from textgym.checks import check_at_least, check_positive, check_range
from textgym.language_models import HuggingFaceLM
from textgym.spaces import TokenSequence


class LanguageModelPolicy(DQNPolicy):
    """A frozen language model, which proposes the next tokens, and a head, which values them.

    It acts by π ∝ π₀·exp(Q/η) over the model's likeliest tokens, greedily where ``predict`` is deterministic.

    Args:
        observation_space: A :class:`textgym.TokenSequence` whose ids are those of the model's tokenizer.
        action_space: The tokens.
        lr_schedule: Learning rate as a function of the remaining progress.
        model: The language model: a :class:`textgym.language_models.HuggingFaceLM` or a local path to one.
        candidates: Tokens that are considered in a state (≥ 2): the model's likeliest.
        eta: η, the weight of the divergence from the model, in units of reward a nat (> 0).
        objective: ``"soft_q"``: KL-regularised Q(λ) with a target network; or ``"qsharp"``: the distribution of the
            model's own returns, learned where an episode went on by the model alone (arXiv:2502.20548), without a
            target network; or ``"ilql"``: a token's value is reward plus the next state's, and a state's an
            expectile of those of the tokens tried there, so that no other is asked for its value (arXiv:2206.11871);
            or ``"pcl"``: path consistency (arXiv:1702.08892), without a target network either.
        lambda_: λ of ``"soft_q"``, in [0, 1]: 0 bootstraps after a token, 1 at the end.
        expectile: Of ``"ilql"``, in (0, 1): ½ is the mean of what was tried, and near 1 the best of it.
        span: Over which stretch of a text ``"pcl"`` asks for consistency: ``"step"``, ``"prefix"`` or
            ``"trajectory"``: see :func:`agents.double_dqn.language_models.objectives.path_residuals`.
        n_bins: Bins of the distribution of returns (≥ 2) of ``"qsharp"``.
        guided: Share of the episodes that the guided policy begins, in [0, 1]; ``"qsharp"`` hands each over to the
            model after a random number of tokens.
        width: Width of the head (≥ 1).
        candidate_rewards: Whether the environment is asked in each state what every candidate would earn, so that a
            token's own reward is learned from all of them, not from the one that was drawn, and apart from what
            follows it; while it learns, the agent acts by what it was told. For rewards that are dense and cost little:
            k of them are computed for each token of training; at use none, unless the reward is given (see
            :func:`agents.double_dqn.language_models.steering.steering`). The environment must be a native one: see
            :meth:`textgym.TextGenVectorEnv.rewards_of`.
        value_range: Lowest and highest return to go: (0, 1), or (-1, 1) where tokens earn changes of the reward.
        fingerprint: That of the model on which the head was learned, which ``model`` must have (see
            :attr:`textgym.language_models.HuggingFaceLM.fingerprint`); files of the agent hold it. None for a new head.
        lora: Low-rank adapters beside the model's linear layers learn as well (LoRA, arXiv:2106.09685): a mapping with
            ``rank`` (≥ 1) and, if need be, ``alpha`` (> 0; 2·rank), ``target_modules`` (``"all-linear"``, or a list of
            names of layers) and ``learning_rate`` (1e-4; later in proportion to the agent's own, and the same where
            that begins at 0). The head then values the adapted model's hidden states; candidates and prior stay the
            plain one's, and so does the divergence. A token is read by both. An update reads its texts anew, with a
            gradient, and with a target network once more by the target's own adapters, which follow as its head does;
            what was read before it of texts under way is forgotten, so that a value is never that of older weights.
            It needs the package peft (extra ``lora``). None for a model that stays as it is.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments, without the learning rate; None for a weight decay of 0.1.

    Raises:
        ValueError: If an argument is out of range, the model's tokens are not the environment's, it is another one
            than the head was learned on, or, with ``lora``, reads fewer tokens than the environment's texts may have.
        ModuleNotFoundError: If ``lora`` needs a package that is missing.
    """

    q_net: CandidateQNetwork  # type: ignore[assignment]
    q_net_target: CandidateQNetwork  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        model: HuggingFaceLM | str | Path | None = None,
        candidates: int = 20,
        eta: float = 0.1,
        objective: str = "soft_q",
        lambda_: float = 0.9,
        n_bins: int = 11,
        guided: float = 0.8,
        width: int = 256,
        expectile: float = 0.8,
        span: str = "prefix",
        candidate_rewards: bool = False,
        value_range: tuple[float, float] = (0.0, 1.0),
        fingerprint: str | None = None,
        lora: dict[str, Any] | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if model is None:
            raise ValueError("model must be a language model or a local path to one, got None")
        self.language_model = model if isinstance(model, HuggingFaceLM) else load_language_model(model)
        assert isinstance(observation_space, TokenSequence)
        if int(action_space.n) > self.language_model.vocab_size:
            raise ValueError(
                f"model must know the {action_space.n} tokens of env, got one with {self.language_model.vocab_size}"
            )
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
        if span not in SPANS:
            raise ValueError(f"span must be one of {', '.join(SPANS)}, got {span!r}")
        for name, value in (("lambda_", lambda_), ("guided", guided)):
            check_range(name, value, 0, 1)
        if not 0 < expectile < 1:
            raise ValueError(f"expectile must lie between 0 and 1, got {expectile!r}")
        self.fingerprint = _checked_fingerprint(self.language_model, fingerprint)
        self.lora, self._adapters = lora, None if lora is None else checked_lora(lora)
        if lora is not None and observation_space.shape[0] > self.language_model.context_length:
            raise ValueError(
                f"model must read the {observation_space.shape[0]} tokens that a text of env may have, with lora, "
                f"got one that reads {self.language_model.context_length}"
            )
        self.expectile, self.span, self.value_range = expectile, span, checked_value_range(value_range)
        self.candidates = check_at_least("candidates", candidates, 2)
        self.n_bins = check_at_least("n_bins", n_bins, 2) if objective == "qsharp" else 1
        self.width = check_at_least("width", width, 1)
        self.candidate_rewards = bool(candidate_rewards)
        self.eta, self.objective, self.lambda_, self.guided = check_positive("eta", eta), objective, lambda_, guided
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            features_extractor_class=FlattenExtractor,
            optimizer_class=optimizer_class,
            optimizer_kwargs={"weight_decay": 0.1} if optimizer_kwargs is None else optimizer_kwargs,
        )

    def make_q_net(self) -> CandidateQNetwork:  # type: ignore[override]
        """Build one of the two heads."""
        embedding = self.language_model.output_embedding
        network = CandidateQNetwork(
            self.observation_space,
            self.action_space,
            self.language_model.hidden_dim,
            embedding,
            self.width,
            self.n_bins,
            state_value=self.objective == "ilql",
            value_range=self.value_range,
            candidate_rewards=self.candidate_rewards,
        )
        if self._adapters is not None:  # after the head, whose first weights are thus those without them
            network.adapt(AdaptedLM(self.language_model, self._adapters))
        return network.to(self.device)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        if self._adapters is not None:
            first = lr_schedule(1)
            self.q_net.adapters.learn_with(self.optimizer, self._adapters.learning_rate / first if first else 1.0)

    def check_asks(self, name: str) -> None:
        """Raise a ValueError unless what follows a token was learned apart from what the token itself earns."""
        if not self.candidate_rewards:
            raise ValueError(
                f"{name} must be None for an agent without candidate_rewards, which learned the sum of both"
            )

    def reader(self) -> Reader:
        """What reads the texts of one set of rows."""
        assert isinstance(self.observation_space, TokenSequence)
        pad_id, trunk = self.observation_space.pad_id, self.q_net.trunk
        if trunk is None:
            return Reader(self.language_model, pad_id, self.candidates)
        return AdaptedReader(self.language_model, trunk, pad_id, self.candidates)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for name in ("net_arch", "activation_fn", "normalize_images", "features_extractor_class"):
            data.pop(name, None)
        data.pop("features_extractor_kwargs", None)
        names = "candidates eta objective lambda_ guided width expectile span".split()
        names += "candidate_rewards value_range fingerprint lora".split()
        bins = {"n_bins": self.n_bins} if self.objective == "qsharp" else {}
        return data | {name: getattr(self, name) for name in names} | bins | {"model": self.language_model.path}


def _checked_fingerprint(model: HuggingFaceLM, known: str | None) -> str:
    """The model's fingerprint, if it is the one that is known, or none is."""
    own = model.fingerprint
    if known is None or own == known:
        return own
    parts = zip(("weights", "tokens"), own.split("-"), known.split("-"), strict=False)
    different = " and ".join(name for name, ours, theirs in parts if ours != theirs)
    raise ValueError(
        f"model must be the language model that the head was learned on, got {model.path!r}, which has other "
        f"{different or 'weights'} (fingerprint {own}, not {known})"
    )
