"""A frozen language model as what the agent sees of a text: a hidden state, and the likeliest next tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym.language_models import HuggingFaceLM
from textgym.spaces import sequence_lengths


class States(NamedTuple):
    """What a frozen model says of texts; any leading shape, here ``(n,)``.

    Attributes:
        hidden: Its last hidden state, shape ``(n, D)``, float32.
        tokens: The k likeliest legal tokens, shape ``(n, k)``, int64.
        log_probs: Their log-probabilities among all legal tokens, shape ``(n, k)``, float32; -inf where fewer than k
            are legal. What the other tokens have is missing in their sum.
    """

    hidden: Tensor
    tokens: Tensor
    log_probs: Tensor

    @property
    def mass(self) -> Tensor:
        """Probability of all candidates together, shape ``(n,)``: the other tokens keep theirs, whatever is learned."""
        return self.log_probs.logsumexp(dim=-1).exp().clamp(max=1.0)

    def among_all(self, policy: Tensor) -> Tensor:
        """Log-probabilities among all tokens, given those among the candidates, which keep their mass: ``(n, k)``."""
        return self.mass.log().unsqueeze(-1) + policy

    def prior(self) -> Tensor:
        """Log-probabilities among the k tokens, shape ``(n, k)``."""
        return self.log_probs.log_softmax(dim=-1)


class Reader:
    """Reads growing texts, each token once.

    Args:
        model: The model, whose weights are shared; what has been read is kept here.
        pad_id: Token id that fills rows on the right.
        k: Tokens that are considered next (≥ 2).

    Attributes:
        log_probs: Log-probabilities of all tokens after the texts read last, shape ``(n, V)``; -inf where illegal.
    """

    def __init__(self, model: HuggingFaceLM, pad_id: int, k: int) -> None:
        self.model = model.reading()
        self.pad_id, self.k = pad_id, k

    def rest(self, states: States, chosen: NDArray[np.bool_], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Tokens that are no candidates, drawn from the model, for some of the rows read last.

        Args:
            states: What was read.
            chosen: The rows, shape ``(n,)``.
            random: Source of randomness.

        Returns:
            The tokens and their log-probabilities, shape ``(m,)`` each.
        """
        others = self.log_probs[chosen].scatter(1, states.tokens[chosen], -torch.inf)
        tokens = (others + torch.from_numpy(random.gumbel(size=tuple(others.shape))).float()).argmax(dim=1)
        return tokens, others.gather(1, tokens[:, None]).squeeze(1)

    def with_action(self, states: States, actions: NDArray[np.integer]) -> tuple[States, NDArray[np.float32]]:
        """The states read last with one candidate more, which is the action taken where it was none.

        Args:
            states: What was read, ``(n,)``.
            actions: Tokens, shape ``(n,)``.

        Returns:
            The states, and the log-probability of each action, shape ``(n,)``.
        """
        taken = torch.from_numpy(np.asarray(actions, np.int64))[:, None]
        log_probs = self.log_probs.gather(1, taken)
        known = ((states.tokens == taken) & (states.log_probs > -torch.inf)).any(dim=1, keepdim=True)
        last = torch.where(known, 0, taken), torch.where(known, -torch.inf, log_probs)
        columns = (torch.cat([old, new], dim=1) for old, new in zip(states[1:], last, strict=True))
        return States(states.hidden, *columns), log_probs.squeeze(1).numpy()

    def draw(
        self, states: States, scores: NDArray[np.floating], random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], States]:
        """Draw an action in each of the n states read last: with the candidates' mass one of them, else another token.

        Args:
            states: What was read.
            scores: Log-probabilities of the candidates, up to a constant, shape ``(n, k)``.
            random: Source of randomness.

        Returns:
            The actions; their places among the candidates, -1 for others; and the states with one candidate more, which
            is the action where it was none (log-probability -inf elsewhere).
        """
        tokens, n = states.tokens.numpy(), len(scores)
        places = (scores + random.gumbel(size=scores.shape)).argmax(axis=1)
        actions = tokens[np.arange(n), places]
        last = torch.zeros(n, dtype=torch.int64), torch.full((n,), -torch.inf)
        others = random.random(n) > states.mass.numpy() + 1e-6
        if others.any():
            drawn, log_probs = self.rest(states, others, random)
            actions[others], places[others] = drawn.numpy(), -1
            last[0][others], last[1][others] = drawn, log_probs
        columns = (torch.cat([old, new[:, None]], dim=1) for old, new in zip(states[1:], last, strict=True))
        return actions, places, States(states.hidden, *columns)

    def get_state(self) -> dict[str, Any]:
        """What has been read, as plain values and tensors."""
        return self.model.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what :meth:`get_state` gave, of the same model."""
        self.model.set_state(state)

    def read(self, rows: NDArray[np.integer], masks: NDArray[np.bool_] | None = None) -> States:
        """The states of texts.

        Args:
            rows: Right-padded token ids, shape ``(n, L)``.
            masks: Legal actions, shape ``(n, V)``; None where all are.
        """
        log_probs = torch.from_numpy(self.model.log_probs(rows, sequence_lengths(rows, self.pad_id)))
        if masks is not None:
            legal = torch.from_numpy(masks[:, : log_probs.shape[1]])
            log_probs = log_probs.masked_fill(~legal, -torch.inf).log_softmax(dim=-1)
        self.log_probs = log_probs
        best, tokens = log_probs.topk(min(self.k, log_probs.shape[1]), dim=-1)
        return States(self.model.hidden.float().cpu().clone(), tokens, best)
