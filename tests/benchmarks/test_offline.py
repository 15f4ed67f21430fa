"""The benchmark of learning from text, at sizes at which it says nothing but that it works."""

import pytest

from agents.saving.json_lines import by_name
from benchmarks import offline
from benchmarks.offline_data import noisy_demonstrations


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    sizes = {"N_DEMONSTRATIONS": 40, "EVALUATIONS": 1, "EVALUATION_EPISODES": 8, "N_CLEAN": 40}
    sizes |= {"CLEAN_UPDATES": 2, "ONLINE_STEPS": 64, "TEST_TOKENS": 300}
    for name, value in sizes.items():
        monkeypatch.setattr(offline, name, value)
    monkeypatch.setitem(offline.UPDATES, offline.REVERSE, 2)
    monkeypatch.setitem(offline.AGENT, "policy_kwargs", {"features_dim": 16, "n_layers": 1, "n_heads": 2})


def test_demonstrations_are_kept_and_not_learned_from_again(tmp_path, capsys):
    arguments = {"seeds": 1, "only": "bc,crr", "task": "Reverse", "out": tmp_path / "offline.jsonl"}
    offline.demonstrations_command(**arguments)
    before = arguments["out"].read_bytes()
    kept = by_name(arguments["out"])
    assert list(kept) == [f"demonstrations_Reverse-v0_0.3_{name}_seed0" for name in ("bc", "crr")]
    result = kept["demonstrations_Reverse-v0_0.3_crr_seed0"]
    assert 0 <= result["score"] <= 1 and len(result["curve"]) == 1 and 0.4 < result["data_return"] < 0.9
    offline.demonstrations_command(**arguments)
    assert arguments["out"].read_bytes() == before
    assert "TextGen/Reverse-v0" in capsys.readouterr().out


def test_keywords_are_shown_by_a_search():
    kwargs = offline.TASKS["TextGen/Keywords-v0"]
    clean, noisy = (noisy_demonstrations("TextGen/Keywords-v0", kwargs, 4, noise, 0) for noise in (0.0, 0.5))
    assert clean.rewards.sum(axis=1).mean() > 0.7 > noisy.rewards.sum(axis=1).mean()


@pytest.mark.parametrize("before", offline.PRETRAINED)
def test_pretraining(before):
    result = offline.pretrain_then_online(before, 0)
    assert result["before"] == before and 0 <= result["score"] <= 1 and result["seconds"] > 0


@pytest.mark.parametrize("method", ["bigram", "td"])
def test_a_corpus_is_foretold(method):
    result = offline.foretell("word", method, 0.005, 20_000, 0)
    assert 0 <= result["agreement"] < 1 and result["perplexity"] > 1
    assert method == "td" or result["agreement"] > 0  # 0.3 seconds of learning may leave it at 0
