"""The comparison on other libraries' games, in small, on a game of our own."""

import pytest

from benchmarks import text_games
from benchmarks.text_games import main, measure, table
from textgym.adapters.text_games import TextGame
from textgym.wrappers import StringActions, TokenizeObservation


class Echo(TextGame):
    """Sending the letter that is shown earns 1, five times."""

    def begin(self, seed):
        self.letters, self.turn = [seed >> bit & 1 for bit in range(6)], 0
        return "ab"[self.letters[0]]

    def send(self, action):
        won = action == "ab"[self.letters[self.turn]]
        self.turn += 1
        return "ab"[self.letters[self.turn]], float(won), self.turn == 5, False


def echo():
    return TokenizeObservation(StringActions(Echo(), ["a", "b"]), context_length=1)


def test_agents_beside_random(monkeypatch):
    monkeypatch.setattr(text_games, "GAMES", {"Echo": echo})
    result = measure(steps=1_500, seeds=1, episodes=30)
    row = result["games"]["Echo"]
    assert 1.5 < row["random"] < 3.5 and row["PPO"]["returns"] == [5.0]
    assert row["DoubleDQN"]["returns"][0] > 4
    line = table(result).splitlines()[2]
    assert line.startswith(f"| Echo | {row['random']:.2f} | 5.00 (5.00–5.00), ") and line.endswith(" s |")


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err
