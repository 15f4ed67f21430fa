"""Checkpoints: a run that was stopped or killed ends as one that was not; files that are damaged are noticed."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import LinearSchedule

from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.application.cli import main
from agents.application.learn_texts import pretrain, resume_any
from agents.application.offline_settings import OfflineSettings
from agents.application.train import resume_run, train
from agents.saving.checkpoint import SaveCheckpoints, get_state
from agents.saving.checkpoint_folder import CheckpointError, CheckpointFolder, TrainingInterrupted
from agents.saving.files import CommandError
from agents.saving.settings import resolve_settings
from agents.saving.state_file import StateFileError, differences, read_state, write_state
from tests.agents.tasks import Echo, OddTokens
from textgym import TextGenVectorEnv

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1}, "learning_starts": 32, "batch_size": 4}
STEPS = 320


def make_model(policy="PerformerPolicy", task=None, **options):
    envs = TextGenVectorEnv(8, task) if task is not None else None
    env = TextGenVecEnv(envs) if envs is not None else make_vec_env(ENV, 8, env_kwargs=ENV_ARGS)
    env.seed(0)
    return DoubleDQN(policy, env, seed=0, **{**TINY, **options})


def stopped_at(model, step, folder):
    with pytest.raises(TrainingInterrupted):
        model.learn(STEPS, SaveCheckpoints(folder, stop=lambda: model.num_timesteps >= step))


def final_state(folder):
    path, value = CheckpointFolder(folder).load()
    assert path.name == f"step-{STEPS:012d}.safetensors"
    return value["state"]


class TestStateFile:
    VALUE: dict = {  # noqa: RUF012
        "plain": [None, True, -(2**200), 0.1, float("inf"), "é\n", (1, [2])],
        "arrays": {"a": np.arange(6, dtype=np.uint64).reshape(2, 3), "b": np.zeros((0, 4), np.float32)},
        3: torch.tensor(2.5),
        "bools": np.array([True, False]),
        "scalar": np.float32(0.5),
    }

    @pytest.fixture
    def file(self, tmp_path):
        assert write_state(tmp_path / "state", self.VALUE) == (tmp_path / "state").stat().st_size
        return tmp_path / "state"

    def test_round_trip(self, file):
        again = read_state(file)
        assert differences({**self.VALUE, "scalar": np.array(0.5, np.float32)}, again) == []
        assert again["arrays"]["a"].flags.writeable
        again["arrays"]["a"][0, 0] += 1
        again["plain"][3] += 1
        assert differences(read_state(file), again) == ["plain/3", "arrays/a"]

    def test_cut_short(self, file):
        content = file.read_bytes()
        for share in range(100):
            file.write_bytes(content[: share * len(content) // 100])
            with pytest.raises(StateFileError):
                read_state(file)

    def test_any_byte_changed(self, file):
        content = file.read_bytes()
        for place in range(0, len(content), 7):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:  # spaces of the header's padding may change without harm
                again = read_state(file)
            except StateFileError:
                continue
            assert differences(again, {**self.VALUE, "scalar": np.array(0.5, np.float32)}) == []

    @pytest.mark.parametrize("value", [{"a": object()}, {"a": np.array(["text"])}, {"a": {1, 2}}])
    def test_what_is_no_plain_value_is_named(self, tmp_path, value):
        with pytest.raises(TypeError, match=r"^a must be"):
            write_state(tmp_path / "state", value)
        assert not list(tmp_path.iterdir())

    def test_another_file(self, tmp_path):
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(3)}, tmp_path / "state")
        with pytest.raises(StateFileError, match=r"must be a checkpoint of textgym"):
            read_state(tmp_path / "state")
        with pytest.raises(StateFileError, match=r"can't read .*nowhere"):
            read_state(tmp_path / "nowhere")


class TestResume:
    @pytest.mark.parametrize(
        ("policy", "task", "options"),
        [
            ("PerformerPolicy", None, {"learning_rate": 1e-3}),
            ("TransformerPolicy", OddTokens, {"n_steps": 2, "buffer_size": 100}),  # masks; replay wraps
            (
                "PerformerPolicy",
                None,
                {
                    "loss": "cross_entropy",
                    "keep_best": True,
                    "best_share": 0.25,
                    "priority_beta_final": 0.2,
                    "buffer_size": 100,
                    "q_lambda": LinearSchedule(0.9, 0.1, 1.0),
                    "tau": 1.0,
                },
            ),
            ("GRUPolicy", Echo, {"exploration": "epsilon", "target_update_interval": 16}),  # replies
        ],
    )
    def test_equals_the_run_that_never_stopped(self, tmp_path, policy, task, options):
        make_model(policy, task and task(), **options).learn(STEPS, SaveCheckpoints(tmp_path / "whole"))
        stopped_at(make_model(policy, task and task(), **options), 120, tmp_path / "parts")
        resumed = make_model(policy, task and task(), **options)
        resumed.learn(STEPS, SaveCheckpoints(tmp_path / "parts", resume=CheckpointFolder(tmp_path / "parts").load()[1]))
        assert resumed._n_updates > 0
        assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []

    def test_a_changed_run_is_noticed(self, tmp_path):
        """That nothing differs above means something: one more update, and much does."""
        model = make_model()
        model.learn(STEPS, SaveCheckpoints(tmp_path))
        saved = final_state(tmp_path)
        model.train(1, 4)
        found = differences(saved, get_state(model))
        assert {"replay", "policy", "optimizer"} <= {name.split("/")[0] for name in found}

    def test_the_last_two_are_kept_and_leftovers_removed(self, tmp_path):
        (tmp_path / ".step-000000000008.1.tmp.safetensors").write_bytes(b"half")
        make_model().learn(64, SaveCheckpoints(tmp_path, every_seconds=0.0))
        assert [path.name for path in sorted(tmp_path.iterdir())] == [
            "step-000000000056.safetensors",
            "step-000000000064.safetensors",
        ]

    def test_a_damaged_one_gives_way_to_the_one_before(self, tmp_path):
        make_model().learn(64, SaveCheckpoints(tmp_path, every_seconds=0.0))
        newest = tmp_path / "step-000000000064.safetensors"
        newest.write_bytes(newest.read_bytes()[:-100])
        with pytest.warns(UserWarning, match=r"64\.safetensors is damaged.*step-000000000056.safetensors, is used"):
            path, _ = CheckpointFolder(tmp_path).load()
        assert path.name == "step-000000000056.safetensors"
        path.write_bytes(b"")
        with pytest.raises(StateFileError, match=r"no checkpoint in .* can be read"):
            CheckpointFolder(tmp_path).load()
        assert CheckpointFolder(tmp_path / "none").load() is None

    def test_another_model_is_refused(self, tmp_path):
        stopped_at(make_model(), 40, tmp_path)
        saved = CheckpointFolder(tmp_path).load()[1]
        with pytest.raises(CheckpointError, match="state must be that of a model with the same arguments"):
            make_model(policy_kwargs={"features_dim": 16, "n_layers": 1}).learn(STEPS, SaveCheckpoints("x", 0, saved))
        other = DoubleDQN("MlpPolicy", "CartPole-v1", seed=0)
        with pytest.raises(ValueError, match=r"env must be that of agents.make_vec_env to be resumed, got DummyVecEnv"):
            other.learn(10, SaveCheckpoints(tmp_path))
        with pytest.raises(ValueError, match="every_seconds must be at least 0, got -1"):
            SaveCheckpoints(tmp_path, -1)


def settings(**options):
    return resolve_settings(**{"env": ENV, "env_args": ENV_ARGS, "agent": TINY, "steps": STEPS, "n_envs": 8, **options})


def files_of(folder):
    rows = list(csv.DictReader((folder / "progress.csv").open()))
    timeless = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]
    return timeless, (folder / "samples.txt").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(settings(), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def ctrl_c_at(monkeypatch):
    """A context in which the process gets Ctrl-C while it chooses an action after so many steps."""

    @contextlib.contextmanager
    def context(step):
        explore = DoubleDQN.explore

        def interrupted(self, *arguments):
            if self.num_timesteps == step - 8:
                os.kill(os.getpid(), signal.SIGINT)
            return explore(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(DoubleDQN, "explore", interrupted)
            yield

    return context


def same_as(whole, folder):
    ours, theirs = (final_state(path / "checkpoint") for path in (whole.folder, folder))
    for state in (ours, theirs):
        del state["random"]  # nothing draws from the global generators, which each process begins anew
    assert differences(ours, theirs) == []
    assert files_of(whole.folder) == files_of(folder)


class TestRuns:
    def test_ctrl_c_and_resume(self, whole, tmp_path, ctrl_c_at):
        before = signal.getsignal(signal.SIGINT)
        with ctrl_c_at(160):
            result = train(settings(), tmp_path / "run")
        assert result.interrupted and result.scores is None and signal.getsignal(signal.SIGINT) is before
        assert not (tmp_path / "run" / "result.json").exists()
        result = resume_run(tmp_path / "run")
        assert not result.interrupted and result.scores == whole.scores
        same_as(whole, tmp_path / "run")
        assert resume_run(tmp_path / "run").scores == whole.scores, "a run that has ended is left alone"

    def test_a_run_that_began_with_demonstrations(self, tmp_path, ctrl_c_at):
        """It does not learn from them again, unless it was killed before its first checkpoint; rehearsal goes on."""
        offline = OfflineSettings(demonstrations=16, objective="cql", epochs=2.0)
        whole = pretrain(settings(steps=160), offline, True, tmp_path / "whole")
        with ctrl_c_at(80):
            assert pretrain(settings(steps=160), offline, True, tmp_path / "run").interrupted
        assert resume_any(tmp_path / "run").scores == whole.scores
        states = [CheckpointFolder(tmp_path / name / "checkpoint").load()[1]["state"] for name in ("whole", "run")]
        for state in states:
            del state["random"]
        assert differences(*states) == []
        (tmp_path / "run" / "result.json").unlink()
        for path in (tmp_path / "run" / "checkpoint").iterdir():
            path.unlink()
        assert resume_any(tmp_path / "run").scores == whole.scores

    def test_the_command(self, whole, tmp_path, ctrl_c_at, capsys):
        def call(*arguments):
            with pytest.raises(SystemExit) as exit_:
                main([str(argument) for argument in arguments])
            captured = capsys.readouterr()
            return exit_.value.code, captured.out, captured.err

        (tmp_path / "config.yaml").write_text((whole.folder / "config.yaml").read_text())
        folder = tmp_path / "run"
        with ctrl_c_at(160):
            code, out, _ = call("train", "--config", tmp_path / "config.yaml", "--run-dir", folder)
        assert code == 130
        assert f"Stopped after 160 steps; 'textgym train --resume {folder}' goes on" in out
        code, _, err = call("train", "--resume", folder, "--steps", 3, "--seed", 1)
        assert code == 2 and "--resume RUN goes on as the run was begun: it takes no --steps, --seed" in err
        code, out, _ = call("train", "--resume", folder)
        assert code == 0 and "going on after 160 steps" in out and out.count("Greedy samples after") == 2
        same_as(whole, folder)
        code, out, _ = call("train", "--resume", folder, "--quiet")
        assert (code, out) == (0, f"{folder}\n")
        newest = folder / "checkpoint" / f"step-{STEPS:012d}.safetensors"
        newest.write_bytes(newest.read_bytes()[:-9])
        (folder / "result.json").unlink()
        code, _, err = call("train", "--resume", folder, "--quiet")
        assert code == 0 and err.startswith("textgym: warning: ") and err.count("\n") == 1 and "is used instead" in err
        same_as(whole, folder)

    def test_kill_9_and_resume(self, whole, tmp_path):
        """A real process, killed without warning while it writes a checkpoint after every step."""
        code = "import sys; from tests.agents.test_checkpoint import *; train(settings(), sys.argv[1], "
        code += "checkpoint_seconds=0)"
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")])
        until = time.monotonic() + 300
        while time.monotonic() < until and not (tmp_path / "run/checkpoint/step-000000000096.safetensors").exists():
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "run" / "result.json").exists()
        assert resume_run(tmp_path / "run").scores == whole.scores
        same_as(whole, tmp_path / "run")

    def test_without_a_checkpoint_it_begins_again(self, whole, tmp_path, monkeypatch):
        def killed(*_, **__):
            raise RuntimeError("as if killed")

        monkeypatch.setattr(DoubleDQN, "train", killed)
        with pytest.raises(RuntimeError):
            train(settings(), tmp_path / "run")
        monkeypatch.undo()
        assert resume_run(tmp_path / "run").scores == whole.scores
        same_as(whole, tmp_path / "run")

    def test_a_full_disk(self, tmp_path):
        """The largest file that the process may write stands in for the disk: the system's answer is the same kind."""
        resource = pytest.importorskip("resource")
        folder = tmp_path / "run"
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill():
            until = time.monotonic() + 60
            while time.monotonic() < until and not list((folder / "checkpoint").glob("step-*")):
                time.sleep(0.001)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            with pytest.raises(CommandError, match=r"can't write to the run folder .*the last checkpoint, step-.* is"):
                train(settings(steps=10**6), folder, checkpoint_seconds=0)
        finally:
            thread.join()
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert CheckpointFolder(folder / "checkpoint").load() is not None
        assert not list((folder / "checkpoint").glob(".*"))

    def test_a_read_only_folder(self, tmp_path):
        (tmp_path / "run").mkdir(mode=0o500)
        if os.access(tmp_path / "run", os.W_OK):
            pytest.skip("root may write everywhere")
        with pytest.raises(CommandError, match=r"can't make the run folder .*: Permission denied"):
            train(settings(), tmp_path / "run")
        assert not list((tmp_path / "run").iterdir())

    def test_errors(self, whole, tmp_path):
        with pytest.raises(CommandError, match=r"--resume must name a run folder .*, which has no config\.yaml"):
            resume_run(tmp_path)
        with pytest.raises(CommandError, match=r"which has content \('textgym train --resume .*' goes on with a run\)"):
            train(settings(), whole.folder)
