"""``python -m agents.train`` is ``textgym train``; in Python, :func:`train` is the work behind it."""

from agents.application.train import TrainResult, resume_run, train
from agents.saving.settings import TrainSettings, resolve_settings

__all__ = ["TrainResult", "TrainSettings", "resolve_settings", "resume_run", "train"]

if __name__ == "__main__":
    import sys

    from agents.application.cli import main

    main(["train", *sys.argv[1:]])
