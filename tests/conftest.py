"""One thread a test process (two run side by side), and no look at any model hub."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def textgym(capsys):
    """Run a command line of ``textgym`` in this process; returns its exit code, output and errors."""

    def call(*arguments):
        from agents.application.cli import main

        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call
