"""Minari data sets: written, read back to the last bit, learned from. Needs the extra ``minari``."""

import warnings

import numpy as np
import pytest

pytest.importorskip("minari", reason="Minari is not installed")
pytest.importorskip("h5py", reason="h5py is not installed")

import gymnasium as gym
import minari
from minari.data_collector import EpisodeBuffer

import textgym as package
from agents import DoubleDQN, learn_from_text, make_vec_env
from agents.offline import text_to_episodes
from tests.textgym.test_text_steps import BASE
from textgym.adapters import minari_rows, open_minari, write_minari
from textgym.tasks.reverse import Reverse

GAMES = ["TextGen/GuessNumber-v0", "TextGen/Hangman-v0", "TextGen/Wordle-v0"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))


def same(one, other):
    return all(
        np.array_equal(left, right) and left.dtype == right.dtype
        for left, right in zip(
            (one.tokens, one.action_positions, one.n_actions, one.rewards, one.terminated),
            (other.tokens, other.action_positions, other.n_actions, other.rewards, other.terminated),
            strict=True,
        )
    )


FEW = ["TextGen/Reverse-v0", "TextGen/Json-Easy-v0", "TextGen/Sql-v0", *GAMES]
WITHOUT_ORACLE = ["TextGen-v0", "TextGen/Keywords-v0"]
MORE = [
    pytest.param(env_id, marks=pytest.mark.slow)
    for env_id in BASE
    if env_id not in WITHOUT_ORACLE and env_id not in FEW
]


@pytest.mark.parametrize("env_id", [*FEW, *MORE])
def test_round_trip(env_id):
    shown = package.demonstrations(env_id, n=20, seed=7, error_rate=0.3)
    write_minari("textgym/some/demonstrations-v0", shown)
    dataset = minari.load_dataset("textgym/some/demonstrations-v0")
    assert dataset.total_episodes == 20
    env = dataset.recover_environment()
    for number, (row, one) in enumerate(zip(minari_rows(dataset), shown, strict=True)):
        assert np.array_equal(row["prompt_tokens"], one.prompt_tokens)
        assert np.array_equal(row["completion_tokens"], one.completion_tokens)
        assert np.array_equal(row["is_action"], one.is_action)
        assert row["seed"] == 7 + number and row["terminated"] is True
        episode = dataset[number]
        observation, _ = env.reset(seed=row["seed"])
        for step, action in enumerate(episode.actions):  # the environment itself, replayed
            assert np.array_equal(observation, episode.observations[step])
            observation, reward, terminated, truncated, _ = env.step(action)
            assert (reward, terminated, truncated) == (
                episode.rewards[step],
                episode.terminations[step],
                episode.truncations[step],
            )
        assert np.array_equal(observation, episode.observations[-1])
        assert row["reward"] == episode.rewards.tolist() and sum(row["reward"]) == one.reward
    task = env.unwrapped.task
    native = text_to_episodes(shown, task)
    assert same(text_to_episodes(dataset, task, reward="environment"), native)
    recorded = text_to_episodes(dataset, task)
    for array in ("action_positions", "n_actions", "rewards", "terminated"):
        assert np.array_equal(getattr(recorded, array), getattr(native, array))
    assert np.array_equal(recorded.tokens, native.tokens[:, : recorded.tokens.shape[1]])


def test_learning_from_a_data_set_a_path_and_a_name_is_the_same(tmp_path):
    shown = package.demonstrations("TextGen/Reverse-v0", n=32, length=2, vocab_size=4)
    dataset = write_minari("reverse-v0", shown)

    def weights(data, **kwargs):
        env = make_vec_env("TextGen/Reverse-v0", n_envs=2, seed=0, env_kwargs={"length": 2, "vocab_size": 4})
        model = DoubleDQN("PerformerPolicy", env, seed=0)
        learn_from_text(model, data, objective="td", steps=3, **kwargs)
        return np.concatenate([value.numpy().ravel() for value in model.policy.state_dict().values()])

    first = weights(shown)
    folder = tmp_path / "sets" / "reverse-v0"
    for data in (dataset, "reverse-v0", str(folder), folder / "data"):
        assert np.array_equal(first, weights(data))


