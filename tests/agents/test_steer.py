"""``textgym steer``: one command from a model, prompts and a reward to a run folder; what can go wrong is one line."""

import csv
import json
import shutil

import pytest
import yaml

from agents.application.learn_texts import resume_any
from agents.application.run_folder import find_model
from agents.application.steer import Steering, steer, steering_settings
from agents.application.train import train
from agents.saving.checkpoint_folder import CheckpointFolder
from agents.saving.files import CommandError
from agents.saving.named_rewards import named_reward
from agents.saving.state_file import differences
from tests.agents.tiny_language_models import WORDS, save_llama
from textgym.rewards import Distinctness

REWARD = '''
import math


def echo(prompts, completions, **columns):
    """Three words at most are written."""
    pairs = zip(prompts, completions)
    return [sum(word in prompt.split() for word in text.split()) / 3 for prompt, text in pairs]


def broken(prompts, completions, **columns):
    return 1 / 0


def nan(prompts, completions, **columns):
    return [math.nan for _ in prompts]


def large(prompts, completions, **columns):
    return [2.0 for _ in prompts]


def late(prompts, completions, **columns):
    return [float("nan") if len(prompts) > 2 else 0.5 for _ in prompts]
'''
TINY = {"policy_kwargs": {"candidates": 6, "width": 16}, "learning_starts": 32, "batch_size": 8, "buffer_size": 2_000}
SET = (
    "--set policy_kwargs.candidates=6 --set policy_kwargs.width=16 --set learning_starts=32 --set batch_size=8".split()
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steer")
    save_llama(folder / "lm")
    (folder / "steer_rewards.py").write_text(REWARD)
    (folder / "prompts.txt").write_text("".join(f"w{a} w{b}\n\n" for a in range(5) for b in range(5)))
    return folder


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.chdir(place)


def steering(**given):
    from pathlib import Path

    values = {"model": Path("lm"), "prompts": Path("prompts.txt"), "reward": "steer_rewards:echo", "length": 3}
    return Steering(**{**values, **given})


def line(textgym, *arguments, reward="steer_rewards:echo", model="lm", prompts="prompts.txt"):
    given = ["--model", model, "--prompts", prompts, "--reward", reward, "--length", 3, *SET]
    return textgym("steer", *given, *arguments)


def after(mark, text):
    return text[text.index(mark) :]


def one_line(err):
    """Beside the progress bars that transformers draws where a test has loaded it before the command."""
    lines = [text for text in err.split("\n") if text and "it/s]" not in text]
    return len(lines) == 1 and lines[0].startswith("textgym: error: ")


@pytest.fixture(scope="module")
def run(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return steer(steering(), tokens=800, out=place / "run", agent=TINY, n_envs=16).folder


def test_what_the_command_leaves_and_prints(textgym, place):
    code, out, err = line(textgym, "--tokens", 320, "--n-envs", 16, "--out", place / "printed")
    assert code == 0, err
    assert "KL" in out and "nats a text" in out and "Sampled on 64 held-out prompts" in out
    assert out.count("plain ") == out.count("steered ") == 7, "a row of figures and six of texts"
    names = {path.name for path in (place / "printed").iterdir()}
    assert {"config.yaml", "progress.csv", "samples.txt", "checkpoint", "model", "result.json", "steered.json"} <= names
    rows = list(csv.DictReader((place / "printed" / "progress.csv").open()))
    assert any(row["rollout/kl_nats"] and float(row["rollout/kl_nats"]) >= 0 for row in rows)


def test_texts_of_held_out_prompts_are_better_and_not_far_away(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    trained, held_out = config["env_args"]["prompts"], config["eval_args"]["prompts"]
    assert len(trained) == 22 and len(held_out) == 3 and not set(trained) & set(held_out)
    value = json.loads((run / "steered.json").read_text())
    assert {text["prompt"] for text in value["texts"]} <= set(held_out) and len(value["texts"]) == 64
    assert value["steered"]["nats"] > 0 and set(value["plain"]) == {"reward", "interval"}
    assert all(text["nats"] >= 0 for text in value["texts"])
    for name in ("plain", "steered"):
        assert len({text[name] for text in value["texts"]}) > 2 * len(held_out), "they are drawn, not greedy"


def test_a_run_that_was_stopped_ends_with_the_same_bits(place, run):
    settings = steering_settings(steering(), TINY, steps=800, n_envs=16)
    stopped = place / "stopped"

    class Stop(Exception):
        pass

    def prepare(model, folder, stop):
        steps = []

        def on_step():
            steps.append(0)
            if len(steps) == 20:
                raise Stop

        model._path.on_step = on_step

    with pytest.raises(Stop):
        train(settings, stopped, prepare=prepare, checkpoint_seconds=0)
    with pytest.raises(CommandError, match=r"config.yaml names the reward 'steer_rewards:echo'.*--trust does so"):
        resume_any(stopped)
    resume_any(stopped, trust=True)
    (_, one), (_, two) = (CheckpointFolder(folder / "checkpoint").load() for folder in (run, stopped))
    assert differences(one["state"], two["state"]) == []
    assert (run / "steered.json").read_text() == (stopped / "steered.json").read_text()


def test_validate_export_and_report(textgym, run, place, tmp_path):
    code, out, err = textgym("validate", run, "--episodes", 16, "--trust")
    assert code == 0 and "mean return" in out, err
    config = yaml.safe_load((run / "config.yaml").read_text())
    shown = {text.split("→")[0].split(maxsplit=1)[1].strip() for text in out.splitlines() if "→" in text}
    assert shown <= set(config["eval_args"]["prompts"])
    code, _, err = textgym("export", run, tmp_path / "model")
    assert code == 0, err
    code, again, err = textgym("validate", tmp_path / "model", "--episodes", 16, "--trust")
    assert code == 0 and after("mean return", again) == after("mean return", out), err
    shutil.copytree(place / "lm", tmp_path / "moved")
    moved = textgym("validate", run, "--episodes", 16, "--trust", "--model", tmp_path / "moved")[1]
    assert after("mean return", moved) == after("mean return", out)
    code, _, err = textgym("report", run, "--out", tmp_path / "page.html", "--episodes", 4, "--trust")
    assert code == 0 and "w1" in (tmp_path / "page.html").read_text(), err


def test_nothing_that_a_folder_names_is_imported_unasked(textgym, run, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env_args"]["reward"], config["eval_args"]["reward"] = None, "steer_rewards:echo"
    (hidden / "config.yaml").write_text(yaml.safe_dump(config))
    for arguments in (
        ("validate", run),
        ("report", run, "--out", tmp_path / "page.html"),
        ("play", run),
        ("train", "--resume", hidden),
        ("train", "--config", run / "config.yaml", "--run-dir", tmp_path / "new"),
        ("train", "--config", hidden / "config.yaml", "--run-dir", tmp_path / "new"),
    ):
        code, _, err = textgym(*arguments)
        assert code == 2 and one_line(err) and "--trust" in err
    assert textgym("export", run, tmp_path / "model")[0] == 0, "it asks for no reward"


def test_validate_draws_from_the_top_p(textgym, run):
    titles = []
    for top_p in (1, 0.5):
        code, out, err = textgym("validate", run, "--episodes", 16, "--trust", "--top-p", top_p)
        assert code == 0, err
        titles.append(out.splitlines()[0])
        assert f"top-p {top_p}, KL " in titles[-1] and " nats a text, seeds from" in titles[-1]
    everything, half = (float(title.split("KL ")[1].split()[0]) for title in titles)
    assert 0 < everything < half, "what is left out costs nats"
    for given, message in (
        ((run, "--trust", "--top-p", 0), "--top-p must be a number in (0, 1], got 0.0"),
        ((run, "--trust", "--top-p", 2), "--top-p must be a number in (0, 1], got 2.0"),
        (("lm", "--env", "TextGen-v0", "--top-p", 0.5), "--top-p is for steered language models"),
    ):
        code, _, err = textgym("validate", *given)
        assert code == 2 and one_line(err) and message in err, err


def test_another_model_in_the_folder_is_refused(textgym, run, tmp_path):
    save_llama(tmp_path / "other", seed=1)
    code, _, err = textgym("validate", run, "--trust", "--model", tmp_path / "other")
    assert code == 2 and one_line(err) and "other weights" in err
    save_llama(tmp_path / "tokens", words=("x0", *WORDS[1:]))
    code, _, err = textgym("validate", run, "--trust", "--model", tmp_path / "tokens")
    assert code == 2 and one_line(err)


def test_errors_are_one_line(textgym, place, tmp_path):
    shutil.copytree(place / "lm", tmp_path / "bare")
    for file in (tmp_path / "bare").glob("token*"):
        file.unlink()
    save_llama(tmp_path / "short", positions=5)
    shutil.copytree(place / "lm", tmp_path / "larger")
    save_llama(tmp_path / "words", words=(*WORDS[:-1], "w5", "w6", "<eos>"))
    for file in (tmp_path / "words").glob("token*"):
        shutil.copy(file, tmp_path / "larger" / file.name)
    (tmp_path / "blank.txt").write_text("\n \n")
    cases = (
        ({"model": tmp_path / "nowhere"}, "--model must be a folder with a causal language model and its tokenizer"),
        ({"model": tmp_path / "bare"}, "--model must be a folder with a causal language model and its tokenizer"),
        ({"model": tmp_path / "larger"}, "path must hold a model with at least the 8 tokens of the tokenizer"),
        ({"model": tmp_path / "short"}, "--length must leave room for the prompts in the 5 tokens"),
        ({"prompts": tmp_path / "nothing.txt"}, "--prompts must be a UTF-8 text file"),
        ({"prompts": tmp_path / "blank.txt"}, "--prompts must hold a prompt a line"),
        ({"reward": "steer_rewards"}, "--reward: reward must be module:function, got 'steer_rewards'"),
        ({"reward": "steer_rewards:none"}, "can't be imported: AttributeError"),
        ({"reward": "no_such_module:f"}, "can't be imported: ModuleNotFoundError"),
        ({"reward": "steer_rewards:broken"}, "reward 'broken' raised ZeroDivisionError"),
        ({"reward": "steer_rewards:nan"}, "reward 'nan' must return finite numbers, got nan"),
        ({"reward": "steer_rewards:large"}, "must return numbers in [0, 1], got 2.0: scale it"),
        ({"reward": "steer_rewards:late"}, "reward 'late' must return finite numbers, got nan"),
    )
    for number, (given, message) in enumerate(cases):
        code, _, err = line(textgym, "--tokens", 64, "--out", tmp_path / f"run{number}", **given)
        assert code == 2 and one_line(err) and message in err, (given, err)
    for arguments, message in (
        (("--held-out", 25), "--held-out must be from 0 to 24"),
        (("--length", 0), "--length must be at least 1"),
        (("--set", "keep_best=true"), "keep_best must be False for LanguageModelPolicy"),
        (("--set", "policy_kwargs.n_layers=2"), "policy_kwargs takes no argument 'n_layers'"),
        (("--set", "buffer_size=100000000000", "--tokens", 10**12), "the disk must have"),
        (("--out", place), "must be a new or an empty folder"),
    ):
        code, _, err = line(textgym, *arguments)
        assert code == 2 and one_line(err) and message in err, (arguments, err)
    code, _, err = textgym("steer", "--model", "lm")
    assert code == 2 and "textgym steer needs --prompts, --reward" in err
    code, _, err = textgym("steer", "--resume", tmp_path, "--tokens", 5)
    assert code == 2 and "it takes no --tokens" in err


def test_no_room_on_the_disk(textgym, place, monkeypatch):
    usage = shutil.disk_usage(place)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1_000))
    code, _, err = line(textgym, "--tokens", 100, "--out", place / "full")
    assert code == 2 and "the disk must have" in err and not (place / "full").exists()


def test_one_prompt_is_trained_on_and_shown(place):
    (place / "one.txt").write_text("w1 w2\n")
    settings = steering_settings(steering(prompts=place / "one.txt"), TINY, steps=10)
    assert settings.env_args["prompts"] == settings.fresh_args["prompts"] == ["w1 w2"]


def test_dense_rewards_in_training_alone(textgym, place):
    code, out, err = line(textgym, "--tokens", 320, "--n-envs", 16, "--dense", "--out", place / "dense")
    assert code == 0, err
    config = yaml.safe_load((place / "dense" / "config.yaml").read_text())
    assert config["env_args"]["dense"] is True and config["eval_args"]["dense"] is False
    assert config["agent"]["policy_kwargs"]["candidate_rewards"] is True  # presets.DENSE_STEERING
    assert "Sampled on 64 held-out prompts" in out
    code, out, err = textgym("validate", place / "dense", "--episodes", 8, "--trust")
    assert code == 0, err


def test_a_reward_may_be_one_of_ours():
    assert isinstance(named_reward("textgym.rewards:Distinctness"), Distinctness)


def test_the_model_of_a_run_names_its_environment(run):
    path, config = find_model(run / "model")
    assert path == run / "model" and config["policy"] == "LanguageModelPolicy"
