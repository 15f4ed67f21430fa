"""Learning from text on transitions, by way of any encoder, and with a language model as the trunk."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import textgym
from agents import (
    DoubleDQN,
    PrunedTransformer,
    StateAutoEncoder,
    StateEmbedding,
    StateEmbeddingExtractor,
    TextGenVecEnv,
    VectorEmbedObservation,
    learn_from_text,
    make_vec_env,
)
from agents.offline.episodes import text_to_episodes
from agents.offline.learner import TextCheckpoints
from agents.offline.transitions import store_transitions
from agents.saving.checkpoint_folder import CheckpointFolder, TrainingInterrupted
from agents.saving.state_file import differences
from tests.agents.test_language_models import echo, make
from tests.agents.tiny_language_models import save_bert, save_llama
from textgym import TextGenVectorEnv

ENV, ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 4}
SHOWN = textgym.demonstrations(ENV, n=200, error_rate=0.3, **ARGS)
FIRST = next(iter(SHOWN))


def make_mlp(n_envs=1, extractor=None, env=None, width=32, **options):
    policy = {"net_arch": [width]}
    if extractor is not None:
        policy |= {"features_extractor_class": StateEmbeddingExtractor, "features_extractor_kwargs": extractor}
    env = make_vec_env(ENV, n_envs, seed=0, env_kwargs=ARGS) if env is None else env
    given = {"learning_rate": 3e-3, "learning_starts": 0, "buffer_size": 4_000, "seed": 0, "device": "cpu", **options}
    return DoubleDQN("MlpPolicy", env, policy_kwargs=policy, **given)


def share_of_right_tokens(model):
    """Of the oracle's tokens on fresh prompts."""
    rows, right = [], []
    for one in textgym.demonstrations(ENV, n=64, seed=5_000, **ARGS):
        text = [*one.prompt_tokens.tolist(), *one.completion_tokens.tolist()]
        for place in range(len(one.prompt_tokens), len(text)):
            row = np.full(model.observation_space.shape[0], model.observation_space.pad_id)
            row[:place] = text[:place]
            rows.append(row)
            right.append(text[place])
    chosen, _ = model.predict(np.stack(rows), deterministic=True, action_masks=np.ones((len(rows), 5), bool))
    return (chosen == right).mean()


# ---------------------------------------------------------------------------------------------- transitions


@pytest.mark.parametrize("n_envs", [1, 3])
def test_transitions_are_what_the_environment_shows(n_envs):
    """Stored texts, and the same texts played step by step: equal transitions in replay."""
    model = make_mlp(n_envs)
    task = model.env.get_attr("task")[0]
    seven = textgym.demonstrations(ENV, n=7, error_rate=0.3, **ARGS)
    episodes = text_to_episodes(seven, task)
    store_transitions(model, episodes)
    replay = model.replay_buffer
    stored = {
        (
            *map(bytes, (replay.observations[i, e], replay.next_observations[i, e])),
            int(replay.actions[i, e, 0]),
            float(replay.rewards[i, e]),
            float(replay.dones[i, e]),
        )
        for i in range(replay.pos)
        for e in range(n_envs)
    }
    played = set()
    for number in range(7):
        envs = TextGenVectorEnv(1, task)
        before, _ = envs.reset(seed=seven.seed + number)
        positions = episodes.action_positions[number, : episodes.n_actions[number]]
        for action in episodes.tokens[number, positions].tolist():
            after, reward, terminated, _, infos = envs.step([action])
            shown = infos["final_obs"] if terminated[0] else after
            rows = (bytes(row[0].astype(np.int32)) for row in (before, shown))
            played.add((*rows, action, float(np.float32(reward[0])), float(terminated[0])))
            before = after
    assert stored == played


def test_a_text_that_was_cut_keeps_the_value_of_its_last_state():
    model = make_mlp()
    task = model.env.get_attr("task")[0]
    rows = [{"prompt": "a b", "completion": "b a", "reward": 1.0, "terminated": False}]
    rows[0] |= {"prompt_tokens": FIRST.prompt_tokens, "completion_tokens": FIRST.completion_tokens}
    store_transitions(model, text_to_episodes(rows, task))
    batch = model.replay_buffer.sample(16)
    assert not batch.dones.any()


