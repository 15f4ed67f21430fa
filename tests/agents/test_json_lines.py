"""Files that grow by lines: torn ends, writers that meet, writers that are killed."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agents.saving.json_lines import append, by_name, read

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from agents.saving.json_lines import append
for number in range(int(sys.argv[3])):
    append(sys.argv[1], [sys.argv[2], number, "x" * 5_000])
"""


def test_a_torn_end_is_no_record_and_is_gone_after_the_next(tmp_path):
    path = tmp_path / "new" / "lines.jsonl"
    assert read(path) == []
    append(path, {"name": "first"})
    whole = path.read_bytes()
    append(path, {"name": "zweite ü"})
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert read(path) == [{"name": "first"}] * (end >= len(whole))
        append(path, 3)
        assert path.read_bytes() == whole * (end >= len(whole)) + b"3\n"


def test_of_several_records_with_a_name_the_last_counts(tmp_path):
    path = tmp_path / "lines.jsonl"
    for record in ({"name": "b", "x": 1}, {"name": "a"}, [1], {"x": 2}, {"name": "b", "x": 3}):
        append(path, record)
    assert list(by_name(path).values()) == [{"name": "a"}, {"name": "b", "x": 3}]


@pytest.mark.skipif(sys.platform == "win32", reason="holds a lock of POSIX")
def test_writers_and_readers_wait_for_one_in_the_middle_of_a_line(tmp_path):
    import fcntl

    path, found = tmp_path / "lines.jsonl", []
    threads = [
        threading.Thread(target=append, args=(path, 2)),
        threading.Thread(target=lambda: found.append(read(path))),
    ]
    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b'{"half')
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        assert all(thread.is_alive() for thread in threads)
        file.write(b'": 1}\n')
    for thread in threads:
        thread.join()
    assert read(path) == [{"half": 1}, 2] and found[0][:1] == [{"half": 1}]


def test_several_writers_of_which_one_is_killed_lose_nothing(tmp_path):
    path = tmp_path / "lines.jsonl"
    counts = {"a": 100, "b": 100, "killed": 1_000_000}
    writers = {
        name: subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(count)], cwd=ROOT)
        for name, count in counts.items()
    }
    while sum(name == "killed" for name, *_ in read(path)) < 10:
        time.sleep(0.01)
    writers["killed"].send_signal(signal.SIGKILL)
    assert [writers[name].wait() for name in ("a", "b")] == [0, 0] and writers["killed"].wait() != 0
    append(path, ["c", 0, ""])
    records = read(path)
    for name in counts:
        numbers = [number for writer, number, _ in records if writer == name]
        assert numbers == list(range(counts[name] if name != "killed" else len(numbers)))
    assert records[-1] == ["c", 0, ""]
