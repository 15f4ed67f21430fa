"""Model cards: front matter that a hub reads, the run's own scores, and nothing of this machine."""

import json
from dataclasses import replace

import pytest
import yaml

import agents
from agents.application.train import train
from agents.application.validate import export, validate
from agents.double_dqn.evaluation import Scores
from agents.saving.files import CommandError
from agents.saving.model_card import model_card
from agents.saving.settings import resolve_settings

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
SCORES = Scores(
    **{"episodes": 64, "mean": 0.51234, "mean_interval": (0.4, 0.6), "iqm": 0.55, "iqm_interval": (0.5, 0.7)},
    **{"mean_length": 3.0, "normalised": 0.45, "normalised_interval": (0.3, 0.6)},
    references={"random": 0.05, "blind": 0.2, "best": 1.0},
)
CONFIG = {
    "policy": "PerformerPolicy",
    "num_timesteps": 12_000,
    "agent": {"gamma": 0.5, "policy_kwargs": {"model": "/home/me/lm", "other": "C:\\me\\lm"}},
    "versions": {"textgym": "0.1.0"},
    "environment": {"env": ENV, "env_args": {}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    agent = {"policy_kwargs": {"features_dim": 8, "n_layers": 1}, "learning_starts": 32, "batch_size": 4}
    settings = resolve_settings(ENV, env_args=ENV_ARGS, agent=agent, steps=160, n_envs=8)
    return train(settings, tmp_path_factory.mktemp("runs") / "run")


def front_matter(card):
    start, text, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(text)


def test_front_matter_of_a_hub():
    from huggingface_hub import ModelCard

    card = model_card(CONFIG, "reverser", SCORES, license_id="mit")
    found = front_matter(card)
    assert (found["library_name"], found["license"]) == ("textgym", "mit")
    assert {"reinforcement-learning", "textgym", ENV} <= set(found["tags"])
    (index,) = found["model-index"]
    (result,) = index["results"]
    assert index["name"] == "reverser" and result["dataset"]["type"] == ENV
    assert [metric["value"] for metric in result["metrics"]] == [0.5123, 0.55, 0.45]
    assert result["metrics"][0]["args"] == {"episodes": 64, "interval_95": [0.4, 0.6]}
    read = ModelCard(card)  # as their tool reads it, with its checks
    assert len(read.data.eval_results) == 3 and read.data.eval_results[0].metric_type == "mean_reward"


def test_without_scores_or_licence_there_are_no_keys_for_them():
    found = front_matter(model_card(CONFIG, "reverser"))
    assert not {"license", "model-index"} & found.keys()
    assert "Not measured" in model_card(CONFIG, "reverser")
    without = {key: value for key, value in CONFIG.items() if key != "environment"}
    assert "## Task" not in model_card(without, "reverser", SCORES)
    unrated = replace(SCORES, normalised=None, normalised_interval=None, references=None)
    assert "normalised" not in model_card(CONFIG, "reverser", unrated)


def test_what_it_says():
    card = model_card(CONFIG, "reverser", SCORES, "0.5  a ``` b → b", None)
    assert "| mean return | 0.512 | 0.400 to 0.600 |" in card and "random 0.050" in card
    assert "````\n0.5  a ``` b → b\n````" in card, "no text can end the block that it stands in"
    assert "/home/me" not in card and "C:\\" not in card and "model: lm" in card
    assert "after 12,000 tokens" in card


@pytest.mark.parametrize("license_id", ["", "My licence", "mit\n- x"])
def test_a_licence_is_an_identifier(license_id):
    with pytest.raises(ValueError, match="license must be an identifier of small letters"):
        model_card(CONFIG, "reverser", license_id=license_id)


def test_a_run_goes_along_with_its_scores(run, tmp_path, textgym):
    code, _, _ = textgym("export", run.folder, tmp_path / "model", "--license", "apache-2.0")
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    metrics = front_matter(card)["model-index"][0]["results"][0]["metrics"]
    assert code == 0 and metrics[0]["value"] == pytest.approx(run.scores.mean, abs=1e-4)
    assert [line for line in card.splitlines() if " → " in line], "the last texts of the run"
    assert card.count("Greedy samples") == 0
    lines = card.split("```python\n")[1].split("```")[0].replace('snapshot_download("USER/NAME")', "folder")
    namespace = {"folder": tmp_path / "model"}
    exec(lines, namespace)
    assert len(lines.strip().splitlines()) == 3 and namespace["model"].num_timesteps == 160
    assert validate(tmp_path / "model")[1] == run.scores
    again = export(tmp_path / "model", tmp_path / "again")
    assert "Not measured" in (again / "README.md").read_text("utf-8")
    assert agents.load(again).num_timesteps == 160


def test_scores_of_another_environment_are_not_claimed(run, tmp_path):
    folder = export(run.folder, tmp_path / "model", ENV, ENV_ARGS)
    assert "Not measured" in (folder / "README.md").read_text("utf-8")


def test_no_scores_of_a_damaged_or_unfinished_run(run, tmp_path):
    import shutil

    shutil.copytree(run.folder, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").write_text(json.dumps(result | {"mean": "high"}))
    (tmp_path / "run" / "samples.txt").unlink()
    card = (export(tmp_path / "run", tmp_path / "a") / "README.md").read_text("utf-8")
    assert "Not measured" in card and "## Texts" not in card


def test_errors(run, tmp_path):
    with pytest.raises(CommandError, match=r"--license must be an identifier .* got 'My licence'"):
        export(run.folder, tmp_path / "model", license_id="My licence")
    assert not (tmp_path / "model").exists()
