"""The engines by their names; Ray is imported where it is asked for."""

from __future__ import annotations

from agents.distributed.engines import Engine, ThreadEngine

ENGINES = ("threads", "ray")


def make_engine(name: str, n_actors: int, address: str | None, cpus: float, n_learners: int) -> Engine:
    """An engine; see :class:`agents.distributed.Actors` for the arguments.

    Raises:
        ValueError: If there is none of the name, it takes no address, or Ray is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "threads":
        if address is not None:
            raise ValueError(f"address must be None for the engine 'threads', got {address!r}")
        return ThreadEngine()
    from agents.distributed.ray import RayEngine

    return RayEngine(n_actors, address, cpus, n_learners)
