"""One run on many machines: actors hold environments and a copy of the network, the learner everything else."""

from agents.distributed.actors import ENGINES, Actors
from agents.distributed.engines import ActorDied

__all__ = ["ENGINES", "ActorDied", "Actors"]
