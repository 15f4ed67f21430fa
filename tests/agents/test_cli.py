"""The command line: what it prints, its exit codes, its one-line errors."""

import io
import json
import subprocess
import sys

import pytest

from agents.application.cli import main
from textgym import env_ids

ENV = "TextGen/Reverse-v0"
TINY = "--steps 200 --n-envs 8 --env-arg length=2 --env-arg vocab_size=3 --set learning_starts=32 --set batch_size=4"
TINY += " --set policy_kwargs.features_dim=8 --set policy_kwargs.n_layers=1 --set policy_kwargs.n_heads=2"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit) as exit_:
        main(["train", ENV, *TINY.split(), "--run-dir", str(folder)])
    assert exit_.value.code == 0
    return folder


def test_list(textgym):
    code, out, _ = textgym("list")
    assert code == 0 and all(env_id in out for env_id in env_ids())
    code, out, _ = textgym("list", "--json")
    rows = {row["id"]: row for row in json.loads(out)}
    assert list(rows) == env_ids()
    assert {name: rows[ENV][name] for name in ("vocabulary", "budget", "context")} == {
        "vocabulary": 16,
        "budget": 8,
        "context": 14,
    }
    assert rows[ENV]["references"]["best"] == 1.0


def test_help(textgym):
    code, out, _ = textgym()
    assert code == 0 and all(command in out for command in ("list", "play", "train", "tune", "validate"))
    assert textgym("train", "--help")[0] == 0


def test_train_prints_samples_scores_and_the_folder(textgym, tmp_path):
    code, out, _ = textgym("train", ENV, *TINY.split(), "--run-dir", tmp_path / "run", "--set", "learning_rate=1e-3")
    assert code == 0
    assert out.count("Greedy samples after") == 5 and "updates/s" in out and "mean return" in out
    assert out.strip().endswith(f"Run folder: {tmp_path / 'run'}")
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "learning_rate: 0.001" in config and f"command: textgym train {ENV}" in config


def test_quiet_prints_the_folder_alone(textgym, tmp_path):
    code, out, _ = textgym("train", ENV, *TINY.split(), "--run-dir", tmp_path / "run", "--quiet")
    assert (code, out.strip()) == (0, str(tmp_path / "run"))


def test_validate(textgym, run_folder, tmp_path):
    code, out, _ = textgym("validate", run_folder, "--episodes", 32, "--json", tmp_path / "scores.json")
    assert code == 0 and "mean return" in out and "IQM" in out and out.count("→") == 8
    value = json.loads((tmp_path / "scores.json").read_text())
    assert value["episodes"] == 32 and len(value["results"]) == 32
    assert textgym("validate", run_folder, "--episodes", 32)[1] == out


def test_the_modules_are_the_commands(run_folder, tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300)

    done = run("agents.validate", str(run_folder), "--episodes", "4")
    assert done.returncode == 0 and "mean return" in done.stdout
    refused = run("agents.train", "TextGen/Revers-v0")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "Traceback" not in refused.stderr


class TestPlay:
    def play(self, textgym, monkeypatch, text, *arguments):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return textgym("play", ENV, "--seed", 1, "--env-arg", "length=2", *arguments)

    def test_by_text_and_by_number(self, textgym, monkeypatch):
        _, out, _ = self.play(textgym, monkeypatch, ":q\n")
        prompt = out.split("prompt: ")[1].split("\n")[0].split()
        number = str("abcdefghijklmno".index(prompt[0]))
        code, out, _ = self.play(textgym, monkeypatch, f"{prompt[1]}\n{number}\n<eos>\n")
        assert code == 0 and "end:    return 1.000" in out and "1 episode, mean return 1.000" in out
        assert "legal:  0 a  1 b" in out

    def test_several_tokens_in_a_line(self, textgym, monkeypatch):
        _, out, _ = self.play(textgym, monkeypatch, "a b c d\na\n")
        assert "text:   a b c d " in out and out.count("end:") == 1

    def test_what_is_no_token_is_explained(self, textgym, monkeypatch):
        code, out, _ = self.play(textgym, monkeypatch, "zz\n99\n<eo>\n\n")
        assert code == 0 and "'99' is no token and no number from 0 to 15" in out
        assert "did you mean <eos>?" in out and "text:" not in out

    def test_wrong_arguments(self, textgym, monkeypatch):
        code, _, err = self.play(textgym, monkeypatch, "", "--env-arg", "length=0")
        assert code == 2 and "length must be an integer of at least 1, got 0" in err


