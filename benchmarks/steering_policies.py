"""Ways to write with a language model, all asked alike: the next token's distribution, theirs and the plain model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents import DoubleDQN
from agents.double_dqn.language_models.asking import rewards_with, with_bonus
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import Reader
from textgym.language_models import HuggingFaceLM
from textgym.language_models.key_values import append
from textgym.rewards import RewardFunction

PAD = -1


class Policy(Protocol):
    """Writes token by token."""

    def log_probs(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next token after n prefixes: the policy's and the plain model's, ``(n, V)`` each.

        Args:
            rows: Token ids, shape ``(n, L)``, padded on the right.
            lengths: Tokens of each prefix, shape ``(n,)``.
            starts: Tokens of each one's prompt, shape ``(n,)``.
        """
        ...


@dataclass(frozen=True)
class Samples:
    """n texts that a policy has written.

    Attributes:
        prompts: What they follow.
        texts: The texts.
        nats: KL divergence of the policy from the plain model along each, exact at every token, shape ``(n,)``.
        surprise: −log-probability of each text under the plain model, in nats, shape ``(n,)``.
        n_tokens: Tokens of each, the ending included, shape ``(n,)``.
    """

    prompts: list[str]
    texts: list[str]
    nats: NDArray[np.float64]
    surprise: NDArray[np.float64]
    n_tokens: NDArray[np.int64]

    @property
    def perplexity(self) -> float:
        """Under the plain model, over all tokens."""
        return float(np.exp(self.surprise.sum() / self.n_tokens.sum()))