def record(name, env_id, n, seeds=None, **kwargs):
    """Random episodes, without seeds where none are given, in Minari's own way (its DataCollector needs jax)."""
    env, buffers = gym.make(env_id, **kwargs), []
    env.action_space.seed(0)
    for number in range(n):
        seed = None if seeds is None else seeds[number]
        observations, steps, over = [env.reset(seed=seed)[0]], [], False
        while not over:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            steps.append((action, reward, terminated, truncated))
            over = terminated or truncated
        buffers.append(EpisodeBuffer(None, seed, None, observations, *map(list, zip(*steps, strict=True))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return minari.create_dataset_from_buffers(name, buffers, env=env, algorithm_name="random")


def test_what_others_recorded():
    dataset = record("mine/hangman-v0", "TextGen/Hangman-v0", 6, max_episode_steps=3)
    rows = list(minari_rows(dataset))
    ended = [row["terminated"] for row in rows]
    assert len(rows) == 6 and not all(ended) and {row["seed"] for row in rows} == {None}
    episodes = text_to_episodes(dataset, gym.make("TextGen/Hangman-v0").unwrapped.task)
    assert episodes.terminated.tolist() == ended and (episodes.n_actions <= 3).all()


@pytest.mark.parametrize("env_id", WITHOUT_ORACLE)
def test_what_others_recorded_is_what_the_environment_pays(env_id):
    dataset, seeds = record("mine/random-v0", env_id, 4, seeds=[7, 8, 9, 10]), []
    env = gym.make(env_id)
    for row in minari_rows(dataset):
        env.reset(seed=row["seed"])
        actions = row["completion_tokens"][row["is_action"]]
        assert [env.step(action)[1] for action in actions] == row["reward"]
        seeds.append(row["seed"])
    assert seeds == [7, 8, 9, 10]


def test_an_environment_that_cannot_be_written_down():
    class Ends(Reverse):
        def step_reward(self, episodes, actions):
            return np.full(len(episodes), 0.25)

    gym.register("Ends-v0", "textgym.env:TextGenEnv", vector_entry_point="textgym.vector_env:TextGenVectorEnv")
    try:
        dataset = write_minari("ends-v0", package.demonstrations("Ends-v0", n=3, task=Ends))
    finally:
        del gym.registry["Ends-v0"]
    assert dataset.env_spec is None and all(row["reward"][-1] == 0.25 for row in minari_rows(dataset))


def test_misuse(tmp_path):
    shown = package.demonstrations("TextGen/Reverse-v0", n=2)
    for name in ("reverse", "../up-v0", "", None, "a b-v0"):
        with pytest.raises(ValueError, match="dataset_id must be a name such as 'textgym/reverse-v0', got"):
            write_minari(name, shown)
    with pytest.raises(ValueError, match=r"shown must be textgym.demonstrations\(...\), got \["):
        write_minari("reverse-v0", list(shown))
    write_minari("reverse-v0", shown)
    with pytest.raises(ValueError, match="reverse-v0 already exists"):
        write_minari("reverse-v0", shown)
    assert open_minari("nothing-v0") is None and open_minari(tmp_path) is None and open_minari([1]) is None
    cart_pole = record("cart-pole-v0", "CartPole-v1", 1)
    with pytest.raises(ValueError, match="data must be a Minari data set of rows of token ids, got Box"):
        list(minari_rows(cart_pole))


def test_a_relative_folder(monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", "sets")
    with pytest.raises(ValueError, match="MINARI_DATASETS_PATH must be an absolute path, got 'sets'"):
        write_minari("reverse-v0", package.demonstrations("TextGen/Reverse-v0", n=2))


def test_the_command(textgym, tmp_path):
    code, out, err = textgym(
        "demonstrations", "TextGen/Sort-v0", "--out", "sort/noisy-v1", "-n", 5, "--noise", 0.5, "--env-arg", "length=2"
    )
    assert (code, err) == (0, "") and out.startswith("wrote 5 episodes, ") and str(tmp_path / "sets") in out
    rows = list(minari_rows(open_minari("sort/noisy-v1")))
    shown = package.demonstrations("TextGen/Sort-v0", 5, error_rate=0.5, length=2)
    assert [row["completion_tokens"].tolist() for row in rows] == [one.completion_tokens.tolist() for one in shown]
    code, _, err = textgym("demonstrations", "TextGen/Sort-v0", "--out", "sort/noisy-v1")
    assert code == 2 and "already exists" in err and err.count("\n") == 1
    code, _, err = textgym("demonstrations", "TextGen-v0", "--out", "a-v0")
    assert code == 2 and "has no oracle" in err and err.count("\n") == 1
