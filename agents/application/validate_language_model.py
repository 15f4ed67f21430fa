"""The work behind ``textgym validate FOLDER`` where the folder holds a language model, as TRL's trainers save it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from agents.application.resume import reward_errors
from agents.application.validate import MOST_ROWS, check_counts, described, print_report
from agents.double_dqn.evaluation import FRESH_SEED, EvaluationResult, Scores, quotas, score
from agents.pruning.language_model import pruned_model
from agents.saving.arguments import checked_env_id, make_env, one_line
from agents.saving.files import CommandError
from textgym.adapters.conversations import ChatTokens, Conversation, Write, first_message, play
from textgym.adapters.sampling import sampler
from textgym.adapters.text_steps import TextSteps
from textgym.rewards.base import RewardError, require
from textgym.tasks.base import Task

if TYPE_CHECKING:
    from rich.console import Console

CONFIG, ADAPTER, TOKENIZER = "config.json", "adapter_config.json", "tokenizer_config.json"
MAX_NEW_TOKENS = 256


def is_language_model(path: str | Path) -> bool:
    """Whether a path is a folder that ``transformers`` or PEFT wrote; a model of TextGym names its format."""
    folder = Path(path)
    if (folder / ADAPTER).is_file():
        return True
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "model_type" in config and "format" not in config


def validate_language_model(
    path: str | Path,
    env_id: str | None,
    env_args: dict[str, Any] | None = None,
    *,
    episodes: int = 256,
    seed: int = FRESH_SEED,
    temperature: float = 0.0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_message_tokens: int | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> tuple[EvaluationResult, Scores]:
    """Evaluate a language model on the episodes on which :func:`agents.validate.validate` evaluates an agent.

    It plays in the messages of :class:`textgym.adapters.TokenRollouts`, with its own chat template if it has one.

    Args:
        path: Folder with a causal language model of ``transformers`` and its tokenizer, or with a PEFT adapter of one.
        env_id: The environment.
        env_args: Its arguments.
        episodes: Number of episodes (≥ 1).
        seed: Row ``i`` of at most 64 is seeded ``seed + i``.
        temperature: At which it samples, from a random stream that ``seed`` begins; 0 for greedy.
        max_new_tokens: Its tokens in an episode at most, replies included (≥ 1).
        max_message_tokens: Its tokens in one message at most (≥ 1); None for no other limit.
        device: Torch device.
        console: Where to print; None for nowhere.

    Returns:
        The episodes and their scores. The texts of a refused message are shown as they were written.

    Raises:
        CommandError: If an argument is wrong, the folder holds no such model or no tokenizer, or its context is too
            short.
    """
    check_counts(episodes, seed)
    if env_id is None:
        raise CommandError(f"--env must name the environment: {path} holds a language model, which knows none")
    for name, value in (("max-new-tokens", max_new_tokens), ("max-message-tokens", max_message_tokens)):
        if value is not None and value < 1:
            raise CommandError(f"--{name} must be at least 1, got {value}")
    if not 0 <= temperature < np.inf:
        raise CommandError(f"--temperature must be a finite number of at least 0, got {temperature}")
    env_id = checked_env_id(env_id)
    env = make_env(env_id, 1, seed, env_args or {})
    task = env.get_attr("task")[0]
    model, tokenizer = model_and_tokenizer(Path(path), device)
    with reward_errors():
        try:
            chat, write = _writer(model, tokenizer, temperature)
            context = getattr(model.config, "max_position_embeddings", None)

            def go_on(begun: list[Conversation]) -> None:
                play(begun, write, chat, max_new_tokens, max_message_tokens, context)

            with _random_stream(model, seed):
                flat = _play_all(task, episodes, seed, chat, go_on)
        except RewardError:
            raise
        except ValueError as error:
            raise CommandError(f"{path}: {one_line(error)}") from error
    env.close()
    result = EvaluationResult(
        np.array([one.conversation.episode_return for one in flat]),
        np.array([one.conversation.n_actions for one in flat], np.int64),
        [one.prompt for one in flat],
        [one.completion for one in flat],
    )
    scores = score(result, None if env_args else env_id)
    if console is not None:
        how = f"sampled at temperature {temperature:g}" if temperature else "greedy"
        refused = sum(one.conversation.refusal is not None for one in flat) / len(flat)
        title = (
            f"{path} on {described(env_id, env_args)}, {how}, seeds from {seed}; {refused:.0%} of the episodes refused"
        )
        print_report(console, title, result, scores)
    return result, scores


class _Played(NamedTuple):
    prompt: str
    conversation: Conversation
    completion: str


def _play_all(
    task: Task, episodes: int, seed: int, chat: ChatTokens, go_on: Callable[[list[Conversation]], None]
) -> list[_Played]:
    """Play as :func:`agents.double_dqn.evaluation.evaluate` does: each row its share, in its own random stream."""
    rows = [TextSteps(task) for _ in range(min(MOST_ROWS, episodes))]
    quota = quotas(episodes, len(rows))
    played: list[list[_Played]] = [[] for _ in rows]
    for turn in range(max(quota)):
        batch = [row for row in range(len(rows)) if turn < quota[row]]
        prompts = [rows[row].reset(seed=seed + row if turn == 0 else None) for row in batch]
        begun = []
        for row, prompt in zip(batch, prompts, strict=True):
            message = {"role": "user", "content": first_message(rows[row], prompt)}
            begun.append(Conversation(rows[row], chat.prompt([message])))
        go_on(begun)
        for row, prompt, one in zip(batch, prompts, begun, strict=True):
            played[row].append(_Played(prompt, one, _completion(one)))
    return [episode for row in played for episode in row]


def _writer(model: Any, tokenizer: Any, temperature: float) -> tuple[ChatTokens, Write]:
    """How messages are ids, and what writes them; the model's own habits in writing are taken from it."""
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    model.generation_config = GenerationConfig()  # it would fill in what is not given
    chat = ChatTokens(tokenizer, sorted(ends))
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else chat.ends[0]
    drawing = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    return chat, sampler(model, GenerationConfig(**drawing), pad_id, chat.ends)


