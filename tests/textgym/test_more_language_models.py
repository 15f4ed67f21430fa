import copy

import numpy as np
import pytest
import torch

from textgym.language_models import HuggingFaceLM, LanguageModel, NGramLM
from textgym.rewards import Fluency
from textgym.tokenizers import CharacterTokenizer, WordTokenizer

LINES = ["the cat sat", "the cat ran", "a dog sat"]


def test_ngram_probabilities_by_hand():
    model = NGramLM(LINES, order=2)
    v = model.vocab_size
    assert v == 7  # six words and EOS
    ids = dict(zip(model.tokenizer.symbols, range(6), strict=True))
    # 12 tokens of 7 types (each line's EOS counts), "cat" twice; after "the", "cat" both times.
    cat = (2 + 7 / v) / (12 + 7)
    cat_after_the = (2 + 1 * cat) / (2 + 1)
    got = np.exp(model.log_probs(np.array([[ids["the"]]]), np.array([1]))[0])
    assert got[ids["cat"]] == pytest.approx(cat_after_the)
    # A line's beginning: two of three lines begin with "the".
    the = (2 + 7 / v) / 19
    start = np.exp(model.log_probs(np.zeros((1, 0), int), np.array([0]))[0])
    assert start[ids["the"]] == pytest.approx((2 + 2 * the) / (3 + 2))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngram_distributions_sum_to_one_and_agree_with_texts(order):
    model = NGramLM(LINES * 2 + ["the dog ran away"], order=order)
    generator = np.random.default_rng(order)
    tokens = generator.integers(model.vocab_size + 2, size=(20, 6))
    log_probs = model.log_probs(tokens, generator.integers(7, size=20))
    assert log_probs.shape == (20, model.vocab_size) and log_probs.dtype == np.float32
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(20), abs=1e-5)
    ids = model.tokenizer.encode("the cat sat")
    expected = [
        model.log_probs(np.array([ids]), np.array([place]))[0, token] for place, token in enumerate(ids) if place > 0
    ]
    assert model.text_log_probs(["the"], ["cat sat"])[0] == pytest.approx(expected, abs=1e-5)


def test_ngram_learns_where_lines_end_and_longer_contexts_help():
    model = NGramLM(["to be or not to be", "to be is to do"] * 5, order=3)
    to, be, eos = *model.tokenizer.encode("to be"), model.tokenizer.eos_id
    prefixes = np.array([[to, be, -1, -1, -1, -1], model.tokenizer.encode("to be or not to be")])
    early, late = model.log_probs(prefixes, np.array([2, 6]))
    assert early[eos] == late[eos]  # a trigram model sees the same two words
    other = NGramLM(["to be or not to be", "to be is to do"] * 5, order=4).log_probs(prefixes, np.array([2, 6]))
    assert other[1, eos] > other[0, eos]  # four tell the beginning from the end
    assert other[1, eos] > np.log(0.5)


def test_ngram_unknown_words_and_ids():
    model = NGramLM(LINES, order=3)
    known, unknown = model.text_log_probs(["the", "the"], ["cat sat", "zebra sat"])
    assert np.isfinite(known).all() and unknown[0] == -np.inf and np.isfinite(unknown[1])
    the = model.tokenizer.encode("the")[0]
    with_separator = model.log_probs(np.array([[the, 99]]), np.array([2]))
    assert np.array_equal(with_separator, model.log_probs(np.array([[the]]), np.array([1])))
    assert Fluency(model)(["the"], ["zebra cat"])[0] < Fluency(model)(["the"], ["cat sat"])[0]


