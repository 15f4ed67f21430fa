import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from agents.double_dqn.targets import (
    double_q_values,
    lower_bound_targets,
    masked_argmax,
    max_q_values,
    monte_carlo_returns,
    n_step_targets,
    q_lambda_targets,
    td_loss,
)

NAN = float("nan")
# Three episodes: terminated after 4 actions, truncated after 2, terminated after 1. Padding is NaN throughout.
R_T = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, NAN, NAN], [5.0, NAN, NAN, NAN]])
V_TP1 = torch.tensor([[10.0, 20.0, 30.0, 99.0], [10.0, 20.0, NAN, NAN], [99.0, NAN, NAN, NAN]])
VALID = ~R_T.isnan()
TERMINATED = torch.tensor([True, False, True])
RETURNS = [[3.25, 4.5, 5.0, 4.0], [2.0, 2.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [[6.0, 12.0, 18.0, 4.0], [6.0, 12.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]),
        # 1 + 2/2 + 20/4; 2 + 3/2 + 30/4; 3 + 4/2; 4 | 1 + 2/2 + 20/4; 2 + 20/2 | 5
        (2, [[7.0, 11.0, 5.0, 4.0], [7.0, 12.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]),
        # 1 + 2/2 + 3/4 + 30/8; 2 + 3/2 + 4/4
        (3, [[6.5, 4.5, 5.0, 4.0], [7.0, 12.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]),
        (99, [[3.25, 4.5, 5.0, 4.0], [7.0, 12.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]),
    ],
)
def test_n_step_targets(n: int, expected: list[list[float]]) -> None:
    assert_close(n_step_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, n), torch.tensor(expected))


@pytest.mark.parametrize("n", [1, 3])
def test_a_discount_of_zero_leaves_the_reward(n: int) -> None:
    rewards = torch.where(VALID, R_T, 0.0)
    assert_close(n_step_targets(R_T, V_TP1, VALID, TERMINATED, 0.0, n), rewards)
    assert_close(q_lambda_targets(R_T, V_TP1, VALID, TERMINATED, 0.0, 0.7), rewards)
    assert_close(monte_carlo_returns(R_T, VALID, 0.0), rewards)


def test_monte_carlo_returns() -> None:
    assert_close(monte_carlo_returns(R_T, VALID, 0.5), torch.tensor(RETURNS))


def test_q_lambda_of_zero_is_one_step() -> None:
    one_step = n_step_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 1)
    assert_close(q_lambda_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 0.0), one_step)


def test_q_lambda_of_one_is_the_return_and_bootstraps_where_truncated() -> None:
    targets = q_lambda_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 1.0)
    assert_close(targets, n_step_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 4))
    assert_close(targets[0], torch.tensor(RETURNS[0]))


def test_q_lambda_mixes() -> None:
    # Backwards: 4; 3 + .5(.5*30 + .5*4) = 11.5; 2 + .5(.5*20 + .5*11.5) = 9.875; 1 + .5(.5*10 + .5*9.875) = 5.96875.
    expected = [[5.96875, 9.875, 11.5, 4.0], [6.5, 12.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]
    assert_close(q_lambda_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 0.5), torch.tensor(expected))


def test_watkins_cuts_where_the_next_action_was_not_greedy() -> None:
    greedy = torch.ones_like(VALID)
    greedy[0, 1] = False  # the third action explored: the second's target must not look past it
    targets = q_lambda_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 1.0, greedy)
    assert_close(targets[0], torch.tensor([1.0 + 0.5 * 12.0, 12.0, 5.0, 4.0]))
    assert_close(targets[1], torch.tensor([7.0, 12.0, 0.0, 0.0]))


