import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agents.pruning.language_model import load_language_model
from agents.saving.json_lines import append, read
from benchmarks import steering, steering_figure, steering_methods, steering_tasks
from benchmarks.steering_policies import Finetuned, LookAhead, Plain, RewardLookAhead, sample
from tests.agents.tiny_language_models import WORDS, save_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"), words=(*WORDS[:-1], "good", "bad", "water", "<eos>"))


@pytest.fixture
def model(folder):
    return load_language_model(folder)


def test_prompts_are_of_the_same_kinds_in_training_and_evaluation():
    training, held_out = steering_tasks.prompts()
    assert len(training) == 24 and len(held_out) == 64 and len({*training, *held_out}) == 88
    assert {prompt.split()[0] for prompt in training} == {prompt.split()[0] for prompt in held_out}
    assert steering_tasks.prompts(1) != (training, held_out)


def test_rewards_rise_with_what_they_are_named_for(model):
    steering_tasks.judge_by(model)
    good, bad = steering_tasks.positive(["", ""], ["a good day", "a bad day"])
    assert 0 <= bad < 0.5 < good <= 1
    some, none = steering_tasks.keywords(["w1", "w1"], ["water w2", "w3 w2"])
    assert none == 0 < some <= 1 / 3
    unlikely, likely = sorted(np.exp(0.5 * row[0]) for row in model.text_log_probs(["w1"] * 2, ["w2", "w3"]))
    assert sorted(steering_tasks.likelihood(["w1"] * 2, ["w2", "w3"])) == pytest.approx([unlikely, likely])


def test_best_of_is_the_mean_over_all_choices():
    rewards = np.array([[0.1], [0.5], [0.9]])
    assert steering.best_of(rewards, 1) == pytest.approx(0.5)
    assert steering.best_of(rewards, 2) == pytest.approx((0.5 + 0.9 + 0.9) / 3)
    assert steering.best_of(rewards, 3) == pytest.approx(0.9)


class _Uniform:
    def __init__(self, model):
        self.model = Plain(model)

    def log_probs(self, rows, lengths, starts):
        _, plain = self.model.log_probs(rows, lengths, starts)
        return torch.full_like(plain, -math.log(plain.shape[1])), plain


def test_divergence_and_surprise_are_those_of_the_texts(model):
    plain = sample(Plain(model), model, ["w1 w2"] * 200, 3, seed=0, rows_at_once=50)
    assert (plain.nats == 0).all()
    expected = [-np.sum(row) for row in model.text_log_probs(plain.prompts, [_with_end(text) for text in plain.texts])]
    assert plain.surprise == pytest.approx(expected, abs=1e-4)
    uniform = sample(_Uniform(model), model, ["w1 w2"] * 400, 1, seed=0)
    log_plain = Plain(model).log_probs(np.array([[1, 2]]), np.array([2]), np.array([2]))[1][0].double()
    assert uniform.nats.mean() == pytest.approx(float((-log_plain - math.log(len(log_plain))).mean()), abs=1e-5)


def _with_end(text):
    words = text.split()
    return " ".join([*words, "<eos>"] if len(words) < 3 else words)


def test_looking_ahead_is_reading_each_candidate(model):
    guided = LookAhead(model, torch.nn.Linear(32, 1), strength=2.0, candidates=3)
    rows, lengths = np.array([[1, 2, -1], [3, -1, -1]]), np.array([2, 1])
    log_policy, log_plain = guided.log_probs(rows, lengths, lengths)
    assert log_policy.exp().sum(dim=1) == pytest.approx(1, abs=1e-5)
    best, tokens = log_plain.topk(3, dim=1)
    for row in range(2):
        texts = np.array([[*rows[row, : lengths[row]], int(token)] for token in tokens[row]])
        reader = load_language_model(model.path)
        reader.log_probs(texts, np.full(3, texts.shape[1]))
        values = guided.value(reader.hidden.clone()).squeeze(1).detach()
        expected = (best[row] + 2.0 * values).log_softmax(dim=0) + best[row].logsumexp(dim=0)
        assert log_policy[row, tokens[row]].numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_asking_the_reward_is_asking_about_each_candidate(model):
    """The reward gets the prompt and the text so far with each candidate."""

    def echo(prompts, completions):
        return [
            sum(word in prompt.split() for word in text.split()) / 4
            for prompt, text in zip(prompts, completions, strict=True)
        ]

    tokens = [model.tokenizer.encode(text) for text in ("w1 w2", "w1 w3")]  # one prompt and no text, one and one
    rows, lengths, starts = np.array(tokens), np.array([2, 2]), np.array([2, 1])
    log_policy, log_plain = RewardLookAhead(model, echo, 10.0, 3).log_probs(rows, lengths, starts)
    best, candidates = log_plain.topk(3, dim=1)
    words = [[model.tokenizer.decode([token]) for token in row] for row in candidates.tolist()]
    rewards = [echo(["w1 w2"] * 3, words[0]), echo(["w1"] * 3, [f"w3 {word}" for word in words[1]])]
    expected = (best + 10.0 * torch.tensor(rewards)).log_softmax(dim=1) + best.logsumexp(dim=1, keepdim=True)
    torch.testing.assert_close(log_policy.gather(1, candidates), expected, atol=1e-5, rtol=1e-5)


