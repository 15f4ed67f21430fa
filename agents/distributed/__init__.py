"""One run on many machines: actors hold environments and a copy of the network, learners everything else."""

from agents.distributed.actors import ENGINES, Actors
from agents.distributed.engines import ActorDied
from agents.distributed.processes import LearnerDied

__all__ = ["ENGINES", "ActorDied", "Actors", "LearnerDied"]
