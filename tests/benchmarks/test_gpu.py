"""The script for a GPU, in small and on the CPU."""

import json
import time

import pytest
import torch

from benchmarks.comparison import Figure, best_rates
from benchmarks.gpu import SECONDS, SECTIONS, Section, attention, main, measure


def test_every_section_writes_its_figures(tmp_path, capsys):
    began = time.perf_counter()
    assert main(["--device", "cpu", "--quick", "--out", str(tmp_path / "gpu.jsonl")]) == 0
    assert time.perf_counter() - began < 60  # 8 s on a quiet core
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert [row["section"] for row in rows] == ["main job", "updates", "acting", "attention"]
    for row in rows:
        assert row["value"] > 0 and row["device"] == "cpu" and row["versions"]["torch"] == torch.__version__
        assert row["met"] is None  # the bars are those of a GPU
        assert "T" in row["time"] and (row["commit"] is None or len(row["commit"]) == 40)
    assert rows[-1]["ratio"] == pytest.approx(rows[-1]["value"] / rows[-1]["other"])
    assert "main job" in capsys.readouterr().out
    assert torch.get_num_threads() == 1  # as it was


def test_a_section_that_fails_is_stored_and_the_others_go_on():
    def fails(device, quick, deadline):
        yield Figure("first", "s", 1.0)
        raise RuntimeError("out of memory\nwith a long story")

    sections = (Section("a", 0.5, fails), Section("b", 0.5, lambda *_: [Figure("second", "s", 2.0)]))
    first, failed, second = measure("cpu", True, 1.0, sections)
    assert (first["value"], second["value"]) == (1.0, 2.0)
    assert failed["section"] == "a" and failed["failed"] == "RuntimeError: out of memory"


def test_a_section_whose_time_is_over_says_so():
    failed = list(measure("cpu", True, 1e-9, [Section("attention", 1.0, attention)]))
    assert len(failed) == 1 and failed[0]["failed"].startswith("TimeoutError: the section's time was over before")
    turns = []
    assert best_rates({"a": lambda: turns.append(1) or 1}, 5, deadline=0.0)["a"] > 0
    assert len(turns) == 2  # one to warm up, one that counts
    assert sum(section.share for section in SECTIONS) == pytest.approx(1.0) and SECONDS <= 480


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--device", "tpu9"], "--device must be one"), (["--seconds", "0"], "--seconds must")]
)
def test_arguments_are_checked(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path / "gpu.jsonl")])
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
