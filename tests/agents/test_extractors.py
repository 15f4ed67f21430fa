"""The extractor reads what Stable-Baselines3 hands it, and its algorithms run with it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.preprocessing import preprocess_obs

from agents.representations.extractors import (
    CausalEncoderExtractor,
    GRUExtractor,
    PerformerExtractor,
    TransformerExtractor,
)
from textgym.spaces import TokenSequence

SPACE = TokenSequence(context_length=8, vocab_size=4, pad_id=5)
SMALL: dict[str, Any] = {"features_dim": 8, "n_layers": 1, "n_heads": 2, "n_random_features": 4}
EXTRACTORS: dict[type[CausalEncoderExtractor], dict[str, Any]] = {
    PerformerExtractor: SMALL,
    TransformerExtractor: {"features_dim": 8, "n_layers": 1, "n_heads": 2},
    GRUExtractor: {"features_dim": 8, "n_layers": 1},
}
every_extractor = pytest.mark.parametrize("extractor_class", EXTRACTORS)


def policy(extractor_class: type[CausalEncoderExtractor]) -> dict[str, Any]:
    return {
        "features_extractor_class": extractor_class,
        "features_extractor_kwargs": EXTRACTORS[extractor_class],
        "net_arch": [],
    }


class RepeatToken(gym.Env[np.ndarray, int]):
    """Reward 1 for each action that repeats the last token; seven actions an episode."""

    observation_space = SPACE
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.tokens = [int(self.np_random.integers(4))]
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(action == self.tokens[-1])
        self.tokens.append(int(action))
        return self._observe(), reward, len(self.tokens) == 8, False, {}

    def action_masks(self) -> np.ndarray:
        return np.ones(4, dtype=bool)

    def _observe(self) -> np.ndarray:
        return np.array(self.tokens + [5] * (8 - len(self.tokens)), dtype=np.int32)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(extractor_class: type[CausalEncoderExtractor], space: spaces.Space[Any] = SPACE) -> CausalEncoderExtractor:
    return extractor_class(space, **EXTRACTORS[extractor_class])


def random_rows(lengths: list[int]) -> torch.Tensor:
    rows = torch.full((len(lengths), 8), 5)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = torch.randint(0, 5, (length,))
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
@every_extractor
def test_features_are_those_of_the_last_token(
    extractor_class: type[CausalEncoderExtractor], dtype: torch.dtype
) -> None:
    extractor = make(extractor_class)
    rows = random_rows([3, 8, 1])
    features = extractor(rows.to(dtype))
    assert features.shape == (3, 8)
    expected = extractor.encoder(rows)[torch.arange(3), torch.tensor([2, 7, 0])]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    assert extractor.features_dim == 8


@every_extractor
def test_only_the_columns_in_use_are_computed(extractor_class: type[CausalEncoderExtractor]) -> None:
    extractor = make(extractor_class)
    widths: list[int] = []
    extractor.encoder.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    extractor(random_rows([3, 5, 1]))
    assert widths == [5]


@every_extractor
def test_row_of_padding_alone(extractor_class: type[CausalEncoderExtractor]) -> None:
    features = make(extractor_class)(random_rows([0, 0]))
    assert features.shape == (2, 8)
    assert features.isfinite().all()


@every_extractor
def test_gradients_reach_every_weight(extractor_class: type[CausalEncoderExtractor]) -> None:
    extractor = make(extractor_class)
    extractor(random_rows([8, 4]).float())[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in extractor.parameters())


@every_extractor
def test_plain_box_is_read_like_a_token_sequence(extractor_class: type[CausalEncoderExtractor]) -> None:
    box = spaces.Box(0, 5, (8,), np.int64)
    extractor = make(extractor_class, box)
    assert (extractor.encoder.vocab_size, extractor.encoder.pad_id, extractor.encoder.context_length) == (6, 5, 8)
    as_sb3_hands_it = preprocess_obs(torch.tensor(box.sample()[None]), box)
    assert as_sb3_hands_it.dtype == torch.float32
    assert extractor(as_sb3_hands_it).shape == (1, 8)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.Box(0, 1, (8,), np.float32),
        spaces.Box(0, 5, (8, 2), np.int32),
        spaces.Box(-1, 5, (8,), np.int32),
        spaces.Box(np.zeros(2, np.int32), np.array([3, 4], np.int32), dtype=np.int32),
    ],
)
@every_extractor
def test_other_spaces_are_refused(extractor_class: type[CausalEncoderExtractor], space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match="observation_space must be a TokenSequence or an integer Box"):
        extractor_class(space)


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO])
@every_extractor
def test_on_policy_algorithms_learn_a_step(extractor_class: type[CausalEncoderExtractor], algorithm: type[Any]) -> None:
    model = algorithm(
        "MlpPolicy", RepeatToken(), policy_kwargs=policy(extractor_class), n_steps=64, seed=0, device="cpu"
    )
    before = model.policy.features_extractor.encoder.token_embedding.weight.detach().clone()
    model.learn(64)
    assert not torch.equal(model.policy.features_extractor.encoder.token_embedding.weight, before)


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
def test_target_network_keeps_the_projections_of_the_online_network(algorithm: type[Any]) -> None:
    model = algorithm(
        "MlpPolicy",
        RepeatToken(),
        policy_kwargs=policy(PerformerExtractor),
        buffer_size=300,
        learning_starts=20,
        target_update_interval=50,
        seed=0,
        device="cpu",
    )
    net = "q_net" if algorithm is DQN else "quantile_net"
    online, target = getattr(model.policy, net), getattr(model.policy, f"{net}_target")
    before = online.features_extractor.encoder.token_embedding.weight.detach().clone()
    model.learn(200)
    assert not torch.equal(online.features_extractor.encoder.token_embedding.weight, before)
    projections = list(online.features_extractor.encoder.buffers())
    assert len(projections) == 1
    for mine, theirs in zip(projections, target.features_extractor.encoder.buffers(), strict=True):
        assert mine is not theirs
        assert torch.equal(mine, theirs)


@every_extractor
def test_saved_and_loaded_policy_predicts_the_same(
    extractor_class: type[CausalEncoderExtractor], tmp_path: Any
) -> None:
    model = DQN("MlpPolicy", RepeatToken(), policy_kwargs=policy(extractor_class), buffer_size=10, device="cpu")
    model.save(tmp_path / "model")
    rows = random_rows([1, 4, 8, 6]).int().numpy()
    loaded = DQN.load(tmp_path / "model", device="cpu")
    expected = model.q_net(torch.as_tensor(rows))
    torch.testing.assert_close(loaded.q_net(torch.as_tensor(rows)), expected, atol=0, rtol=0)
