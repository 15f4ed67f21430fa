"""The environments in the form that other frameworks ask for, each a thin face over :class:`TextSteps`; their games.

Importing this package needs none of those frameworks.
"""

from textgym.adapters.gem import GEMEnvironment, register_gem
from textgym.adapters.minari import minari_rows, open_minari, write_minari
from textgym.adapters.openenv import openenv_app, openenv_server
from textgym.adapters.text_games import TextGame, from_gem, from_textarena
from textgym.adapters.text_steps import TextSteps
from textgym.adapters.trl import TRLEnvironment, environment_factory, seed_dataset
from textgym.adapters.trl_rollouts import TokenRollouts
from textgym.adapters.verifiers import verifiers_environment

__all__ = [
    "GEMEnvironment",
    "TRLEnvironment",
    "TextGame",
    "TextSteps",
    "TokenRollouts",
    "environment_factory",
    "from_gem",
    "from_textarena",
    "minari_rows",
    "open_minari",
    "openenv_app",
    "openenv_server",
    "register_gem",
    "seed_dataset",
    "verifiers_environment",
    "write_minari",
]
