"""How costs grow with the context: the arithmetic on the figures, and one real measurement in small."""

from pathlib import Path

import pytest

from benchmarks.scaling import ENCODERS, RESULTS, crossing, growth, main, peak_bytes, update_figures


def row(encoder, context, time):
    return {"encoder": encoder, "context": context, "us_per_token": time, "bytes_per_token": 1.0}


def test_crossing_lies_between_the_contexts_around_it():
    rows = [row("Performer", context, 10.0) for context in (128, 256, 512)]
    rows += [row("Transformer", context, time) for context, time in ((128, 5.0), (256, 8.0), (512, 12.0))]
    assert crossing(rows) == pytest.approx(256 * 2**0.5)  # half-way in the logarithm
    assert crossing([r for r in rows if r["context"] < 512]) is None


def test_growth_is_over_the_shortest_context():
    rows = [row("GRU", 256, 9.0), row("GRU", 128, 3.0), row("GRU", 512, 6.0), row("Performer", 128, 1.0)]
    assert growth(rows, "GRU", "us_per_token") == 3.0


def test_every_encoder_is_measured():
    rows = update_figures((16,), tokens=64, repeats=1, threads=1)
    assert [r["encoder"] for r in rows] == list(ENCODERS)
    assert all(r["us_per_token"] > 0 and r["bytes_per_token"] > 0 for r in rows)


def test_longer_updates_take_more_memory():
    assert peak_bytes("Performer", 64, 8_192, threads=1) > peak_bytes("Performer", 64, 64, threads=1)


def test_the_figure_of_the_docs_is_drawn_from_the_committed_results(tmp_path):
    root = Path(__file__).parents[2]
    drawn = tmp_path / "scaling.svg"
    main(["--json", str(root / RESULTS), "--draw", str(drawn)])
    text = drawn.read_text("utf-8")
    assert all(f"<!-- {name} -->" in text for name in (*ENCODERS, "tokens in a row"))
    assert sum(line.strip().startswith("<use") for line in text.splitlines()) > 21  # seven contexts, three encoders
