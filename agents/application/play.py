"""``textgym play``: a person picks the tokens, and a model, where there is one, says what it would pick."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import gymnasium as gym
import numpy as np
from rich.console import Console

import textgym
from agents.application.run_folder import evaluated_in, find_model
from agents.saving.arguments import checked_env_id, one_line
from agents.saving.files import CommandError
from agents.saving.named_rewards import check_trust, with_reward

if TYPE_CHECKING:
    from agents.double_dqn import DoubleDQN

_MOST_LISTED = 40
_MOST_ADVISED = 5
_QUIT = ":q"


def play_with(
    path: Path, env_args: dict[str, Any], seed: int | None, lines: TextIO, console: Console, trust: bool = False
) -> list[float]:
    """Play in the environment that a model was trained in, with its advice.

    Args:
        path: A run folder, an exported model or a model file.
        env_args: Arguments of the environment that differ from the model's own.
        seed: See :func:`play`.
        lines: Likewise.
        console: Likewise.
        trust: See :func:`agents.application.loading.load_model`.

    Raises:
        CommandError: If the model can't be read, or nothing tells its environment.
    """
    from agents.application.loading import load_model

    model_path, config = find_model(path)
    if config is None or "env" not in config:
        raise CommandError(
            f"ID_OR_MODEL must be a model whose environment is known, got {path}, which does not tell it"
        )
    env_args = {**evaluated_in(config), **env_args}
    if not trust:
        check_trust(env_args, path)
    return play(checked_env_id(config["env"]), env_args, seed, lines, console, load_model(model_path, "cpu", trust))


def play(
    env_id: str,
    env_args: dict[str, Any],
    seed: int | None,
    lines: TextIO,
    console: Console,
    model: DoubleDQN | None = None,
) -> list[float]:
    """Play episodes until the input ends or says ``:q``.

    Args:
        env_id: A registered id.
        env_args: Its arguments.
        seed: Seed of the first prompt; None for another one each time.
        lines: Where the person's choices come from, such as ``sys.stdin``: each line a token, as text or number, or
            several with spaces between. With a model, an empty line takes its best token.
        console: Where to print.
        model: Gives advice: its best tokens and their Q-values. None for none.

    Returns:
        Returns of the finished episodes.

    Raises:
        CommandError: If the environment refuses its arguments, or is not one of the model's kind.
    """
    try:
        env = gym.make(f"textgym:{env_id}", **with_reward(env_args))
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise CommandError(f"--env-arg, environment {env_id}: {one_line(error)}") from error
    if model is not None and (model.observation_space, model.action_space) != (env.observation_space, env.action_space):
        raise CommandError(f"--env-arg must leave the model's {model.observation_space}, got {env.observation_space}")
    task: textgym.Task = env.get_wrapper_attr("task")
    ids = {task.token_text(token): token for token in range(task.vocab_size)}

    def say(text: str, end: str = "\n") -> None:
        console.print(text, end=end, markup=False, highlight=False, soft_wrap=True)

    say(
        f"{env_id}: {task.vocab_size} tokens, at most {task.max_new_tokens} an episode; {task.token_text(task.eos_id)} "
        f"ends it. Type a token or its number (0 to {task.vocab_size - 1}), or several; "
        + ("an empty line takes the model's; " if model is not None else "")
        + f"{_QUIT} quits."
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
            advice: list[int] = []
            if model is not None:
                values = model.action_values(observation[None], mask[None])[0]
                advice = [t for t in np.argsort(-values, kind="stable").tolist() if np.isfinite(values[t])]
                best = "  ".join(f"{task.token_text(token)} {values[token]:.3f}" for token in advice[:_MOST_ADVISED])
                say(f"model:  {best}")
            say("> ", end="")
            line = lines.readline()
            if not line or line.strip() == _QUIT:
                say("")
                break
            text = line.rstrip("\r\n")
            pending, problem = (advice[:1], None) if text == "" else _parse(text, ids, task.vocab_size)
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
