import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agents.pruning.language_model import load_language_model
from agents.saving.json_lines import read
from benchmarks import steering_costs
from tests.agents.tiny_language_models import save_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"))


def test_every_cost_is_measured(folder, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    for name, value in (("BATCH_SIZE", 4), ("LORA_BATCH_SIZE", 2), ("N_ENVS", (2, 4)), ("GENERATE_BATCHES", (1, 3))):
        monkeypatch.setattr(steering_costs, name, value)
    out = tmp_path / "results.jsonl"
    arguments = ["--model", str(folder), "--out", str(out), "--repeats", "1", "--length", "3"]
    threads = torch.get_num_threads()
    result = CliRunner().invoke(steering_costs.app, arguments)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    (row,) = read(out)
    names = [figure["name"] for figure in row["figures"]]
    assert names == [
        "acting, 2 environments",
        "acting, 4 environments",
        "generate, 1 x 3 tokens",
        "generate, 3 x 3 tokens",
        "generate, 1 x 3 tokens, the reward asked",
        "generate, 3 x 3 tokens, the reward asked",
        "update, 4 texts",
        "update with adapters, 2 texts",
    ]
    for figure in row["figures"]:
        assert 0 < figure["ratio"] and 0 < figure["value"] and 0 < figure["other"]
    assert all(figure["ratio"] < 1 and figure["value"] < figure["other"] for figure in row["figures"][:2])
    assert [figure["bar"] for figure in row["figures"]] == [None, None, *[1.15] * 4, 1.1, None]


def test_the_small_model_is_as_wide_and_has_one_layer(folder):
    model = load_language_model(folder)
    small = steering_costs.small_model(model)
    assert small.hidden_dim == model.hidden_dim and small.vocab_size == model.vocab_size
    beside = steering_costs.n_parameters(small._model) - small.output_embedding.numel()
    assert small._model.config.num_hidden_layers == 1
    assert 0 < beside < steering_costs.n_parameters(model._model) - 2 * model.output_embedding.numel()


def test_ratios_are_medians_over_turns():
    seconds = np.array([[2.0, 1.0], [9.0, 3.0], [4.0, 1.0]])
    figure = steering_costs.figure("a", seconds, "b", bar=2.9)
    assert (figure.value, figure.other, figure.ratio, figure.met) == (4_000.0, 1_000.0, 3.0, False)
    turns = []
    assert steering_costs.take_turns([lambda: turns.append("a"), lambda: turns.append("b")], 2).shape == (2, 2)
    assert "".join(turns) == "ababab"


def test_forward_passes_are_timed_and_nothing_is_left(folder, monkeypatch):
    lm = load_language_model(folder)._model
    clock = iter(range(100))
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    with steering_costs.forward_seconds(lm) as spent:
        lm(torch.tensor([[1, 2]]))
        assert spent == [2.0]  # the trunk and the output layer, a tick each
    lm(torch.tensor([[1, 2]]))
    assert spent == [2.0]
