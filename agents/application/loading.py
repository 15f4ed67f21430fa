"""Loading a model, whatever form it is kept in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agents.double_dqn import DoubleDQN
from agents.saving.arguments import one_line
from agents.saving.checkpoint import load_checkpointed
from agents.saving.export import ModelFileError, load
from agents.saving.files import CommandError
from agents.saving.state_file import StateFileError

if TYPE_CHECKING:
    pass


def load_model(
    path: str | Path, device: str = "auto", trust: bool = False, language_model: str | Path | None = None
) -> DoubleDQN:
    """Load a model that ``textgym train``, ``textgym export`` or ``DoubleDQN.save`` wrote.

    Args:
        path: An exported folder or a checkpoint, which hold numbers only; or a zip.
        device: Torch device.
        trust: Whether to open a zip: it holds pickled objects, and to unpickle is to run whatever code it brings.
        language_model: Where the language model is now whose head this is; None for where it was.

    Raises:
        CommandError: If the file is no such model, or damaged, or a zip that is not trusted.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return load(path, device, language_model)
        if path.suffix == ".safetensors":
            return load_checkpointed(path, device, language_model)
    except (ModelFileError, StateFileError) as error:
        raise CommandError(one_line(error)) from error
    if not trust:
        raise CommandError(
            f"model file {path} may hold pickled objects, which run code when they are opened; --trust opens it all "
            "the same ('textgym validate', 'textgym export'); what 'textgym export' writes is safe to open"
        )
    try:
        return DoubleDQN.load(path, device=device, language_model=language_model)
    except Exception as error:  # zip, JSON, pickle and torch each fail in their own ways on damaged bytes
        reason = (str(error).splitlines() or [""])[0]
        raise CommandError(
            f"model file {path} must be a DoubleDQN saved as .zip; it can't be read: {type(error).__name__}: {reason}"
        ) from error
