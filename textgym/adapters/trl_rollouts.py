"""TRL: a ``rollout_func`` whose completions are the very tokens that the model sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textgym.adapters.conversations import ChatTokens, Conversation, first_message, play
from textgym.adapters.sampling import sampler
from textgym.adapters.text_steps import TextSteps
from textgym.checks import check_at_least
from textgym.rewards.base import require
from textgym.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset


class TokenRollouts:
    """Plays every rollout of TRL's ``GRPOTrainer`` as a conversation, by token ids; an object is a ``rollout_func``.

    The first message of the user holds the instructions and the prompt, and beside its text a ``seed``: TRL hands
    prompts over as they are in the data set, so the rollouts of a group play one episode, in every process and after
    every restart. What the model writes up to its EOS is a message, see :class:`textgym.adapters.TextSteps`, and what
    the environment replies is the user's next one. Between turns nothing is tokenized again: ids are appended.

    TRL gets ``prompt_ids``, ``completion_ids``, ``logprobs``, ``env_mask`` (0 for ids of replies, which the loss
    leaves out) and ``episode_return``, which :meth:`episode_return` hands on as the reward. A model without a chat
    template reads plain lines.

    Args:
        id_or_task: A registered id, or a task.
        max_message_tokens: Ids of the model in one message at most (≥ 1); None for no limit but TRL's
            ``max_completion_length``, which counts the messages and replies of an episode together.
        **kwargs: Arguments of the environment or task.

    Attributes:
        instructions: What to write, in words.

    Raises:
        ValueError: If the id is unknown, or an argument is out of range.

    Example:
        >>> rollouts = TokenRollouts("TextGen/Reverse-v0", length=3, vocab_size=4)
        >>> rollouts.prompt(seed=0)[0]["content"].splitlines()[-1]
        'd b d'
        >>> rollouts.prompt(seed=0)[0]["seed"]
        0
    """

    def __init__(
        self, id_or_task: str | type[Task] | Task, max_message_tokens: int | None = None, **kwargs: Any
    ) -> None:
        if max_message_tokens is not None:
            max_message_tokens = check_at_least("max_message_tokens", max_message_tokens, 1)
        self.max_message_tokens = max_message_tokens
        self._steps = TextSteps(id_or_task, **kwargs)
        self.instructions = self._steps.instructions

    def prompt(self, seed: int) -> list[dict[str, Any]]:
        """The messages that begin the episode of a seed (≥ 0)."""
        prompt = self._steps.reset(seed=check_at_least("seed", seed, 0))
        return [{"role": "user", "content": first_message(self._steps, prompt), "seed": seed}]

    def dataset(self, n: int, seed: int = 0) -> Dataset:
        """Rows for TRL's trainers, with a ``prompt`` each.

        Args:
            n: Rows (≥ 1).
            seed: Seed of the first one (≥ 0); the others count up from there.

        Raises:
            ModuleNotFoundError: If the package ``datasets`` is not installed.
            ValueError: If an argument is out of range.
        """
        n, seed = check_at_least("n", n, 1), check_at_least("seed", seed, 0)
        datasets = require("datasets", "datasets", "TokenRollouts.dataset()")
        return datasets.Dataset.from_list([{"prompt": self.prompt(seed + i)} for i in range(n)])

    @staticmethod
    def episode_return(
        prompts: Sequence[Any], completions: Sequence[Any], episode_return: Sequence[float], **columns: Any
    ) -> list[float]:
        """The reward function to pass to TRL: the returns of the rollouts' episodes."""
        return list(episode_return)

    def begin(self, prompts: Sequence[Any], chat: ChatTokens) -> list[Conversation]:
        """The episodes of prompts, one for each.

        Args:
            prompts: Conversations whose user messages have a ``seed``, as :meth:`dataset` makes them.
            chat: How messages are ids.

        Raises:
            ValueError: If a prompt has no seed, or its text is not that of the episode of its seed.
        """
        begun = []
        for messages in prompts:
            seed, content = _seeded(messages)
            steps = TextSteps(self._steps.task)  # tasks hold no state of an episode
            prompt = steps.reset(seed=seed)
            if not content.rstrip().endswith(prompt.rstrip()):
                raise ValueError(
                    f"prompt must end with the prompt of the episode of seed {seed}, {prompt!r:.80}, got "
                    f"{content[-80:]!r}: was it made with other arguments?"
                )
            begun.append(Conversation(steps, chat.prompt(messages)))
        return begun

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, list[Any]]:
        """Play one rollout for each prompt, in order, as TRL calls it.

        Args:
            prompts: The prompts of this process; a group's is there ``num_generations`` times.
            trainer: The ``GRPOTrainer``.

        Returns:
            ``prompt_ids``, ``completion_ids``, ``logprobs``, ``env_mask``, ``episode_return``: lists as long as
            ``prompts``.

        Raises:
            ValueError: If a prompt has no seed or another text than its episode, the model's context is too short, or
                the trainer uses vLLM.
        """
        if trainer.use_vllm:
            raise ValueError("use_vllm must be False with TokenRollouts, which samples with transformers, got True")
        models = require("trl.models", "trl", "TokenRollouts")
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        chat = ChatTokens(
            tokenizer, trainer.eos_token_ids, chat_template=trainer.chat_template, **trainer.chat_template_kwargs
        )
        rollouts = self.begin(prompts, chat)
        with models.unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
            generation_kwargs=trainer.generation_kwargs,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model:
            play(
                rollouts,
                sampler(model, trainer.generation_config, tokenizer.pad_token_id, chat.ends),
                chat,
                trainer.max_completion_length,
                self.max_message_tokens,
                getattr(model.config, "max_position_embeddings", None),
            )
        names = ("prompt_ids", "completion_ids", "logprobs", "env_mask", "episode_return")
        return {name: [getattr(one, name) for one in rollouts] for name in names}


def _seeded(messages: Any) -> tuple[int, str]:
    """The seed of a conversation, and the text of the message that has it."""
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        for message in messages:
            seed = message.get("seed") if isinstance(message, Mapping) else None
            if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0:
                return int(seed), str(message["content"])
    raise ValueError(
        "prompt must be messages of which one has a 'seed' of at least 0 (see TokenRollouts.dataset()), got "
        f"{messages!r:.120}"
    )