def test_lower_bound_raises_terminated_episodes_only() -> None:
    targets = torch.tensor([[0.0, 9.0, 0.0, 9.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[3.25, 9.0, 5.0, 9.0], [0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]])
    assert_close(lower_bound_targets(targets, R_T, VALID, TERMINATED, 0.5), expected)


def test_values_of_next_states_respect_masks() -> None:
    q_online = torch.tensor([[[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]]])  # (1, 2, 3)
    q_target = torch.tensor([[[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]])
    mask = torch.tensor([[[True, False, True], [False, False, False]]])
    assert masked_argmax(q_online).tolist() == [[1, 2]]
    assert masked_argmax(q_online, mask)[0, 0] == 2
    assert_close(double_q_values(q_online, q_target), torch.tensor([[20.0, 60.0]]))
    assert_close(double_q_values(q_online, q_target, mask), torch.tensor([[30.0, 0.0]]))
    assert_close(max_q_values(q_target), torch.tensor([[30.0, 60.0]]))
    assert_close(max_q_values(q_online, mask), torch.tensor([[2.0, 0.0]]))


def test_targets_carry_no_gradient() -> None:
    q = torch.rand(1, 2, 3, requires_grad=True)
    r_t, valid, terminated = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor([False])
    values = double_q_values(q, q)
    assert not values.requires_grad
    live = q.amax(dim=-1)
    for target in (
        max_q_values(q),
        n_step_targets(r_t, live, valid, terminated, 0.9, 2),
        q_lambda_targets(r_t, live, valid, terminated, 0.9, 0.5),
        lower_bound_targets(live, r_t, valid, terminated, 0.9),
    ):
        assert not target.requires_grad


def test_loss_is_the_mean_over_valid_actions() -> None:
    q_t = torch.tensor([[0.0, 1.0], [2.0, NAN]], requires_grad=True)
    target = torch.tensor([[0.5, 4.0], [2.0, NAN]])
    valid = torch.tensor([[True, True], [True, False]])
    loss, errors = td_loss(q_t, target, valid)
    # Huber: 0.5 * 0.25 + (3 - 0.5) + 0, over three actions.
    assert_close(loss, torch.tensor(2.625 / 3))
    assert_close(errors, torch.tensor([[0.5, 3.0], [0.0, 0.0]]))
    assert not errors.requires_grad
    loss.backward()
    assert_close(q_t.grad, torch.tensor([[-0.5 / 3, -1.0 / 3], [0.0, 0.0]]))
    assert_close(td_loss(q_t, target, valid, kind="mse")[0], torch.tensor((0.125 + 4.5) / 3))
    assert_close(td_loss(q_t, target, valid, delta=0.1)[0], torch.tensor((0.1 * 0.45 + 0.1 * 2.95) / 3))


def test_importance_weights_scale_rows_or_elements() -> None:
    q_t, target = torch.zeros(2, 2), torch.full((2, 2), 0.5)
    valid = torch.ones(2, 2, dtype=torch.bool)
    assert_close(td_loss(q_t, target, valid, torch.tensor([1.0, 0.5]))[0], torch.tensor(0.125 * 3 / 4))
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert_close(td_loss(q_t, target, valid, weights)[0], torch.tensor(0.125 * 2 / 4))


def test_nothing_valid_gives_a_loss_of_zero_and_zero_gradient() -> None:
    q_t = torch.full((2, 3), NAN, requires_grad=True)
    loss, errors = td_loss(q_t, torch.full((2, 3), NAN), torch.zeros(2, 3, dtype=torch.bool), torch.ones(2))
    loss.backward()
    assert loss.item() == 0.0
    assert_close(q_t.grad, torch.zeros(2, 3))
    assert_close(errors, torch.zeros(2, 3))
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    for targets in (
        n_step_targets(R_T, V_TP1, nothing, TERMINATED, 0.5, 2),
        q_lambda_targets(R_T, V_TP1, nothing, TERMINATED, 0.5, 0.5),
        monte_carlo_returns(R_T, nothing, 0.5),
    ):
        assert_close(targets, torch.zeros(3, 4))


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(3, 5), torch.zeros(1, 4)])
def test_shapes_are_checked(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="v_tp1 must have shape"):
        n_step_targets(R_T, wrong, VALID, TERMINATED, 0.5, 1)
    with pytest.raises(ValueError, match="target must have shape"):
        td_loss(R_T, wrong, VALID)
    with pytest.raises(ValueError, match="targets must have shape"):
        lower_bound_targets(wrong, R_T, VALID, TERMINATED, 0.5)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        n_step_targets(R_T, V_TP1, VALID, TERMINATED, 0.5, 0)
    with pytest.raises(ValueError, match="terminated must have shape"):
        n_step_targets(R_T, V_TP1, VALID, TERMINATED[:2], 0.5, 1)
    with pytest.raises(ValueError, match="valid must be a bool tensor"):
        monte_carlo_returns(R_T, VALID.float(), 0.5)
    with pytest.raises(ValueError, match="weights must have shape"):
        td_loss(R_T, V_TP1, VALID, torch.ones(4))
    with pytest.raises(ValueError, match="kind must be 'huber' or 'mse', got 'l1'"):
        td_loss(R_T, V_TP1, VALID, kind="l1")
    with pytest.raises(ValueError, match="mask must have shape"):
        masked_argmax(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool))
