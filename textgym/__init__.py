"""TextGym: reinforcement learning of text generation at token level, as Gymnasium environments.

Importing the package registers every id, so ``gymnasium.make("TextGen-v0")`` works afterwards;
``gymnasium.make("textgym:TextGen-v0")`` does both.
"""

from textgym.demonstrations import Demonstration, demonstrations
from textgym.env import TextGenEnv
from textgym.registration import References, env_ids, references, register_all
from textgym.spaces import TokenSequence, sequence_lengths
from textgym.tasks import Task, make_task
from textgym.vector_env import TextGenVectorEnv

__version__ = "0.1.0"

__all__ = [
    "Demonstration",
    "References",
    "Task",
    "TextGenEnv",
    "TextGenVectorEnv",
    "TokenSequence",
    "demonstrations",
    "env_ids",
    "make_task",
    "references",
    "register_all",
    "sequence_lengths",
]

register_all()
