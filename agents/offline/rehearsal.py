"""What keeps texts in mind while an agent goes on online: a part of every batch, with the loss that taught them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents.double_dqn.sequence_network import SequenceQNetwork
from agents.offline.losses import OfflineObjective, offline_loss
from agents.replay.episodes import EpisodeReplayBuffer

DEFAULT_SHARE = {"td": 0.0, "cql": 0.5, "ilql": 0.5, "mc": 0.0, "crr": 0.0, "bc": 0.0}
"""Part of a batch: half of it where a cross-entropy held the values of other actions down, else nothing.

Half is what RLPD takes (arXiv:2302.02948). Without the cross-entropy the texts would do no good: online, every other
action is then worth what the best one after it seems to be worth, which without a reward on the way is nearly as much
as the text's own, and the order of the actions is lost (measured in ``benchmarks/offline.py``).
"""


@dataclass
class Rehearsal:
    """Texts that every online update learns from again.

    Of a batch of n rows, round(``share`` · n) are texts, and its loss is ``1 - share`` of that of the environment's
    episodes and ``share`` of that of the texts: temporal-difference errors and, as in DQfD (arXiv:1704.03732), a term
    that keeps the demonstrated action on top, here the cross-entropy. It is saved with the model, and in checkpoints.

    Attributes:
        texts: The texts, on their own, so that no newer episode pushes them out; drawn uniformly.
        objective: What is learned from them.
        share: Part of a batch, in (0, 1).
    """

    texts: EpisodeReplayBuffer
    objective: OfflineObjective
    share: float

    def online_rows(self, batch_size: int) -> int:
        """Rows of a batch that are left for the environment's episodes (≥ 1)."""
        return max(1, batch_size - round(self.share * batch_size))

    def mix(
        self,
        online: Tensor,
        online_rows: int,
        q_net: SequenceQNetwork,
        target_net: SequenceQNetwork,
        normalizer: VecNormalize | None = None,
    ) -> Tensor:
        """The loss of a whole batch, a scalar.

        Args:
            online: Loss of the environment's episodes, a scalar.
            online_rows: Number of these.
            q_net: The network to train.
            target_net: The network that rates the next states.
            normalizer: Normalises the rewards, if given.
        """
        rows = max(1, round(online_rows * self.share / (1 - self.share)))
        rehearsed, _, _ = offline_loss(q_net, target_net, None, self.texts.sample(rows, normalizer), self.objective)
        return (1 - self.share) * online + self.share * rehearsed

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what is drawn next, as arrays and plain values."""
        return {
            "objective": asdict(self.objective),
            "share": self.share,
            "size": self.texts.buffer_size,
            "texts": self.texts.get_state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], replay: EpisodeReplayBuffer) -> Rehearsal:
        """What :meth:`get_state` gave, for a model with this replay."""
        texts = empty_texts(state["size"], replay)
        texts.set_state(state["texts"])
        return cls(texts, OfflineObjective(**state["objective"]), state["share"])


def empty_texts(size: int, replay: EpisodeReplayBuffer, seed: int | None = None) -> EpisodeReplayBuffer:
    """Room for texts of so many actions, drawn uniformly, beside a model's replay."""
    spaces = replay.observation_space, replay.action_space
    return EpisodeReplayBuffer(size, *spaces, replay.device, prioritized=False, seed=seed)
