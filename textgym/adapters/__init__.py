"""The environments in the form that other frameworks ask for: each a thin face over :class:`TextSteps`.

Importing this package needs none of those frameworks.
"""

from textgym.adapters.minari import minari_rows, open_minari, write_minari
from textgym.adapters.text_steps import TextSteps

__all__ = ["TextSteps", "minari_rows", "open_minari", "write_minari"]
