"""``python -m benchmarks.cell DEFINITION PATH``: one cell in a process of its own, which ends with its parent."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path


def exit_with_parent() -> None:
    """End this process as soon as the one that started it has gone, however that was.

    Its standard input is a pipe whose other end only the parent has. Nothing is ever written to it, and the system
    closes it when the parent ends, even by SIGKILL: no polling, and nothing that only Linux has.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="exit-with-parent", daemon=True).start()


def main(definition: str, path: Path) -> None:
    """Run one cell, given as JSON, with one thread, and add its result to a file."""
    # Here, because importing PyTorch takes seconds, in which a parent may die as well.
    import torch

    from agents.saving.json_lines import append
    from benchmarks.cells import Cell
    from benchmarks.learning import run_cell

    torch.set_num_threads(1)
    append(path, run_cell(Cell(**json.loads(definition))))


if __name__ == "__main__":
    exit_with_parent()
    main(sys.argv[1], Path(sys.argv[2]))
