"""How the agent chooses while it learns: ε-greedy, Boltzmann, by odds and UCB, each for a whole batch of rows at once.

An explorer sees action values and, if it counts visits, a key of the context in which each row stands. All randomness
comes from the generator that is passed in; counts are plain attributes, so they are pickled along with the agent.
"""

from __future__ import annotations

from typing import Any

from agents.exploration.base import Exploration, linear_schedule
from agents.exploration.counts import ContextUCB
from agents.exploration.ensemble import EnsembleUCB
from agents.exploration.keys import SimHash, context_keys
from agents.exploration.undirected import Boltzmann, EpsilonGreedy, OddsMatching

__all__ = [
    "EXPLORATIONS",
    "Boltzmann",
    "ContextUCB",
    "EnsembleUCB",
    "EpsilonGreedy",
    "Exploration",
    "OddsMatching",
    "SimHash",
    "check_exploration",
    "context_keys",
    "linear_schedule",
    "make_exploration",
]

EXPLORATIONS: dict[str, type[Exploration]] = {
    "epsilon": EpsilonGreedy,
    "boltzmann": Boltzmann,
    "ucb": ContextUCB,
    "ensemble_ucb": EnsembleUCB,
}


def make_exploration(exploration: str | Exploration, **kwargs: Any) -> Exploration:
    """Build an explorer from its name, or pass one through.

    Args:
        exploration: `"epsilon"`, `"boltzmann"`, `"ucb"`, `"ensemble_ucb"`, or an `Exploration`.
        **kwargs: Arguments of the named explorer's constructor.

    Raises:
        ValueError: If the name is unknown, or arguments come with an explorer that is built already.
    """
    if isinstance(exploration, Exploration):
        if kwargs:
            raise ValueError(f"arguments {sorted(kwargs)} need exploration to be a name, got {exploration!r}")
        return exploration
    check_exploration(exploration)
    return EXPLORATIONS[exploration](**kwargs)


def check_exploration(exploration: Any) -> None:
    """Raise ``ValueError`` unless it is an `Exploration` or the name of one."""
    if not isinstance(exploration, Exploration) and exploration not in tuple(EXPLORATIONS):
        raise ValueError(f"exploration must be one of {sorted(EXPLORATIONS)} or an Exploration, got {exploration!r}")