@pytest.mark.parametrize("objective", ["cql", "crr"])
@pytest.mark.filterwarnings("ignore:objective 'crr' leaves")
def test_one_seed_is_one_result_and_global_generators_are_left_alone(objective):
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    expected = torch.rand(1), np.random.random()  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    one, two = make_mlp(), make_mlp()
    for model in (one, two):
        learn_from_text(model, SHOWN, objective=objective, steps=20)
    assert (torch.rand(1), np.random.random()) == expected  # noqa: NPY002
    for a, b in zip(one.q_net.parameters(), two.q_net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loader_then_the_environment():
    rows = [{"prompt": one.prompt, "completion": one.completion, "reward": one.reward} for one in SHOWN]
    model = make_mlp(8, target_update_interval=100)
    result = learn_from_text(model, DataLoader(rows, batch_size=32), objective="td", steps=50)
    size = model.replay_buffer.size()
    assert result.episodes == 200 and size > 0
    model.learn(80)
    assert model.replay_buffer.size() > size and model._n_updates > 0


# ---------------------------------------------------------------------------------------------- encoders


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    from transformers import AutoTokenizer, BertModel, LlamaModel

    folder = tmp_path_factory.mktemp("encoders")
    paths = {"bert": save_bert(folder / "bert"), "llama": save_llama(folder / "llama", words=(*"abcd", "<eos>"))}
    for name, kind in (("bert", BertModel), ("llama", LlamaModel)):
        pruned = PrunedTransformer(kind.from_pretrained(paths[name]), "structured", sparsity=0.5)
        paths[f"pruned {name}"] = folder / f"pruned_{name}"
        pruned.save_pretrained(paths[f"pruned {name}"], AutoTokenizer.from_pretrained(paths[name]))
    return paths


@pytest.mark.parametrize(
    ("name", "latent"), [("bert", None), ("bert", 4), ("llama", None), ("pruned bert", None), ("pruned llama", 4)]
)
def test_the_founding_pipeline(encoders, name, latent):
    """Encoder → embedding (→ autoencoder) → Q-network → replay: from a loader of text, then in the environment."""
    env = make_vec_env(ENV, 4, seed=0, env_kwargs=ARGS)
    embedding = StateEmbedding.from_pretrained(encoders[name], decode=env.get_attr("task")[0].decode)
    autoencoder = None if latent is None else StateAutoEncoder(embedding.features_dim, latent, hidden=())
    model = make_mlp(env=env, extractor={"embedding": embedding, "autoencoder": autoencoder})
    rows = [(one.prompt, one.completion, one.reward) for one in list(SHOWN)[:40]]
    before = [parameter.clone() for parameter in embedding.parameters()]
    result = learn_from_text(model, DataLoader(rows, batch_size=8), steps=20)
    assert result.episodes == 40 and np.isfinite(result.loss)
    model.learn(40)
    assert model._n_updates > 0
    for parameter, old in zip(embedding.parameters(), before, strict=True):
        assert torch.equal(parameter, old), "the encoder stays as it is"


@pytest.mark.parametrize(
    "objective", ["td", "ilql", "bc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cql", "crr"))]
)
@pytest.mark.filterwarnings("ignore:objective '(bc|crr)' leaves")
def test_every_objective_learns_the_task(encoders, objective):
    """On cached vectors of an encoder of random weights; temporal differences alone need to see what is wrong."""
    env = make_vec_env(ENV, 1, seed=0, env_kwargs=ARGS)
    embedding = StateEmbedding.from_pretrained(encoders["llama"], "last", decode=env.get_attr("task")[0].decode)
    model = make_mlp(env=env, extractor={"embedding": embedding}, width=128, gamma=0.9)
    shown = textgym.demonstrations(ENV, n=200, error_rate=0.7 if objective == "td" else 0.2, **ARGS)
    before = share_of_right_tokens(model)
    result = learn_from_text(model, shown, objective=objective, steps=150, batch_size=64)
    assert (result.episodes, result.updates) == (200, 150)
    assert share_of_right_tokens(model) > before + 0.2


