"""The benchmark of pruned language models, on one that is small and random."""

import math

import torch
import transformers

from benchmarks.pruned_language_model import measure, perplexity, split_text

SIZES = {"vocab_size": 256, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1}


def tiny():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_attention_heads=6, num_key_value_heads=3, **SIZES)
    return transformers.LlamaForCausalLM(config).eval()


def test_rows():
    ids = torch.randint(0, 256, (50, 16), generator=torch.Generator().manual_seed(0))
    rows = measure(tiny, ids[:2], ids[2:], steps=3, learning_rate=1e-3, logits_weight=1.0, repeats=1)
    assert [row["model"] for row in rows] == [
        *("whole", "pruned by norms of weights", "pruned by what it adds to text", "and recovered")
    ]
    whole, *small = [row["million parameters"] for row in rows]
    assert {round(1e6 * (whole - size)) for size in small} == {24 * (8 * 2 + 4 * 2 + 10 * 3)}
    assert all(200 < row["perplexity"] < 330 for row in rows)
    assert rows[0]["read ratio"] == rows[0]["step ratio"] == 1
    assert rows[2]["step tokens/s"] > 0 and rows[3]["seconds of recovery"] > 0


def test_perplexity_by_hand():
    model = tiny()
    ids = torch.arange(8).view(2, 4)
    with torch.no_grad():
        log_probs = model(ids).logits[:, :-1].log_softmax(dim=-1)
    expected = math.exp(-sum(float(log_probs[b, t, ids[b, t + 1]]) for b in range(2) for t in range(3)) / 6)
    assert math.isclose(perplexity(model, ids), expected, rel_tol=1e-5)


def test_held_out_text_is_not_learned_from():
    read = []

    def bytes_of(text, verbose):
        read.append(text)
        return {"input_ids": list(text.encode())}

    held_out, train = split_text(bytes_of, 1200, 1000)
    assert held_out.shape == (2, 512) and train.shape == (7, 128)
    assert bytes(held_out[0].tolist()).decode() in read[0] and len(read[0]) == 7200 and read[0][:999] not in read[1]
