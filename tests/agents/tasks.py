"""Small tasks that the agents' tests share."""

import numpy as np

from textgym.tasks.base import Replies
from textgym.tasks.reverse import Reverse


class OddTokens(Reverse):
    """Reverse of two symbols of four in which, after the first action, only odd tokens and EOS are legal."""

    masked = True

    def __init__(self):
        super().__init__(length=2, vocab_size=4)

    def allowed(self, episodes):
        odd_or_eos = np.array([False, True, False, True, True])
        return np.where(episodes.steps[:, None] >= 1, odd_or_eos, True)


class Echo(Reverse):
    """Reverse of two symbols of four, in which the environment repeats every action (a multi-turn task)."""

    def __init__(self):
        super().__init__(length=2, vocab_size=4)
        self.context_length = 2 + 2 * self.max_new_tokens

    def final_reward(self, episodes):
        return None

    def reply(self, episodes, actions):
        return Replies(actions[:, None], np.ones(len(actions), np.int64))


class Secret(Reverse):
    """A task that says that its observation does not determine its rewards."""

    deterministic = False