def test_a_fine_tuned_model_diverges_from_the_plain_one_and_leaves_it_alone(model):
    def water(prompts, completions):
        return [text.split().count("water") / max(1, len(text.split())) for text in completions]

    task = steering_methods.Task(model, water, ["w1 w2", "w3"], tokens=8_000, seed=0)
    before = sample(Plain(model), model, ["w1"] * 200, 4, seed=1)
    points = list(steering_methods.cloning(task, learning_rate=1e-2))
    assert [name for name, _ in points] == ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    after = sample(points[-1][1], model, ["w1"] * 200, 4, seed=1)
    assert isinstance(points[-1][1], Finetuned) and after.nats.mean() > 0.01
    assert np.mean(water(None, after.texts)) > 1.5 * np.mean(water(None, before.texts))
    assert sample(Plain(model), model, ["w1"] * 200, 4, seed=1).texts == before.texts


@pytest.mark.slow
def test_every_method_leaves_points_and_is_not_run_twice(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(steering, "SEEDS", (0,))
    monkeypatch.setattr(steering, "REWARDS", {"positive": steering_tasks.positive})
    out = tmp_path / "results.jsonl"
    arguments = ["--model", str(folder), "--out", str(out), "--tokens", "4000", "--n-held-out", "4"]
    for _ in range(2):
        assert CliRunner().invoke(steering.app, [*arguments, "--plain-samples", "4"]).exit_code == 0
    rows = {row["cell"]: row for row in read(out)}
    assert set(rows) == {"plain_positive", *(f"{method}_positive_seed0" for method in steering_methods.METHODS)}
    assert len(read(out)) == len(rows)
    assert [point["point"] for point in rows["plain_positive"]["points"]] == ["best of 1", "best of 2", "best of 4"]
    ours = rows["ours_positive_seed0"]["points"]
    assert ours[0]["nats"] < ours[-1]["nats"] and all(0 < point["reward"] < 1 for point in ours)


def test_the_figure_has_a_panel_for_each_reward(tmp_path):
    results, picture = tmp_path / "results.jsonl", tmp_path / "frontier.png"
    arguments = ["--results", str(results), "--out", str(picture)]
    assert CliRunner().invoke(steering_figure.app, arguments).exit_code == 2 and not picture.exists()
    plain = [{"point": f"best of {n}", "nats": math.log(n), "reward": 0.5 + n / 10} for n in (1, 2)]
    append(results, {"cell": "plain_positive", "points": plain})
    for seed, nats in ((0, 1.0), (1, 3.0)):
        point = {"point": "strength 1", "nats": nats, "reward": 0.6}
        append(results, {"cell": f"ours_positive_seed{seed}", "points": [point]})
        append(results, {"cell": f"ours_keywords_seed{seed}", "points": [point]})
    found = steering_figure.frontiers(read(results))
    assert found.keys() == {"positive", "keywords"} and found["positive"].keys() == {"plain", "ours"}
    assert [one["nats"] for one in found["positive"]["ours"]["strength 1"]] == [1.0, 3.0]
    assert CliRunner().invoke(steering_figure.app, arguments).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_tagger_of_errors_likes_right_sentences_better(model):
    steering_tasks.judge_by(model)
    right, wrong = (steering_tasks._kept(f"She {verb} to school every day.") for verb in ("goes", "go"))
    assert 0 < wrong < right <= 1
    assert 0 < steering_tasks.grammatical(["w1"], ["w2"])[0] < 1
