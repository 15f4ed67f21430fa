import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from agents import DoubleDQN
from agents.double_dqn.heads import QHead

D, V = 8, 11


def made(k: int, dueling: bool = True, std: float | None = None) -> QHead:
    """A head with reproducible weights and, if `std` is given, biases that are not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = QHead(D, V, dueling, k)
        if std is not None:
            for parameter in head.parameters():
                torch.nn.init.normal_(parameter, std=std)
    return head


def sampled(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, actions and masks of states."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(*shape, V, generator=generator) < 0.4
    masks[..., 3] = True
    actions = torch.randint(V, shape, generator=generator)
    return torch.randn(*shape, D, generator=generator), actions, masks


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_every_way_to_read_the_values_agrees(k: int, dueling: bool, shape: tuple[int, ...]) -> None:
    head = made(k, dueling, std=1.0)
    features, actions, masks = sampled(*shape)
    every = head.ensemble(features)
    assert every.shape == (*shape, k, V)
    assert_close(head(features), every.mean(dim=-2))
    chosen = every.gather(-1, actions[..., None, None].expand(*shape, k, 1)).squeeze(-1)
    assert_close(head.of_ensemble(features, actions), chosen)
    assert_close(head.of(features, actions), chosen.mean(dim=-1))

    legal = every.masked_fill(~masks.unsqueeze(-2), -torch.inf)
    own = head.greedy_ensemble(features, masks)
    assert torch.equal(own, legal.argmax(dim=-1))
    assert_close(head.of_ensemble(features, own), legal.amax(dim=-1))
    assert torch.equal(head.greedy_ensemble(features), every.argmax(dim=-1))
    assert torch.equal(head.greedy(features, masks), legal.mean(dim=-2).argmax(dim=-1))
    assert torch.equal(head.greedy(features), head(features).argmax(dim=-1))


@pytest.mark.parametrize("dueling", [True, False])
def test_each_head_of_an_ensemble_is_a_head(dueling: bool) -> None:
    ensemble = made(3, dueling, std=1.0)
    features, actions, _ = sampled(6)
    for k in range(3):
        single = QHead(D, V, dueling)
        state = {name: value.unflatten(0, (3, -1))[k] for name, value in ensemble.state_dict().items()}
        single.load_state_dict(state)
        assert_close(single(features), ensemble.ensemble(features)[:, k])
        assert_close(single.of(features, actions), ensemble.of_ensemble(features, actions)[:, k])


def test_an_ensemble_of_one_is_the_plain_head_bit_for_bit() -> None:
    head = made(1, std=1.0)
    features, actions, _ = sampled(3, 4)
    assert list(head.state_dict()) == ["advantage.weight", "advantage.bias", "value.weight", "value.bias"]
    assert [tuple(value.shape) for value in head.state_dict().values()] == [(V, D), (V,), (1, D), (1,)]
    assert torch.equal(head.ensemble(features)[..., 0, :], head(features))
    assert torch.equal(head.of_ensemble(features, actions)[..., 0], head.of(features, actions))
    assert torch.equal(head.of_ensemble(features, actions.unsqueeze(-1))[..., 0], head.of(features, actions))


@pytest.mark.parametrize("dueling", [True, False])
def test_heads_disagree_at_the_start_about_every_action_and_values_are_small(dueling: bool) -> None:
    features, _, _ = sampled(100)
    values = made(5, dueling).ensemble(features)
    # Weights of std 0.01 on D features of variance 1, seen by an estimate of the deviation from 5 heads.
    spread = values.std(dim=1)
    assert spread.min() > 0
    assert 0.5 < spread.square().mean().sqrt().item() / (0.01 * D**0.5) < 2
    assert values.abs().max() < 0.3


def test_heads_agree_where_they_learned_and_only_there() -> None:
    head = made(5)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    known, unknown = torch.eye(D)[:4], torch.eye(D)[4:]
    targets = torch.linspace(0, 1, V).expand(4, V)
    before = head.ensemble(unknown).std(dim=1).mean()
    for _ in range(200):
        loss = (head.ensemble(known) - targets.unsqueeze(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert head.ensemble(known).std(dim=1).max() < 1e-3
    assert head.ensemble(unknown).std(dim=1).mean() > 0.9 * before


def test_reading_one_action_reaches_only_its_weights_where_nothing_else_matters() -> None:
    head = made(2, dueling=False)
    features, _, _ = sampled(1)
    head.of_ensemble(features, torch.tensor([[4, 7]])).sum().backward()
    touched = head.advantage.weight.grad
    assert touched is not None
    assert touched.abs().sum(dim=1).nonzero().flatten().tolist() == [4, V + 7]


def test_the_size_of_the_ensemble_is_checked() -> None:
    with pytest.raises(ValueError, match="n_ensemble must be at least 1, got 0"):
        QHead(D, V, n_ensemble=0)


@pytest.mark.parametrize("k", [1, 2])
def test_a_head_that_starts_from_embeddings_rates_what_the_features_hold(k: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head, embeddings = QHead(16, 5, n_ensemble=k), torch.nn.init.orthogonal_(torch.empty(7, 16))
    head.start_from(embeddings)
    values = head.ensemble(embeddings[:5])  # (5, K, V)
    assert (values.argmax(dim=-1) == torch.arange(5)[:, None]).all()
    assert k == 1 or (values[:, 0] != values[:, 1]).all()


def test_the_head_of_a_mimetic_encoder_starts_so_in_both_networks() -> None:
    for mimetic in (False, True):
        model = DoubleDQN("TransformerPolicy", "TextGen/StarGraph-Easy-v0", policy_kwargs={"mimetic": mimetic}, seed=0)
        for network in (model.policy.q_net, model.policy.q_net_target):
            embeddings = network.encoder.token_embedding.weight[: network.head.n_actions]
            started = (network.head.advantage.weight - 0.3 * embeddings).abs().max() < 0.1
            assert started == mimetic
