import json
from pathlib import Path

import pytest

from agents.encoders import fastest_attention
from agents.encoders.choice import TIMINGS, nearest_timing

RESULTS = Path(__file__).parents[2] / "results" / "scaling.jsonl"


def test_timings_of_the_cpu_are_those_of_the_results():
    updates = json.loads(RESULTS.read_text("utf-8").splitlines()[-1])["update"]
    measured = {(row["encoder"], row["context"]): row["us_per_token"] for row in updates}
    entries = [timing for timing in TIMINGS if timing.device == "cpu"]
    assert len(entries) == len([key for key in measured if key[0] == "Performer"])
    for timing in entries:
        assert timing.measured
        assert timing.linear == pytest.approx(measured["Performer", timing.length], abs=0.051)
        assert timing.softmax == pytest.approx(measured["Transformer", timing.length], abs=0.051)


def test_what_no_gpu_has_measured_is_marked():
    assert not any(timing.measured for timing in TIMINGS if timing.device == "cuda")


@pytest.mark.parametrize(
    ("length", "head_dim", "device", "expected"),
    [
        (14, 16, "cpu", "softmax"),
        (256, 16, "cpu", "linear"),
        (100_000, 64, "cpu", "linear"),
        (512, 16, "cuda", "softmax"),
        (2_048, 64, "cuda:1", "softmax"),
        (4_096, 64, "cuda", "linear"),
        (16_384, 16, "cuda", "linear"),
    ],
)
def test_the_nearest_entry_decides(length, head_dim, device, expected):
    assert fastest_attention(length, head_dim, device) == expected


def test_nearest_means_length_first():
    assert nearest_timing(3_000, 64, "cuda").length == 4_096
    assert nearest_timing(1_024, 128, "cuda").head_dim == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 16), "length must be at least 1, got 0"),
        ((16, 0), "head_dim must be at least 1, got 0"),
        ((16, 16, "meta"), "device must be of a kind that has been timed, cpu or cuda, got 'meta'"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        fastest_attention(*arguments)
