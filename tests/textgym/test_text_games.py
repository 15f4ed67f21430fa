# ruff: noqa: NPY002, the games draw from the global streams
"""The way in: games of strings as Gymnasium environments, by a game of our own and those of GEM and TextArena."""

import random

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from agents import DoubleDQN
from textgym.adapters.text_games import TextGame, from_gem, from_textarena
from textgym.wrappers import StringActions, TokenizeObservation

pytestmark = pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")


class Coin(TextGame):
    """Say what lies under the cup; drawn from the global streams, as other libraries do."""

    def begin(self, seed):
        random.seed(seed)
        np.random.seed(seed)
        self.turn = 0
        return f"♠ Begin {random.random():.3f} {np.random.random():.3f}"

    def send(self, action):
        self.turn += 1
        won = action == random.choice(["head", "tail"])
        return f"{action} {np.random.random():.3f}", float(won), self.turn == 3, False


def record(env, seed, actions=(0, 1, 1)):
    """What an episode shows and earns."""
    seen = [env.reset(seed=seed)[0]]
    for action in actions:
        observation, reward, over, *_ = env.step(action)
        seen += [observation, reward]
    assert over
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in seen]


def coin(**arguments):
    return TokenizeObservation(StringActions(Coin(**arguments), ["head", "tail"]), context_length=40)


def test_checks():
    check_env(coin(), skip_render_check=True)


def test_a_seed_decides_and_the_global_streams_stay_as_they_are():
    one, other = coin(), coin()
    random.seed(0), np.random.seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = record(one, 5)
    other.reset(seed=7)  # played in turns, neither disturbs the other
    one.reset(seed=5)
    again = [one.step(0)[1], other.step(1)[1], one.step(1)[1], other.step(1)[1], one.step(1)[1]][::2]
    assert again == first[2::2] and record(other, 5) == first != record(other, 6)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())
    assert np.array_equal(one.reset(seed=3)[0], other.reset(seed=3)[0])
    assert np.array_equal(one.reset()[0], other.reset()[0])  # the stream goes on alike


@pytest.mark.parametrize(("history", "lines"), [(1, 1), (2, 2), (None, 4)])
def test_history(history, lines):
    game = Coin(history)
    game.reset(seed=0)
    for action in ("head", "tail", "head"):
        observation = game.step(action)[0]
    assert len(observation.splitlines()) == lines and observation in game.observation_space
    assert observation.splitlines()[-1].startswith("head") and game.render() == observation
    assert "\ufffd Begin" in observation if history is None else "Begin" not in observation


def test_an_id_and_agents_without_change():
    gym.register("TextGymTests/Coin-v0", entry_point=coin)
    try:
        envs = make_vec_env("TextGymTests/Coin-v0", n_envs=2, seed=0)
        PPO("MlpPolicy", envs, n_steps=8, batch_size=8, seed=0, device="cpu").learn(32)
        agent = DoubleDQN("MlpPolicy", envs, learning_starts=8, batch_size=8, seed=0, device="cpu").learn(32)
        assert agent.predict(envs.reset())[0].shape == (2,)
    finally:
        del gym.registry["TextGymTests/Coin-v0"]


class TestStringActions:
    def test_texts_are_sent_and_the_arguments_recorded(self):
        env = StringActions(Coin(), ["head", "tail"])
        assert env.action_space == spaces.Discrete(2) and env.actions == ("head", "tail")
        env.reset(seed=0)
        assert env.step(np.int64(1))[0].startswith("tail")
        assert env._saved_kwargs == {"actions": ("head", "tail")}

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            ([], "actions must be at least one text, no two alike, got"),
            (["a", "a"], r"no two alike, got \['a', 'a'\]"),
            ("ab", "actions must be a list of texts, got a single str"),
            ([1], "actions must be a list of texts, got one that holds 1"),
        ],
    )
    def test_wrong_actions(self, actions, message):
        with pytest.raises(ValueError, match=message):
            StringActions(Coin(), actions)

    def test_wrong_environment(self):
        with pytest.raises(ValueError, match=r"env must take a Text as its action, got Discrete\(2\)"):
            StringActions(gym.make("CartPole-v1"), ["a"])


GAMES = {
    from_gem: (
        "gem",
        "game:FifteenPuzzle-v0-easy",
        ["\\boxed{up}", "\\boxed{down}", "\\boxed{left}", "\\boxed{right}"],
    ),
    from_textarena: ("textarena", "FrozenLake-v0", ["[up]", "[down]", "[left]", "[right]"]),
}


@pytest.mark.parametrize("make", GAMES, ids=["gem", "textarena"])
def test_games(make):
    module, game, actions = GAMES[make]
    pytest.importorskip(module, reason=f"{module} is not installed")
    env = make(game, actions)
    check_env(env, skip_render_check=True)
    generator, returns = np.random.default_rng(0), []
    for seed in range(50):
        traces = []
        plan = generator.integers(4, size=100)
        for each in (env, make(game, actions) if seed < 3 else env):
            before = random.getstate()
            trace, over = [each.reset(seed=seed)[0].tolist()], False
            for action in plan:
                observation, reward, over, *_ = each.step(action)
                trace += [observation.tolist(), reward]
                if over:
                    break
            assert random.getstate() == before
            traces.append(trace)
        assert traces[0] == traces[1]
        returns.append(sum(traces[0][2::2]))
    assert 0 < max(returns) <= 1 and min(returns) <= 0
    assert "\n" in env.unwrapped.render()
    with pytest.raises(ValueError, match=r"game must be one that .* can make here for one player, got 'no-such-game'"):
        make("no-such-game", actions)


def test_a_game_for_two():
    pytest.importorskip("textarena", reason="TextArena is not installed")
    with pytest.raises(ValueError, match="for one player, got 'PigDice-v0-short'"):
        from_textarena("PigDice-v0-short", ["[roll]"])


@pytest.mark.parametrize("make", GAMES, ids=["gem", "textarena"])
def test_wrong_arguments(make):
    module, game, actions = GAMES[make]
    with pytest.raises(ValueError, match="history must be an integer of at least 1, got 0"):
        make(game, actions, history=0)
    try:
        __import__(module)
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=rf"{make.__name__}\(\) needs the package"):
            make(game, actions)