@contextmanager
def _random_stream(model: Any, seed: int) -> Iterator[None]:
    """One of its own, in the place of torch's global one, which ``generate`` draws from."""
    import torch

    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _completion(one: Conversation) -> str:
    """What was written, as a line: in the task's own symbols, or as it is where these do not do."""
    if one.refusal is not None:
        return " ".join(one.texts).replace("\n", "⏎")
    info = one.steps.info
    start = int(info["is_action"].argmax())
    return one.steps.task.decode(info["tokens"][start:])


def model_and_tokenizer(folder: Path, device: str = "auto") -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer; nothing is downloaded, no code of theirs runs.

    Args:
        folder: What ``save_pretrained`` wrote: of ``transformers``, of PEFT, or of
            :class:`agents.pruning.PrunedTransformer`.
        device: Torch device.

    Raises:
        CommandError: If there is no such model, or no tokenizer.
    """
    from stable_baselines3.common.utils import get_device
    from transformers import AutoTokenizer

    base = _base_of(folder)
    _check_causal(base)
    place = next((one for one in (folder, base) if (one / TOKENIZER).is_file()), None)
    if place is None:
        raise CommandError(
            f"RUN_OR_MODEL must hold the language model's tokenizer, too, got {folder} without {TOKENIZER} "
            "(GRPOTrainer saves it if it is given as processing_class)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(place), local_files_only=True)
        model = _model(folder, base)
    except CommandError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors each fail in their own ways
        raise CommandError(f"the language model in {folder} can't be read: {one_line(error)[:300]}") from error
    return model.to(get_device(device)).eval(), tokenizer


def _model(folder: Path, base: Path) -> Any:
    model = pruned_model(base)
    if model is None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(str(base), local_files_only=True)
    if folder == base:
        return model
    try:
        peft = require("peft", "peft", f"the adapter in {folder}")
    except ModuleNotFoundError as error:
        raise CommandError(one_line(error)) from None
    return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def _base_of(folder: Path) -> Path:
    """Where the weights are that an adapter stands on; the folder itself where it is none."""
    if not (folder / ADAPTER).is_file():
        return folder
    try:
        named = json.loads((folder / ADAPTER).read_text("utf-8-sig"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CommandError(f"{folder / ADAPTER} can't be read: {one_line(error)[:200]}") from None
    if not isinstance(named, str) or not (Path(named) / CONFIG).is_file():
        raise CommandError(
            f"base_model_name_or_path in {folder / ADAPTER} must be a folder with a language model (nothing is "
            f"downloaded), got {named!r}"
        )
    return Path(named)


def _check_causal(folder: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        kinds = json.loads((folder / CONFIG).read_text("utf-8-sig")).get("architectures") or []
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CommandError(f"{folder / CONFIG} can't be read: {one_line(error)[:200]}") from None
    if not set(kinds) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        raise CommandError(
            f"RUN_OR_MODEL must hold a causal language model, such as LlamaForCausalLM, got {folder} with "
            f"{', '.join(map(str, kinds)) or 'no architecture'}"
        )
