"""The environments in the form that other frameworks ask for: each a thin face over :class:`TextSteps`.

Importing this package needs none of those frameworks.
"""

from textgym.adapters.gem import GEMEnvironment, register_gem
from textgym.adapters.minari import minari_rows, open_minari, write_minari
from textgym.adapters.text_steps import TextSteps
from textgym.adapters.trl import TRLEnvironment, environment_factory, seed_dataset

__all__ = [
    "GEMEnvironment",
    "TRLEnvironment",
    "TextSteps",
    "environment_factory",
    "minari_rows",
    "open_minari",
    "register_gem",
    "seed_dataset",
    "write_minari",
]