class Plain:
    """The model as it is, or at another temperature (> 0)."""

    def __init__(self, model: HuggingFaceLM, temperature: float = 1.0) -> None:
        self.model, self.temperature = model.reading(), temperature

    def log_probs(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """See :class:`Policy`."""
        plain = torch.from_numpy(self.model.log_probs(rows, lengths))
        return (plain if self.temperature == 1 else (plain / self.temperature).log_softmax(dim=-1)), plain


class Finetuned:
    """Another model of the same tokens, such as the plain one with LoRA; asks both."""

    def __init__(self, tuned: HuggingFaceLM, plain: HuggingFaceLM) -> None:
        self.tuned, self.plain = tuned.reading(), plain.reading()

    def log_probs(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """See :class:`Policy`."""
        tuned, plain = (torch.from_numpy(model.log_probs(rows, lengths)) for model in (self.tuned, self.plain))
        return tuned, plain


class Steered:
    """A :class:`agents.DoubleDQN` with a ``LanguageModelPolicy``, at a strength; see ``DoubleDQN.steering``.

    Args:
        agent: The agent.
        strength: How much the values count.
    """

    def __init__(self, agent: DoubleDQN, strength: float = 1.0) -> None:
        assert isinstance(agent.policy, LanguageModelPolicy)
        self.policy, self.strength = agent.policy, strength
        self.reader: Reader = self.policy.reader()

    @torch.no_grad()
    def log_probs(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """See :class:`Policy`."""
        states = self.reader.read(np.where(rows == PAD, self.reader.pad_id, rows))
        values = self.strength * self.policy.q_net.q_values(states, self.policy.eta)
        plain = self.reader.log_probs
        return with_bonus(plain, states.tokens, (values / self.policy.eta).to(plain)), plain


class RewardLookAhead:
    """Nothing is learned: every candidate adds what the reward of the text with it is worth.

    Args:
        model: The language model.
        reward: Makes sense of texts that are not finished.
        strength: What a unit of reward adds to a candidate's log-probability.
        candidates: Likeliest tokens that are asked about (≥ 2).
    """

    def __init__(self, model: HuggingFaceLM, reward: RewardFunction, strength: float, candidates: int = 20) -> None:
        self.model, self.reward, self.strength = model, reward, strength
        self.reader = Reader(model, model.tokenizer.n_ids, candidates)

    @torch.no_grad()
    def log_probs(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """See :class:`Policy`."""
        states = self.reader.read(np.where(rows == PAD, self.reader.pad_id, rows))
        prompts = [row[:start].tolist() for row, start in zip(rows, starts, strict=True)]
        texts = [row[start:end].tolist() for row, start, end in zip(rows, starts, lengths, strict=True)]
        asked = rewards_with(self.reward, self.model.tokenizer, prompts, texts, states.tokens)
        plain = self.reader.log_probs
        return with_bonus(plain, states.tokens, self.strength * asked), plain


class LookAhead:
    """As RAD does (arXiv:2310.09520): every candidate is read, and a value of the text with it is added to its score.

    Args:
        model: The language model.
        value: Its hidden state after a text, ``(..., D)``, to the return expected in the end, ``(...)``.
        strength: What a unit of value adds to a candidate's log-probability.
        candidates: Likeliest tokens that are read (≥ 2).
    """

    def __init__(self, model: HuggingFaceLM, value: nn.Module, strength: float, candidates: int = 20) -> None:
        self.model, self.value = model.reading(), value
        self.strength, self.candidates = strength, candidates

    @torch.no_grad()
    def log_probs(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """See :class:`Policy`."""
        plain = torch.from_numpy(self.model.log_probs(rows, lengths))
        tokens = plain.topk(min(self.candidates, plain.shape[1]), dim=-1).indices
        values = self.value(self._hidden_after(tokens)).squeeze(-1)  # (n, k)
        return with_bonus(plain, tokens, self.strength * values), plain

    def _hidden_after(self, tokens: Tensor) -> Tensor:
        """The model's last hidden state after the rows read last and one more token, ``(n, k)`` → ``(n, k, D)``."""
        lm, k = self.model, tokens.shape[1]
        kept = torch.tensor([len(row) for row in lm._rows]).repeat_interleave(k)
        cache = tuple(tensor.repeat_interleave(k, dim=0) for tensor in lm._cache)
        new, trunk = torch.ones_like(kept), lm._model.base_model
        with torch.inference_mode():
            output, _ = append(trunk, cache, kept, new, lm.context_length, input_ids=tokens.view(-1, 1))
        return output.last_hidden_state[:, 0].clone().view(*tokens.shape, -1)


def sample(
    policy: Policy,
    model: HuggingFaceLM,
    prompts: Sequence[str],
    length: int,
    seed: int,
    rows_at_once: int = 64,
) -> Samples:
    """Draw a text after each of some prompts.

    Args:
        policy: Who writes.
        model: Whose tokens they are.
        prompts: n prompts; the same one may come several times.
        length: Most tokens of a text (≥ 1).
        seed: Seed of the draws.
        rows_at_once: Texts that are written side by side (≥ 1).
    """
    random = np.random.default_rng(seed)
    tokenizer, n = model.tokenizer, len(prompts)
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    texts: list[list[int]] = [[] for _ in prompts]
    nats, surprise = np.zeros(n), np.zeros(n)
    for start in range(0, n, rows_at_once):
        numbers = np.arange(start, min(start + rows_at_once, n))
        width = max(len(encoded[number]) for number in numbers) + length
        rows = np.full((len(numbers), width), PAD, np.int64)
        lengths = starts = np.array([len(encoded[number]) for number in numbers])
        for row, number in enumerate(numbers.tolist()):
            rows[row, : lengths[row]] = encoded[number]
        open_ = np.ones(len(numbers), bool)
        for _ in range(length):
            log_policy, log_plain = policy.log_probs(rows, lengths, starts)
            ratio = torch.where(log_policy > -torch.inf, log_policy - log_plain, 0.0)
            divergence = (log_policy.exp() * ratio).sum(dim=-1).numpy()
            drawn = log_policy.numpy() + random.gumbel(size=log_policy.shape).astype(np.float32)
            tokens = drawn.argmax(axis=1)
            nats[numbers[open_]] += divergence[open_]
            surprise[numbers[open_]] -= log_plain.numpy()[np.arange(len(tokens)), tokens][open_]
            for row in np.flatnonzero(open_).tolist():
                texts[numbers[row]].append(int(tokens[row]))
                rows[row, lengths[row]] = tokens[row]
            lengths = lengths + open_
            open_ &= tokens != tokenizer.eos_id
            if not open_.any():
                break
    decoded = [tokenizer.decode([token for token in text if token != tokenizer.eos_id]) for text in texts]
    return Samples(list(prompts), decoded, nats, surprise, np.array([len(text) for text in texts]))
