"""A language model that plays episodes in messages, kept as the ids that it writes: nothing is tokenized twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from textgym.adapters.text_steps import TextSteps

_ANSWER = "ANSWER-OF-THE-MODEL"

Write = Callable[[list[list[int]], int], list[tuple[list[int], list[float]]]]
"""Rows of ids and a limit → for each row the ids that go on from it, an end included, and their log-probabilities."""


class ChatTokens:
    """Messages as the ids of a language model: by its chat template, or as plain lines where it has none.

    Args:
        tokenizer: A tokenizer of ``transformers``.
        ends: Ids that end a message; None for the tokenizer's EOS.
        **options: Arguments of ``apply_chat_template``.

    Raises:
        ValueError: If nothing ends a message.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int] | None = None, **options: Any) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.ends = tuple(ends) if ends is not None else (tokenizer.eos_token_id,)
        if not self.ends or None in self.ends:
            raise ValueError(f"tokenizer must have an EOS token, which ends a message, got {tokenizer!r:.80}")
        self.has_template = bool(options.get("chat_template") or getattr(tokenizer, "chat_template", None))

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of a conversation up to where the model writes."""
        if self.has_template:
            return self._ids(self._render([{key: one[key] for key in ("role", "content")} for one in messages]))
        return list(self.tokenizer("".join(f"{one['content']}\n" for one in messages))["input_ids"])

    def reply(self, text: str, last: int) -> list[int]:
        """Ids between a message of the model and its next one.

        Args:
            text: What the environment says.
            last: The last id that the model wrote; where it ends no message, an end is added.
        """
        if not self.has_template:
            return self._ids(f"\n{text}\n")
        turns = [("user", "-"), ("assistant", _ANSWER), ("user", text)]
        rendered = self._render([{"role": role, "content": content} for role, content in turns])
        ids = self._ids(rendered.partition(_ANSWER)[2])
        return ids[1:] if last in self.ends and ids[:1] == [last] else ids

    def text(self, ids: Sequence[int]) -> str:
        """A message of the model, without the tokens that end or pad it."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _render(self, messages: list[dict[str, Any]]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **self.options)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass
class Conversation:
    """An episode that has begun, and what a language model has written in it.

    Attributes:
        steps: The episode.
        prompt_ids: The model's ids before its first message.
        completion_ids: Its messages as it sampled them, with the ids of the replies between them.
        logprobs: Natural log-probability of each of these ids when it was drawn; 0 for replies.
        env_mask: 1 for each id that the model wrote, 0 for replies.
        texts: Messages and replies, in turn.
        episode_return: Sum of the rewards.
        n_actions: Tokens of the task that have been written.
        over: Whether the episode has ended.
        refusal: Why the last message was refused, else None.
    """

    steps: TextSteps
    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    env_mask: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    episode_return: float = 0.0
    n_actions: int = 0
    over: bool = False
    refusal: str | None = None

    def add(self, ids: Sequence[int], logprobs: Sequence[float], text: str) -> str:
        """Send a message of the model, and return what the environment says."""
        self.completion_ids += ids
        self.logprobs += logprobs
        self.env_mask += [1] * len(ids)
        answer, reward, self.over, _, info = self.steps.step(text)
        self.episode_return += reward
        self.n_actions += len(info["action_tokens"])
        self.refusal = info["refusal"]
        self.texts += [text, answer] if answer else [text]
        return answer or f"Go on: {' '.join(info['legal'][:64])}"

    def add_reply(self, ids: Sequence[int]) -> None:
        """Add ids that the model did not write."""
        self.completion_ids += ids
        self.logprobs += [0.0] * len(ids)
        self.env_mask += [0] * len(ids)


def first_message(steps: TextSteps, prompt: str) -> str:
    """What a language model is told first: the instructions, and the prompt of its episode."""
    return f"{steps.instructions}\n\n{prompt}"


def play(
    conversations: Sequence[Conversation],
    write: Write,
    chat: ChatTokens,
    max_new_tokens: int,
    max_message_tokens: int | None = None,
    context: int | None = None,
) -> None:
    """Let a language model write until all episodes have ended, or its tokens are used up.

    A message ends with an end of ``chat``, or when it is cut off; then it is sent as it is. A conversation that has
    used up its tokens keeps the return so far.

    Args:
        conversations: Episodes that have begun; they are gone on with.
        write: The model.
        chat: How messages are ids.
        max_new_tokens: Ids after the prompt at most, replies included (≥ 1).
        max_message_tokens: Ids of one message at most (≥ 1); None for no other limit.
        context: Ids that the model can read; None for no limit.

    Raises:
        ValueError: If a prompt and ``max_new_tokens`` do not fit into the context.
    """
    longest = max(len(one.prompt_ids) for one in conversations)
    if context is not None and longest + max_new_tokens > context:
        raise ValueError(
            f"the model's context of {context} tokens is too short for a prompt of {longest} and {max_new_tokens} new "
            f"ones; at most {max(context - longest, 0)} new ones fit"
        )
    running = list(conversations)
    while running:
        left = [max_new_tokens - len(one.completion_ids) for one in running]
        limits = [min(room, max_message_tokens or room) for room in left]
        written = write([one.prompt_ids + one.completion_ids for one in running], max(limits))
        still = []
        for one, limit, (ids, logprobs) in zip(running, limits, written, strict=True):
            answer = one.add(ids[:limit], logprobs[:limit], chat.text(ids[:limit]))
            if one.over:
                continue
            reply = chat.reply(answer, one.completion_ids[-1])
            if len(one.completion_ids) + len(reply) < max_new_tokens:
                one.add_reply(reply)
                still.append(one)
        running = still
