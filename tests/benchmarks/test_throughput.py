import time

import pytest

from benchmarks.comparison import Figure, best_rates, print_figures
from benchmarks.throughput import acting_figures
from benchmarks.updates import update_figures


def test_a_bar_judges_the_ratio_or_else_the_value() -> None:
    assert Figure("a", "s", 10.0, bar=9.0).met and not Figure("a", "s", 10.0, bar=11.0).met
    assert Figure("a", "s", 10.0, 4.0, ratio=2.5, bar=2.0).met
    assert not Figure("a", "s", 10.0, 4.0, ratio=2.5, bar=2.0, at_most=True).met
    assert Figure("a", "s", 10.0).met is None


def test_contestants_take_turns_and_the_fastest_repeat_counts() -> None:
    turns: list[str] = []
    naps = iter([0.0, 0.05, 0.02])

    def slow() -> int:
        turns.append("slow")
        time.sleep(next(naps))
        return 1

    def other() -> int:
        turns.append("other")
        return 1

    rates = best_rates({"slow": slow, "other": other}, repeats=2)
    assert turns == ["slow", "other"] * 3
    assert 25 < rates["slow"] <= 50  # neither the free warm-up nor the slower repeat


@pytest.mark.parametrize("full", [True, False])
def test_training_is_compared_with_sb3_on_valid_steps(full: bool) -> None:
    same, shipped, replay = update_figures(2, 4, 1, 1, full=full, shipped=True)
    assert same.value == shipped.value > 0
    assert same.ratio == pytest.approx(same.value / same.other) and shipped.other
    assert "context 6, 4 × 4" in same.name and ("full episodes" if full else "random play") in same.name
    # SB3 keeps two observations of 6 int32, an int64 action, and two float32 for each step.
    assert replay.other == 2 * 6 * 4 + 8 + 4 + 4


def test_acting_is_measured_at_two_contexts(capsys: pytest.CaptureFixture[str]) -> None:
    encoder, whole = acting_figures(1, contexts=(36, 64))
    assert whole.ratio == pytest.approx(whole.value / whole.other)
    assert encoder.bar == 1.15 and whole.bar == 1.5 and whole.at_most
    row = {**vars(whole), "met": whole.met}
    print_figures({"machine": {"threads": 1}, "figures": [row]})
    assert "context" in capsys.readouterr().out
