import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agents.saving.arguments import check_agent_arguments
from agents.saving.presets import PRESETS, Preset
from benchmarks import zoo
from textgym import env_ids

needs_zoo = pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="needs rl_zoo3")


def zoo_process(folder: Path, *commands: list[str]) -> str:
    """Run command lines one after the other; in a process of their own, because importing RL Zoo patches Gymnasium."""
    code = f"from benchmarks.zoo import main\nfor command in {list(commands)!r}:\n    main(command)"
    root = Path(zoo.__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


@needs_zoo
def test_zoo_trains_text_and_other_environments_and_replays_them(tmp_path: Path) -> None:
    def train(env_id: str) -> list[str]:
        options = ["--algo", "double_dqn", "--env", env_id, "-n", "500", "--seed", "0", "--num-threads", "1"]
        return [*options, "--eval-freq", "400", "--eval-episodes", "2", "-params", "learning_starts:100"]

    enjoy = ["enjoy", "--algo", "double_dqn", "--env", "TextGen/Reverse-v0", "-f", "logs", "-n", "30", "--no-render"]
    # A file of one's own goes before ours, and other algorithms keep theirs.
    own = {"TextGen/Copy-v0": {"n_timesteps": 64, "n_envs": 2, "policy": "PerformerPolicy", "batch_size": 3}}
    (tmp_path / "own.yml").write_text(yaml.safe_dump(own))
    with_own = ["train", "--algo", "double_dqn", "--env", "TextGen/Copy-v0", "--conf-file", "own.yml"]
    theirs = ["--algo=a2c", "--env", "CartPole-v1", "-n", "64", "--num-threads", "1"]
    text = map(train, ("TextGen-v0", "TextGen/Reverse-v0", "CartPole-v1"))
    output = zoo_process(tmp_path, *text, enjoy, with_own, theirs)

    logs = tmp_path / "logs" / "double_dqn"
    for name in ("TextGen-v0", "TextGen-Reverse-v0", "CartPole-v1"):
        assert (logs / f"{name}_1" / f"{name}.zip").exists()
        assert (logs / f"{name}_1" / "evaluations.npz").exists()
    # The arguments came from our file: linear learning rate, updates a step, 64 environments.
    used = (logs / "TextGen-v0_1" / "TextGen-v0" / "config.yml").read_text()
    assert "lin_0.002" in used and "updates_per_step" in used
    assert len(list((logs / "TextGen-v0_1").glob("*.monitor.csv"))) == PRESETS["TextGen-v0"].n_envs
    assert "3 Episodes" in output  # of eight tokens each, in 30 steps
    assert "('batch_size', 3)" in output
    assert (tmp_path / "logs" / "a2c" / "CartPole-v1_1").exists()


def test_for_a_search_it_points_to_ours() -> None:
    with pytest.raises(ValueError, match="needs another --algo than double_dqn: use `textgym tune`"):
        zoo.main(["--algo", "double_dqn", "--env", "TextGen/Copy-v0", "-optimize"])


def test_the_file_is_what_the_presets_say() -> None:
    file = yaml.safe_load(zoo.HYPERPARAMS.read_text(encoding="utf-8"))
    assert file == zoo.hyperparams(), "run `python -m benchmarks.zoo hyperparams`"


def test_every_id_has_the_arguments_of_its_preset(tmp_path: Path) -> None:
    zoo.write_hyperparams(tmp_path / "new" / "file.yml")
    file = yaml.safe_load((tmp_path / "new" / "file.yml").read_text(encoding="utf-8"))
    for env_id in env_ids():
        preset, values = PRESETS.get(env_id, Preset()), dict(file[env_id])
        assert (values.pop("n_timesteps"), values.pop("n_envs")) == (preset.steps, preset.n_envs)
        assert values.pop("policy") == "PerformerPolicy"
        rate = values.pop("learning_rate", None)
        check_agent_arguments(values)
        expected = dict(preset.kwargs)
        start = expected.pop("learning_rate", None)
        assert rate == (f"lin_{start['start']}" if isinstance(start, dict) else start)
        assert values == expected


def test_schedules_that_the_zoo_cannot_express_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = {"start": 2e-3, "end": 1e-3}
    monkeypatch.setitem(PRESETS, "TextGen/Copy-v0", Preset(kwargs={"learning_rate": rate}))
    with pytest.raises(ValueError, match="learning_rate must fall to 0 over the whole training"):
        zoo.hyperparams()


def test_without_rl_zoo_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    with pytest.raises(ImportError, match=r"pip install 'textgym\[benchmarks\]'"):
        zoo.main(["--algo", "double_dqn"])
