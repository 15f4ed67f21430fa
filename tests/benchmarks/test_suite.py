import json

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.suite import SuiteRow, measure_suite


def test_command_measures_the_ids_that_match_and_writes_them(tmp_path) -> None:
    path = tmp_path / "suite.json"
    result = CliRunner().invoke(app, ["suite", "--ids", "*/Wordle-[ES]*", "--seconds", "0", "--json", str(path)])
    assert result.exit_code == 0 and "Wordle-Easy-v0" in result.output
    rows = json.loads(path.read_text())
    assert [row["id"] for row in rows] == ["TextGen/Wordle-Easy-v0", "TextGen/Wordle-Sparse-v0"]
    for row in rows:
        assert row["rate"] > row["single_rate"] > 0 and row["ratio"] == row["rate"] / row["single_rate"]
        assert row["mask_bytes"] == 1_024 * 27  # 26 letters and EOS


def test_memory_of_many_rows_is_a_small_multiple_of_the_observations() -> None:
    (row,) = measure_suite(["TextGen/Reverse-v0"], seconds=0.0)
    assert 1.0 < row.memory <= 4.0 and row.mask_bytes == 1


def test_bars_depend_on_the_kind() -> None:
    symbolic = SuiteRow("a", "symbolic", rate=1e6, single_rate=1e5, memory=5.0, mask_bytes=1)
    assert symbolic.missed == ["rate", "ratio", "memory"]
    assert SuiteRow("a", "text", rate=1e6, single_rate=1e5, memory=4.0, mask_bytes=1).missed == []


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(ValueError, match="got 'TextGen/Nothing-v0'"):
        measure_suite(["TextGen/Nothing-v0"])
