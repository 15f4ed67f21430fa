"""What Q(s_t, a_t) should have been: pure functions of whole episodes.

Every array is a row per episode and a column per action, shape (B, T). The suffix is the time: `r_t` is the reward of
action t, and `v_tp1[:, t]` the value of the state that action t led to. `valid` marks the actions that were taken; in
each row they come first, the padding after. `terminated` (B,) says that the episode ended by the rules of its task, so
that nothing follows; otherwise it was cut off from outside and its last state keeps its value. Targets carry no
gradient, and are 0 where `valid` is false.
"""

from agents.double_dqn.targets.losses import cross_entropy_loss, td_cross_entropy, td_loss
from agents.double_dqn.targets.returns import (
    double_q_values,
    lower_bound_targets,
    masked_argmax,
    max_q_values,
    monte_carlo_returns,
    n_step_targets,
    q_lambda_targets,
)

__all__ = [
    "cross_entropy_loss",
    "double_q_values",
    "lower_bound_targets",
    "masked_argmax",
    "max_q_values",
    "monte_carlo_returns",
    "n_step_targets",
    "q_lambda_targets",
    "td_cross_entropy",
    "td_loss",
]