def test_observations_that_are_vectors(encoders):
    embedding = StateEmbedding.from_pretrained(encoders["bert"])
    envs = TextGenVecEnv(
        VectorEmbedObservation(TextGenVectorEnv(2, make_vec_env(ENV, 1, 0, env_kwargs=ARGS).envs.task), embedding)
    )
    envs.seed(0)
    model = DoubleDQN("MlpPolicy", envs, seed=0, buffer_size=2_000, policy_kwargs={"net_arch": [16]})
    learn_from_text(model, list(SHOWN)[:10], steps=5)
    task = envs.get_attr("task")[0]
    episodes = text_to_episodes([FIRST], task)
    first = episodes.tokens[:1].copy()
    first[0, episodes.action_positions[0, 0] :] = task.pad_id
    expected = envs.envs.embedding.embed(first)[0]
    assert np.allclose(model.replay_buffer.observations[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_poolings_of_a_causal_encoder_without_padding(encoders, pooling):
    """A tokenizer of a language model often has no padding; a text's vector is the same alone and among others."""
    embedding = StateEmbedding.from_pretrained(encoders["llama"], pooling=pooling)
    assert embedding.tokenizer.pad_token is not None
    together = embedding._features(["a b c d", "b"])
    assert torch.allclose(together[1], embedding._features(["b"])[0], atol=1e-5)
    ids = torch.tensor([embedding.tokenizer("b c").input_ids])
    hidden = embedding.model(ids).last_hidden_state[0]
    expected = {"mean": hidden.mean(dim=0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    assert torch.allclose(embedding._features(["b c", "a b c d"])[0], expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------- language models


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("model"))


TEXTS = [
    {"prompt": prompt, "completion": completion, "reward": reward}
    for prompt, completion, reward in (("w1 w2", "w1 w1 w2", 1.0), ("w0 w3", "w3", 0.3), ("w4", "w1 w2", 0.0))
]


@pytest.mark.parametrize("objective", ["soft_q", "ilql", "pcl"])
def test_a_language_models_head_learns_from_texts(directory, objective):
    """Reads every text once, values its tokens, and an action that was no candidate is learned about as well."""
    model = make(directory, echo, policy_kwargs={"objective": objective, "candidates": 2})
    result = learn_from_text(model, TEXTS, steps=120, batch_size=8, learning_rate=5e-3)
    assert (result.episodes, result.actions) == (3, 8), "EOS where the budget leaves room"
    batch = model.replay_buffer.sample_states(64)
    tokens = batch.states.tokens.gather(-1, batch.chosen.unsqueeze(-1)).squeeze(-1)
    valid = batch.episodes.valid
    assert torch.equal(tokens[valid], batch.episodes.actions[valid])
    assert (batch.states.log_probs[..., -1] > -torch.inf)[valid].any()
    q = model.policy.q_net.q_values(batch.states, model.policy.eta).gather(-1, batch.chosen.unsqueeze(-1)).squeeze(-1)
    last = valid & ~torch.nn.functional.pad(valid[:, 1:], (0, 1))
    goals = batch.rewards[last]
    assert torch.allclose(q[last], goals, atol=0.15)
    model.learn(100)


def test_errors(directory):
    with pytest.raises(ValueError, match="objective must be one of td, cql, ilql, crr, bc for MlpPolicy, got 'mc'"):
        learn_from_text(make_mlp(), SHOWN, objective="mc")
    with pytest.raises(ValueError, match=r"rehearsal must be 0 or None for MlpPolicy, got 0.5"):
        learn_from_text(make_mlp(), SHOWN, rehearsal=0.5)
    with pytest.raises(ValueError, match="buffer_size of the model must be at least 603, got 50"):
        learn_from_text(make_mlp(buffer_size=50), SHOWN)
    qsharp = make(directory, policy_kwargs={"objective": "qsharp"})
    with pytest.raises(ValueError, match=r"policy_kwargs\['objective'\] must be 'soft_q', 'ilql' or 'pcl'"):
        learn_from_text(qsharp, TEXTS)
    with pytest.raises(ValueError, match="objective must be one of soft_q for LanguageModelPolicy, got 'bc'"):
        learn_from_text(make(directory), TEXTS, objective="bc")
    with pytest.raises(ValueError, match="conservatism must be None for LanguageModelPolicy"):
        learn_from_text(make(directory), TEXTS, conservatism=1.0)


@pytest.mark.parametrize("kind", ["transitions", "language model"])
def test_learning_that_was_stopped_ends_with_the_same_bits(directory, tmp_path, kind):
    def new():
        return make_mlp() if kind == "transitions" else make(directory, echo)

    data = SHOWN if kind == "transitions" else TEXTS
    learn_from_text(new(), data, steps=12, checkpoints=TextCheckpoints(tmp_path / "whole", 0))
    updates = []

    def stop():
        return len(updates) >= 6

    with pytest.raises(TrainingInterrupted):
        learn_from_text(
            new(),
            data,
            steps=12,
            checkpoints=TextCheckpoints(tmp_path / "parts", 0, stop),
            callback=lambda progress: updates.append(progress.update),
        )
    learn_from_text(new(), data, steps=12, checkpoints=TextCheckpoints(tmp_path / "parts", 0))
    (_, one), (_, two) = (CheckpointFolder(tmp_path / name, "text").load() for name in ("whole", "parts"))
    assert differences(one["policy"], two["policy"]) == [] and differences(one["replay"], two["replay"]) == []