class TestTune:
    TINY = "--steps 200 --n-envs 8 --env-arg length=2 --env-arg vocab_size=3 --set learning_starts=32"
    TINY += " --set policy_kwargs.n_layers=1 --set policy_kwargs.n_heads=2"

    @pytest.fixture
    def space(self, tmp_path):
        file = tmp_path / "space.yaml"
        file.write_text("policy_kwargs.features_dim: [8, 16]\nlearning_rate: {low: 1e-4, high: 1e-2, log: true}\n")
        return file

    def test_tune_resume_report_and_train(self, textgym, space, tmp_path):
        folder = tmp_path / "study"
        line = ["tune", ENV, *self.TINY.split(), "--space", space, "--out", folder]
        code, out, _ = textgym(*line, "--trials", 1)
        assert code == 0 and "trial   0  0." in out and "policy_kwargs.features_dim=" in out
        code, out, _ = textgym(*line, "--trials", 2, "--figures", tmp_path / "figures")
        assert code == 0 and "trial   1  0." in out and "2 trials: 2 finished; 1 seed(s) a trial, gp" in out
        assert (tmp_path / "figures" / "convergence.png").exists()
        before = (folder / "study.jsonl").read_bytes()
        assert before.count(b"\n") == 3
        assert textgym("tune", folder, "--quiet") == (0, f"{folder / 'best.yaml'}\n", "")
        assert textgym(*line, "--trials", 2)[0] == 0
        assert (folder / "study.jsonl").read_bytes() == before
        code, out, _ = textgym("tune", folder, "--trials", 3)
        assert code == 0 and "trial   2  0." in out and "3 trials: 3 finished" in out
        train = ["train", "--config", folder / "best.yaml", "--run-dir", tmp_path / "run", "--quiet"]
        assert textgym(*train)[0] == 0

    def test_another_seed_is_another_study(self, textgym, space, tmp_path):
        line = ["tune", ENV, *self.TINY.split(), "--space", space, "--out", tmp_path / "study", "--trials", 1]
        assert textgym(*line)[0] == 0
        code, _, err = textgym(*line, "--seed", 1)
        assert code == 2 and "seed must be 0, as in the study" in err and err.count("\n") == 1
        code, _, err = textgym("tune", tmp_path / "study", "--steps", 3, "--seed", 1)
        assert code == 2 and "a study that exists takes no --steps, --seed: it goes on as it was begun" in err

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (f"tune {ENV} --sampler tpe", "sampler must be one of gp, random, got 'tpe'"),
            (f"tune {ENV} --stopping never", "stopping must be one of median, halving or None, got 'never'"),
            (f"tune {ENV} --engine dask", "engine must be one of loky, ray, got 'dask'"),
            (f"tune {ENV} --space /nowhere.yaml", "can't read /nowhere.yaml: No such file"),
            (f"tune {ENV} --set nonsense=1", "--set takes no argument 'nonsense'"),
            (f"tune {ENV} --jobs 0", "'--jobs'"),
            ("tune TextGen/Revers-v0", "did you mean TextGen/Reverse-v0"),
            ("tune .", "it holds no study"),
        ],
    )
    def test_wrong_arguments(self, textgym, line, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, _, err = textgym(*line.split())
        assert code == 2 and err.startswith("textgym: error: ") and err.count("\n") == 1 and message in err
        assert not list(tmp_path.iterdir())

    def test_a_wrong_space(self, textgym, tmp_path):
        file = tmp_path / "space.yaml"
        for text, message in (
            ("lerning_rate: [1, 2]", "--space takes no argument 'lerning_rate'; did you mean learning_rate"),
            ("tau: {low: 1, high: 0}", "tau.high must be above low, 1, got 0"),
        ):
            file.write_text(text)
            code, _, err = textgym("tune", ENV, "--space", file, "--out", tmp_path / "study")
            assert code == 2 and message in err


def test_a_corrupt_model_is_one_line(textgym, tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 no zip")
    code, _, err = textgym("validate", tmp_path / "bad.zip", "--env", ENV)
    assert code == 2 and err.count("\n") == 1 and "bad.zip" in err


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="did you mean TextGen/Reverse-v0"):
        main(["train", "TextGen/Revers-v0", "--debug"])