def test_ngram_from_a_file(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*LINES, "", "the café"]), encoding="utf-8")
    model = NGramLM.from_file(path, order=2, max_words=3)
    assert model.tokenizer.symbols == ("the", "cat", "sat")
    assert isinstance(model, LanguageModel) and copy.deepcopy(model) is model
    characters = NGramLM.from_file(path, tokenizer=CharacterTokenizer("abcdefghijklmnopqrstuvwxyz "), order=4)
    assert characters.text_log_probs([""], ["the"])[0].sum() > characters.text_log_probs([""], ["hte"])[0].sum()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NGramLM("the cat"), "texts must be a list of lines"),
        (lambda: NGramLM(["", " "]), "texts must hold at least one line"),
        (lambda: NGramLM(["..."], max_words=0), "max_words must be an integer of at least 1, got 0"),
        (lambda: NGramLM(LINES, order=0), "order must be an integer of at least 1, got 0"),
        (lambda: NGramLM(LINES, WordTokenizer(["the"]), max_words=1), "max_words=1 cannot be combined with tokenizer"),
        (lambda: NGramLM.from_file("nowhere.txt"), "path must be a text file, got 'nowhere.txt'"),
        (lambda: HuggingFaceLM("nowhere"), "path must be a local directory"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ---------------------------------------------------------------------- Hugging Face


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A GPT-2 of two small layers with random weights, and a word tokenizer of 40 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    vocabulary = {f"w{number}": number for number in range(40)} | {"<eos>": 40, "<bos>": 41}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>")
    fast.save_pretrained(path)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_positions=32, n_embd=16, n_layer=2, n_head=2))
        for weight in model.parameters():  # GPT-2's own initialisation is too flat to tell tokens apart
            weight.data.normal_(std=0.4)
    model.save_pretrained(path)
    return path


def test_cache_agrees_with_reading_everything(directory):
    """Rows grow by a token, stand still, begin anew, or grow by several: always what a fresh model says."""
    cached, fresh = HuggingFaceLM(directory), HuggingFaceLM(directory)
    generator = np.random.default_rng(0)
    tokens = generator.integers(40, size=(5, 24))
    lengths = np.array([0, 3, 1, 7, 2])
    for step in range(40):
        got = cached.log_probs(tokens, lengths)
        fresh.forget()
        assert got == pytest.approx(fresh.log_probs(tokens, lengths), abs=1e-5)
        assert np.exp(got).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
        lengths = lengths + generator.integers(0, 3, size=5)
        for row in np.flatnonzero((lengths > 20) | (generator.random(5) < 0.05)):
            tokens[row], lengths[row] = generator.integers(40, size=24), step % 4
    assert cached.n_read < fresh.n_read / 3


