from copy import deepcopy

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from textgym.tokenizers import CharacterTokenizer, HuggingFaceTokenizer, WordTokenizer, as_tokenizer

SENTENCES = ["the food was good", "the music was bad", "good food and good music"] * 4


def word_level(specials=("[PAD]", "[UNK]", "</s>")):
    tokenizer = FastTokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=list(specials)))
    return tokenizer


def byte_level():
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def test_characters():
    tokenizer = CharacterTokenizer("abc")
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.n_ids, tokenizer.allowed) == (4, 3, 4, None)
    assert tokenizer.encode("cab") == [2, 0, 1]
    assert tokenizer.decode([2, 0, 3, 1]) == "cab"
    assert tokenizer.token_text(3) == "<eos>"


def test_words():
    tokenizer = WordTokenizer(["good", "food", "don't", "."], control_words=["positive:"])
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.n_ids, tokenizer.allowed) == (5, 4, 6, None)
    assert tokenizer.encode("Positive: GOOD food.  don't") == [5, 0, 1, 3, 2]
    assert tokenizer.decode([5, 0, 4, 1, 6]) == "positive: good food"
    assert tokenizer.token_text(5) == "positive:"


def test_words_found_only_in_prompts_get_prompt_only_ids():
    tokenizer = WordTokenizer(["good", "food"])
    extended = tokenizer.with_prompt_words(["Say: good wine", "wine, food"])
    assert extended.vocab_size == tokenizer.vocab_size == 3
    assert [extended.token_text(token) for token in range(3, extended.n_ids)] == ["say", ":", "wine", ","]
    assert extended.encode("say: wine, good") == [3, 4, 5, 6, 0]
    assert extended.with_prompt_words(["good wine"]) is extended
    characters = CharacterTokenizer("ab").with_prompt_words(["a+b="])
    assert characters.encode("a+b=") == [0, 3, 1, 4]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WordTokenizer([]), "words must hold at least one word, got none"),
        (lambda: WordTokenizer(["a", "b", "a"]), "words must differ from one another, got 'a' twice"),
        (lambda: WordTokenizer(["Good"]), "words must be in lower case and without blanks, got 'Good'"),
        (lambda: WordTokenizer(["a"], control_words=["a b"]), "without blanks, got 'a b'"),
        (lambda: WordTokenizer(["a "]), "without blanks, got 'a '"),
        (lambda: WordTokenizer([*(f"w{n}" for n in range(200_000)), "w199999"]), "got 'w199999' twice"),
        (lambda: CharacterTokenizer(["ab"]), "characters must be single characters, got 'ab'"),
        (lambda: WordTokenizer(["a"]).encode("a zzz"), "got 'zzz'"),
        (lambda: CharacterTokenizer("abc").encode("ax"), "got 'x'"),
        (lambda: as_tokenizer(3), "tokenizer must be a textgym Tokenizer.*got 3"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_tokenizers_keep_their_ids_and_mask_special_tokens():
    inner = word_level()
    tokenizer = as_tokenizer(inner)
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    assert tokenizer.vocab_size == tokenizer.n_ids == inner.get_vocab_size()
    assert tokenizer.eos_id == inner.token_to_id("</s>") == 2
    assert [token for token in range(tokenizer.vocab_size) if not tokenizer.allowed[token]] == [0, 1]
    ids = tokenizer.encode("good food")
    assert ids == [inner.token_to_id("good"), inner.token_to_id("food")]
    assert tokenizer.decode([*ids, 2]) == "good food"
    assert tokenizer.separator == " " and tokenizer.token_text(ids[0]) == "good"


def test_byte_level_round_trip():
    tokenizer = HuggingFaceTokenizer(byte_level())
    text = "the naïve café → good"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.separator == "" and " good" in {tokenizer.token_text(token) for token in ids}
    assert tokenizer.eos_id == 0 and tokenizer.allowed is None  # EOS is the only special token


def test_transformers_tokenizer_and_paths(tmp_path):
    inner = word_level()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]")
    wrapped.save_pretrained(tmp_path / "saved")
    inner.save(str(tmp_path / "tokenizer.json"))
    expected = HuggingFaceTokenizer(inner)
    sources = [wrapped, str(tmp_path / "saved"), tmp_path, tmp_path / "tokenizer.json"]
    for source in sources:
        tokenizer = as_tokenizer(source)
        assert (tokenizer.vocab_size, tokenizer.eos_id) == (expected.vocab_size, expected.eos_id)
        assert (tokenizer.allowed == expected.allowed).all()
        assert tokenizer.encode("the music was bad") == expected.encode("the music was bad")
        assert tokenizer.decode(expected.encode("the music was bad")) == "the music was bad"


def test_eos_must_be_known():
    inner = word_level(specials=("[UNK]",))
    with pytest.raises(ValueError, match="eos_token must be a token of the tokenizer, got None"):
        HuggingFaceTokenizer(inner)
    assert HuggingFaceTokenizer(inner, eos_token="bad").eos_id == inner.token_to_id("bad")


def test_a_name_that_is_not_on_disk_is_not_downloaded(tmp_path):
    with pytest.raises(ValueError, match=r"must be a local path .*'no-such/model' does not exist"):
        as_tokenizer("no-such/model")
    with pytest.raises(ValueError, match=r"must be a tokenizer\.json or a directory that holds one"):
        as_tokenizer(tmp_path)


def test_wrappers_are_not_copied():
    for tokenizer in (CharacterTokenizer("ab"), WordTokenizer(["a"]), HuggingFaceTokenizer(word_level())):
        assert deepcopy(tokenizer) is tokenizer


def test_stored_truncation_and_padding_are_left_to_models(tmp_path):
    tokenizer = word_level()
    expected = as_tokenizer(tokenizer).encode("the food was good")
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="[PAD]")
    for given in (tokenizer, str(tmp_path / "tokenizer.json"), fast):
        assert as_tokenizer(given).encode("the food was good") == expected and len(expected) == 4
    assert tokenizer.truncation is not None and tokenizer.padding is not None  # the user's own is as it was


@pytest.mark.parametrize(
    "text",
    ["हिन्दी भाषा", "cafe\u0301 noir", "مُحَمَّد كِتَاب", "தமிழ் மொழி", "क्\u200dष नहीं", "don't well-known", "été naïve"],
)
def test_words_keep_their_combining_marks(text):
    pieces = WordTokenizer(["a"]).split(text)
    assert pieces == text.split()
    tokenizer = WordTokenizer(pieces)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_punctuation_and_signs_stay_apart():
    assert WordTokenizer(["a"]).split("¡Hola! ❤️ x=1, (a)") == ["¡", "hola", "!", "❤️", "x", "=", "1", ",", "(", "a", ")"]


def test_a_string_is_no_list_of_words():
    with pytest.raises(ValueError, match="words must be a list of words, got a single str"):
        WordTokenizer("good food")
