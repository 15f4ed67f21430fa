"""Training with a run folder, its files, its callbacks; settings and their precedence."""

import csv
import json
import threading

import numpy as np
import pytest
import yaml

from agents import DoubleDQN, make_vec_env
from agents.application.callbacks import ProgressDisplay, SampleTexts, StopWhen, save_model
from agents.application.run_folder import create_run_folder
from agents.application.train import train
from agents.saving.arguments import constructor_arguments, merge, parse_assignments
from agents.saving.files import CommandError, atomic_write, parse_yaml, write_json
from agents.saving.settings import resolve_settings

TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1, "n_heads": 2}, "learning_starts": 32, "batch_size": 4}
ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}


def settings(**options):
    return resolve_settings(**{"env": ENV, "env_args": ENV_ARGS, "agent": TINY, "steps": 240, "n_envs": 8, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(settings(), tmp_path_factory.mktemp("runs") / "run", command="textgym train")


class TestRunFolder:
    def test_holds_what_it_should_and_no_temporary_file(self, run):
        names = sorted(path.name for path in run.folder.iterdir() if "tfevents" not in path.name)
        files = ["checkpoint", "config.yaml", "model", "model.zip", "progress.csv", "result.json", "samples.txt"]
        assert names == files
        assert [path.name for path in (run.folder / "checkpoint").iterdir()] == ["step-000000000240.safetensors"]
        assert any("tfevents" in path.name for path in run.folder.iterdir())

    def test_progress_can_be_read(self, run):
        rows = list(csv.DictReader((run.folder / "progress.csv").open()))
        steps = [int(row["time/total_timesteps"]) for row in rows]
        assert len(steps) > 10 and steps == sorted(set(steps)) and steps[-1] == 240
        assert np.isfinite(float(rows[-1]["rollout/ep_rew_mean"]))
        losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
        assert losses and np.isfinite(losses).all()

    def test_samples_show_the_same_prompts_before_during_and_after(self, run):
        blocks = (run.folder / "samples.txt").read_text().strip().split("\n\n")
        assert [int(block.split()[3]) for block in blocks] == [0, 64, 120, 184, 240]
        prompts = [[line.split("→")[0].split()[1:] for line in block.splitlines()[1:]] for block in blocks]
        assert len(prompts[0]) == 4 and all(those == prompts[0] for those in prompts)

    def test_result(self, run):
        result = json.loads((run.folder / "result.json").read_text())
        assert result["episodes"] == 256 and result["mean"] == run.scores.mean and 0 <= result["mean"] <= 1
        assert result["steps"] == 240 and result["updates"] > 0
        assert result["normalised"] is None, "references hold for the default arguments only"

    def test_the_configuration_repeats_the_run(self, run, tmp_path):
        config = yaml.safe_load((run.folder / "config.yaml").read_text())
        assert config["env_args"] == ENV_ARGS and config["agent"]["batch_size"] == 4 and "torch" in config["versions"]
        again = train(resolve_settings(config=run.folder / "config.yaml"), tmp_path / "again")
        assert again.scores == run.scores

    def test_a_folder_with_content_is_refused(self, run):
        with pytest.raises(CommandError, match="--run-dir must be a new or an empty folder"):
            train(settings(), run.folder)

    def test_default_folders_do_not_collide(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        folders = {create_run_folder(None, ENV, {}) for _ in range(3)}
        assert len(folders) == 3 and all("TextGen-Reverse-v0" in folder.name for folder in folders)


def test_normalised_score_with_default_arguments(tmp_path):
    result = train(settings(env_args={}, steps=64), tmp_path / "run")
    assert result.scores.references["best"] == 1.0
    assert result.scores.normalised < result.scores.mean + 1e-9


def test_minutes_stop_early(tmp_path):
    result = train(settings(steps=10**6, minutes=0.005), tmp_path / "run")
    assert not result.interrupted
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] < 10**6


class TestSettings:
    def test_options_go_over_the_file_and_the_file_over_the_preset(self, tmp_path):
        file = tmp_path / "config.yaml"
        file.write_text("env: TextGen-v0\nsteps: 7\nn_envs: 3\nagent: {tau: 1e-1, policy_kwargs: {n_layers: 1}}\n")
        made = resolve_settings(config=file, steps=9, agent={"policy_kwargs": {"features_dim": 8}})
        assert (made.env, made.steps, made.n_envs, made.agent["tau"]) == ("TextGen-v0", 9, 3, 0.1)
        assert made.agent["policy_kwargs"] == {"n_layers": 1, "features_dim": 8}
        assert made.agent["double_q"] is True, "defaults are written out, so that later ones change nothing"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"env": None}, "ID must name an environment"),
            ({"steps": 0}, "--steps must be an integer of at least 1, got 0"),
            ({"n_envs": 0}, "--n-envs must be an integer of at least 1, got 0"),
            ({"seed": -1}, "--seed must be an integer of at least 0, got -1"),
            ({"minutes": -1.0}, "--minutes must be greater than 0, got -1.0"),
            ({"agent": {"lerning_rate": 1}}, "no argument 'lerning_rate'; did you mean learning_rate"),
            ({"agent": {"policy_kwargs": {"layers": 1}}}, "no argument 'layers'; accepted: .*n_layers"),
            ({"agent": {"policy_kwargs": 3}}, "policy_kwargs must be a mapping"),
        ],
    )
    def test_errors_name_the_argument(self, options, message):
        with pytest.raises(CommandError, match=message):
            settings(**options)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("stepz: 1", "unknown key 'stepz'; accepted: env, "),
            ("- 1", "must hold a YAML mapping"),
            ("a: [", "must be valid YAML"),
            ("agent: 3", "agent must be a mapping"),
            ("env: TextGen/Copy-v0", "ID must be that of --config"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(CommandError, match=message):
            settings(config=tmp_path / "c.yaml")

    def test_what_environment_and_agent_refuse(self, tmp_path):
        with pytest.raises(CommandError, match=r"--env-arg.*length must be an integer of at least 1, got 0"):
            train(settings(env_args={"length": 0}), tmp_path / "a")
        with pytest.raises(CommandError, match="--set: tau must be in"):
            train(settings(agent={"tau": 3}), tmp_path / "b")
        with pytest.raises(CommandError, match=r"--device must be .*, got 'abacus'"):
            train(settings(device="abacus"), tmp_path / "c")
        assert not any(tmp_path.iterdir()), "a refused run leaves no folder"


def test_assignments():
    pairs = ["a=1e-3", "b.c=true", "b.d=[1, x]", "e=x=y", "f="]
    assert parse_assignments("--set", pairs) == {"a": 1e-3, "b": {"c": True, "d": [1, "x"]}, "e": "x=y", "f": None}
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    for wrong in ("a", "=1", "a..b=1"):
        with pytest.raises(CommandError, match="must be key=value"):
            parse_assignments("--set", [wrong])
    with pytest.raises(CommandError, match="can't hold keys"):
        parse_assignments("--set", ["a=1", "a.b=2"])


def test_yaml_numbers():
    assert parse_yaml("[1e-3, 2E5, 1.5e3, .5e-1, 1e, e1]", "x") == [1e-3, 2e5, 1500.0, 0.05, "1e", "e1"]


def test_a_learning_rate_may_be_a_schedule():
    schedule = constructor_arguments({"learning_rate": {"start": 0.2, "end": 0.1}})["learning_rate"]
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == pytest.approx([0.2, 0.15, 0.1])
    assert constructor_arguments({"learning_rate": 0.1}) == {"learning_rate": 0.1}
    with pytest.raises(CommandError, match="learning_rate must be a number or have start, end and fraction"):
        constructor_arguments({"learning_rate": {"from": 1}})


class TestAtomicWrite:
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = tmp_path / "result.json"
        write_json(path, {"a": 1})
        with pytest.raises(RuntimeError), atomic_write(path) as temporary:
            temporary.write_text("{half")
            raise RuntimeError
        assert json.loads(path.read_text()) == {"a": 1}
        assert list(tmp_path.iterdir()) == [path]


class TestCallbacks:
    """With an SB3 agent of another kind: they are for any."""

    @pytest.fixture
    def model(self):
        from stable_baselines3 import PPO

        env = make_vec_env(ENV, 4, seed=0, env_kwargs=ENV_ARGS)
        return PPO("MlpPolicy", env, n_steps=8, batch_size=32, n_epochs=1, seed=0, device="cpu")

    def test_sample_texts(self, model):
        seen = []
        env = make_vec_env(ENV, 2, seed=5, env_kwargs=ENV_ARGS)
        model.learn(128, SampleTexts(env, every=50, n_samples=3, seed=5, show=lambda *args: seen.append(args)))
        assert [steps for steps, _ in seen] == [0, 52, 100, 128]
        assert all(len(result.returns) == 3 and result.prompts == seen[0][1].prompts for _, result in seen)

    def test_progress_display_without_a_terminal(self, model, capsys):
        from rich.console import Console

        display = ProgressDisplay(128, Console(force_terminal=False))
        model.learn(128, display)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 10 and lines[-1].startswith("128/128 steps  return ")
        assert "steps/s" in lines[0] and "updates/s" in lines[0] and "left" in lines[0]

    def test_progress_display_on_a_terminal(self, model, capsys):
        from rich.console import Console

        model.learn(128, ProgressDisplay(128, Console(force_terminal=True, width=120), time_limit=60.0))
        assert "128/128 steps" in capsys.readouterr().out

    def test_stop_when(self, model):
        model.learn(10_000, StopWhen(lambda: model.num_timesteps >= 40))
        assert model.num_timesteps == 40

    @pytest.mark.parametrize("arguments", [{"every": 0}, {"every": 1, "n_samples": 0}])
    def test_arguments(self, arguments):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            SampleTexts(make_vec_env(ENV, 1), **arguments)


def test_a_failed_save_leaves_the_old_model(tmp_path):
    model = DoubleDQN("PerformerPolicy", make_vec_env(ENV, 2, seed=0, env_kwargs=ENV_ARGS), seed=0, **TINY)
    save_model(model, tmp_path / "model.zip")
    old = (tmp_path / "model.zip").read_bytes()
    model.unpicklable = threading.Lock()
    with pytest.raises(TypeError):
        save_model(model, tmp_path / "model.zip")
    assert (tmp_path / "model.zip").read_bytes() == old and len(list(tmp_path.iterdir())) == 1
