"""``textgym play``: a person picks the tokens."""

from __future__ import annotations

import difflib
from typing import Any, TextIO

import gymnasium as gym
import numpy as np
from rich.console import Console

import textgym
from agents.options import one_line
from agents.runs import CommandError

_MOST_LISTED = 40
_QUIT = ":q"


def play(env_id: str, env_args: dict[str, Any], seed: int | None, lines: TextIO, console: Console) -> list[float]:
    """Play episodes until the input ends or says ``:q``.

    Args:
        env_id: A registered id.
        env_args: Its arguments.
        seed: Seed of the first prompt; None for another one each time.
        lines: Where the person's choices come from, such as ``sys.stdin``: each line a token, as text or number, or
            several with spaces between.
        console: Where to print.

    Returns:
        Returns of the finished episodes.

    Raises:
        CommandError: If the environment refuses its arguments.
    """
    try:
        env = gym.make(f"textgym:{env_id}", **env_args)
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise CommandError(f"--env-arg, environment {env_id}: {one_line(error)}") from error
    task: textgym.Task = env.get_wrapper_attr("task")
    ids = {task.token_text(token): token for token in range(task.vocab_size)}

    def say(text: str, end: str = "\n") -> None:
        console.print(text, end=end, markup=False, highlight=False, soft_wrap=True)

    say(
        f"{env_id}: {task.vocab_size} tokens, at most {task.max_new_tokens} an episode; {task.token_text(task.eos_id)} "
        f"ends it. Type a token or its number (0 to {task.vocab_size - 1}), or several; {_QUIT} quits."
    )
    returns: list[float] = []
    pending: list[int] = []
    observation, info = env.reset(seed=seed)
    prompt_length = _length(observation, task)
    total, listed = 0.0, np.zeros(0, bool)
    say(f"\nprompt: {_text(observation[:prompt_length], task)}")
    while True:
        mask = np.asarray(info["action_mask"], bool)
        if not pending:
            legal = mask.nonzero()[0]
            if len(legal) <= _MOST_LISTED and not np.array_equal(mask, listed):
                listed = mask
                say("legal:  " + "  ".join(f"{token} {task.token_text(token)}" for token in legal.tolist()))
            say("> ", end="")
            line = lines.readline()
            if not line or line.strip() == _QUIT:
                say("")
                break
            pending, problem = _parse(line.rstrip("\r\n"), ids, task.vocab_size)
            if problem:
                say(problem)
                continue
        if not pending:
            continue
        token = pending.pop(0)
        if not mask[token]:
            pending.clear()
            say(f"{task.token_text(token)!r} is not legal here")
            continue
        observation, reward, terminated, truncated, info = env.step(token)
        total += float(reward)
        say(f"text:   {_text(observation[prompt_length:], task)}   reward {float(reward):.3f}, so far {total:.3f}")
        if terminated or truncated:
            say(f"end:    return {total:.3f}")
            returns.append(total)
            pending.clear()
            observation, info = env.reset()
            prompt_length, total = _length(observation, task), 0.0
            say(f"\nprompt: {_text(observation[:prompt_length], task)}")
    if returns:
        say(f"{len(returns)} episode{'s' if len(returns) > 1 else ''}, mean return {np.mean(returns):.3f}")
    env.close()
    return returns


def _parse(line: str, ids: dict[str, int], vocab_size: int) -> tuple[list[int], str | None]:
    """Tokens of a line, or none and what is wrong with it; a text that is a token goes before a number."""
    if line in ids:  # a token may hold a space, or be one
        return [ids[line]], None
    tokens = []
    for word in line.split():
        if word in ids:
            tokens.append(ids[word])
        elif word.isdecimal() and int(word) < vocab_size:
            tokens.append(int(word))
        else:
            alike = difflib.get_close_matches(word, ids, n=3)
            hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
            return [], f"{word!r} is no token and no number from 0 to {vocab_size - 1}{hint}"
    return tokens, None


def _length(observation: Any, task: textgym.Task) -> int:
    return int(textgym.sequence_lengths(observation[None], task.pad_id)[0])


def _text(tokens: Any, task: textgym.Task) -> str:
    return task.join([task.token_text(token) for token in tokens.tolist() if token != task.pad_id])