SMALL = {
    **{"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 32},
}


@pytest.mark.parametrize(
    ("family", "arguments", "caches"),
    [
        ("mistral", {"sliding_window": 4}, True),
        ("qwen2", {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}, True),
        ("gemma2", {"sliding_window": 4}, True),
        ("gemma3_text", {"sliding_window": 4}, True),
        ("gpt_neo", {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4}, True),
        ("llama4_text", {"attention_chunk_size": 4, "num_local_experts": 1, "intermediate_size_mlp": 32}, False),
        ("mamba", {"state_size": 4}, False),
    ],
)
def test_rows_of_unequal_length_whatever_the_attention(directory, tmp_path, family, arguments, caches):
    """Local attention counts slots of the cache, not positions: gaps between a row's tokens would shorten its reach."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(directory).save_pretrained(tmp_path)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SMALL | arguments))).save_pretrained(tmp_path)
    model, alone = HuggingFaceLM(tmp_path), HuggingFaceLM(tmp_path)
    generator = np.random.default_rng(0)
    tokens, lengths = generator.integers(40, size=(4, 24)), np.array([9, 2, 0, 5])
    for step in range(12):
        got = model.log_probs(tokens, lengths)
        for row in range(4):
            alone.forget()
            expected = alone.log_probs(tokens[row : row + 1], lengths[row : row + 1])[0]
            assert got[row] == pytest.approx(expected, abs=1e-4), (step, row)
        lengths = lengths + generator.integers(0, 3, size=4)
        if step % 4 == 3:
            tokens[step % 3], lengths[step % 3] = generator.integers(40, size=24), 1
        lengths = lengths.clip(max=22)
    assert (model._cache is not None) == caches


def test_a_state_from_before_the_cache_was_laid_out_anew_is_read_again(directory):
    first, second = HuggingFaceLM(directory), HuggingFaceLM(directory)
    tokens, lengths = np.random.default_rng(1).integers(40, size=(3, 20)), np.array([5, 2, 9])
    first.log_probs(tokens, lengths)
    state = first.get_state()
    old = {"cache" if key == "key_values" else key: value for key, value in state.items()}
    second.set_state(old)
    assert second.log_probs(tokens, lengths + 1) == pytest.approx(first.log_probs(tokens, lengths + 1), abs=1e-5)
    assert second.n_read == 6 + 3 + 10 + 3  # with BOS, and none was kept
    second.set_state(state)
    assert (second.log_probs(tokens, lengths + 1) == first.log_probs(tokens, lengths + 1)).all()


def test_cache_reads_each_token_once(directory):
    model = HuggingFaceLM(directory)
    tokens = np.random.default_rng(1).integers(40, size=(3, 20))
    for length in range(21):
        model.log_probs(tokens, np.full(3, length))
    assert model.n_read == 3 * 21  # with BOS


def test_ids_beyond_the_vocabulary_are_skipped(directory):
    model = HuggingFaceLM(directory)
    assert model.vocab_size == 42 and isinstance(model, LanguageModel) and copy.deepcopy(model) is model
    plain = model.log_probs(np.array([[3, 4]]), np.array([2]))
    assert model.log_probs(np.array([[3, 42, 4]]), np.array([3])) == pytest.approx(plain, abs=1e-6)
    assert plain.shape == (1, 42)


def test_texts_agree_with_prefixes(directory):
    model = HuggingFaceLM(directory, batch_size=2)
    texts = model.text_log_probs(["w1 w2", "", "w5"], ["w3 w4 w5", "w7", ""])
    assert [len(row) for row in texts] == [3, 1, 0]
    expected = [model.log_probs(np.array([[1, 2, 3, 4, 5]]), np.array([2 + place]))[0, 3 + place] for place in range(3)]
    assert texts[0] == pytest.approx(expected, abs=1e-5)
    assert texts[1][0] == pytest.approx(model.log_probs(np.zeros((1, 1), int), np.array([0]))[0, 7], abs=1e-5)


def test_the_output_embedding_begins_with_a_line_of_the_cache(directory):
    """Files put it anywhere; a model that has it there keeps its memory, so that others may share it."""
    plain = HuggingFaceLM(directory)
    weight = plain._model.get_output_embeddings().weight
    values = weight.detach().clone()
    memory = torch.empty(weight.numel() + 16)
    weight.data = memory[10 : 10 + weight.numel()].view(weight.shape).copy_(values)
    assert weight.data_ptr() % 64
    moved = HuggingFaceLM(directory, model=plain._model)
    assert moved.output_embedding.data_ptr() % 64 == 0 and torch.equal(moved.output_embedding, values)
    assert moved._model.get_output_embeddings().weight is weight
    again = HuggingFaceLM(directory, model=plain._model)
    assert again.output_embedding.data_ptr() == moved.output_embedding.data_ptr()


def test_longer_than_the_models_context(directory):
    model = HuggingFaceLM(directory)
    tokens = np.random.default_rng(2).integers(40, size=(1, 50))
    for length in (30, 33, 50):
        log_probs = model.log_probs(tokens, np.array([length]))
        assert np.isfinite(log_probs).all()
    words = " ".join(f"w{token}" for token in tokens[0])
    assert len(model.text_log_probs(["w1"], [words])[0]) == 31  # of 32 positions the first predicts only


def test_model_too_small_for_the_tokenizer(directory):
    with pytest.raises(ValueError, match="a model with at least the 61 tokens of the tokenizer, got one with 48"):
        HuggingFaceLM(directory, tokenizer=WordTokenizer([f"w{number}" for number in range(60)]))
