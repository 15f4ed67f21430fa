"""GuessNumber, Hangman and Wordle: answers and rewards by hand, and players that know the transcript alone."""

import numpy as np
import pytest

import textgym
from textgym.tasks.guess_number import GuessNumber
from textgym.tasks.hangman import Hangman
from textgym.tasks.word_list import secret_words
from textgym.tasks.wordle import Wordle, colour


def game(task, **secret):
    """One row of a game whose secret is set by hand."""
    envs = textgym.TextGenVectorEnv(1, task)
    envs.reset(seed=0)
    for name, value in secret.items():
        envs.episodes.columns[name][0] = value
    return envs


def say(envs, text):
    """Write a text of letters or digits; the rewards, and whether the game is over."""
    rewards = []
    for character in text:
        action = int(character) if character.isdigit() else ord(character) - ord("a")
        _, reward, terminated, _, _ = envs.step([action])
        rewards.append(float(reward[0]))
    return rewards, bool(terminated[0])


def shown(envs):
    """The transcript, as words."""
    episodes = envs.episodes
    return " ".join(envs.task.token_text(token) for token in episodes.tokens[0, : episodes.lengths[0]].tolist())


def play(task, n, seed=0):
    """Returns of the scripted player."""
    envs = textgym.TextGenVectorEnv(n, task)
    envs.reset(seed=seed)
    returns, running = np.zeros(n), np.ones(n, bool)
    while running.any():
        _, rewards, terminated, _, _ = envs.step(task.oracle(envs.episodes))
        returns += rewards * running
        running &= ~terminated
    return returns


# ---------------------------------------------------------------------- GuessNumber


def test_guess_number_by_hand():
    envs = game(GuessNumber(digits=2, guesses=4), secret=42)
    assert say(envs, "50") == ([0, 0], False)
    assert say(envs, "25") == ([0, 0], False)
    assert shown(envs) == "<sep> 5 0 <lower> 2 5 <higher>"
    assert say(envs, "42") == ([0, 0.5], True)  # two wrong guesses of four


def test_guess_number_ends_with_the_last_guess_and_with_eos():
    envs = game(GuessNumber(digits=1, guesses=2), secret=7)
    assert say(envs, "66") == ([0, 0], True)
    envs = game(GuessNumber(digits=2, guesses=2), secret=50)
    say(envs, "4")
    _, reward, terminated, _, _ = envs.step([envs.task.eos_id])  # id 10 is no digit: 4 and 10 do not make 50
    assert reward[0] == 0 and terminated[0]


def test_bisection_reads_the_transcript_only():
    task = GuessNumber(digits=2, guesses=10)
    envs = game(task, secret=42)
    say(envs, "50")
    first = task.oracle(envs.episodes)
    envs.episodes.columns["secret"][0] = 3  # what it does not know cannot change its mind
    assert task.oracle(envs.episodes) == first == 2  # (0 + 49) // 2 = 24


def test_bisection_needs_at_most_seven_guesses_for_a_hundred_numbers():
    returns = play(GuessNumber(digits=2, guesses=10), 2000)
    assert np.unique(np.round(returns, 9)).tolist() == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert returns.mean() == pytest.approx(0.52, abs=0.015)  # 1 - (mean depth 5.8 - 1) / 10


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"digits": 0}, "digits must be"), ({"digits": 10}, "digits must be"), ({"guesses": 0}, "guesses must be")],
)
def test_guess_number_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GuessNumber(**kwargs)


# ---------------------------------------------------------------------- Hangman


def word_index(task, word):
    letters = [ord(letter) - ord("a") for letter in word]
    row = letters + [-1] * (task.words.shape[1] - len(letters))
    return int(np.flatnonzero((task.words == row).all(axis=1))[0])


def hangman(word, **kwargs):
    """A game about one word."""
    task = Hangman(min_length=len(word), max_length=len(word), **kwargs)
    return game(task, word=word_index(task, word))


def test_hangman_by_hand():
    envs = hangman("class", max_wrong=4)
    assert say(envs, "s") == (pytest.approx([0.5 * 2 / 5]), False)
    assert say(envs, "e") == ([0], False)
    assert shown(envs) == "_ _ _ _ _ <sep> s _ _ _ s s e _ _ _ s s"
    assert say(envs, "s") == ([0], False)  # said before: the second wrong guess
    assert say(envs, "ac")[0] == pytest.approx([0.1, 0.1])
    assert say(envs, "l") == (pytest.approx([0.1 + 0.5 * (1 - 2 / 4)]), True)


def test_hangman_sparse_and_lost():
    assert say(hangman("class", dense=False), "cxlas") == ([0, 0, 0, 0, pytest.approx(5 / 6)], True)
    assert say(hangman("class", max_wrong=2), "cxz") == (pytest.approx([0.1, 0, 0]), True)


def test_hangman_mask_forbids_repetition_and_giving_up():
    envs = hangman("class", masked=True)
    assert envs.action_masks()[0].tolist() == [True] * 26 + [False]
    say(envs, "cz")
    legal = envs.action_masks()[0]
    assert not legal[[2, 25, 26]].any() and legal.sum() == 24


def test_hangman_player_reads_the_transcript_only():
    """Two words that the transcript cannot tell apart get the same letter."""
    task = Hangman(min_length=5, max_length=5)
    choices = []
    for word in ("class", "glass"):
        envs = game(task, word=word_index(task, word))
        say(envs, "sal")
        choices.append(task.oracle(envs.episodes)[0])
    assert choices[0] == choices[1]


def test_hangman_player_is_good_and_never_repeats_itself():
    returns = play(Hangman(masked=True), 200)  # with a mask, a repetition would end the game with nothing
    assert 0.7 < returns.mean() < 0.9


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_length": 0}, "min_length must be"),
        ({"min_length": 5, "max_length": 4}, "max_length must be an integer of at least 5, got 4"),
        ({"max_length": 13}, "max_length must be at most 12, got 13"),
        ({"max_wrong": 0}, "max_wrong must be"),
    ],
)
def test_hangman_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Hangman(**kwargs)


# ---------------------------------------------------------------------- Wordle


@pytest.mark.parametrize(
    ("guess", "secret", "colours"),
    [
        ("crane", "crane", "22222"),
        ("speed", "abide", "00101"),  # one e in the word: the first e of the guess is yellow
        ("speed", "erase", "10110"),
        ("geese", "eerie", "02102"),
        ("allow", "local", "11110"),
        ("llama", "hello", "11000"),
        ("level", "hello", "12001"),
        ("added", "dread", "11012"),
        ("aaabb", "bbaaa", "11211"),
    ],
)
def test_colours_by_hand(guess, secret, colours):
    letters = [np.array([[ord(letter) - ord("a") for letter in word]]) for word in (guess, secret)]
    assert "".join(map(str, colour(*letters)[0])) == colours


def slow_colour(guess, secret):
    """The rule, letter by letter."""
    left = list(secret)
    colours = [0] * 5
    for place in range(5):
        if guess[place] == secret[place]:
            colours[place] = 2
            left.remove(guess[place])
    for place in range(5):
        if not colours[place] and guess[place] in left:
            colours[place] = 1
            left.remove(guess[place])
    return colours


def test_colours_agree_with_the_rule_read_slowly():
    guesses, secrets = np.random.default_rng(0).integers(0, 4, (2, 3000, 5))
    expected = [slow_colour(guess, secret) for guess, secret in zip(guesses.tolist(), secrets.tolist(), strict=True)]
    assert colour(guesses, secrets).tolist() == expected


def test_wordle_by_hand():
    task = Wordle(guesses=4)
    envs = game(task, word=word_index(task, "class"))
    assert say(envs, "glass") == (pytest.approx([0, 0, 0, 0, 0.4]), False)
    assert shown(envs) == "<sep> g l a s s <grey> <green> <green> <green> <green>"
    assert say(envs, "sclab") == ([0, 0, 0, 0, 0], False)  # fewer green letters than before pay nothing
    assert say(envs, "class") == (pytest.approx([0, 0, 0, 0, 0.1 + 0.5 * (1 - 2 / 4)]), True)


def test_wordle_sparse_lost_and_given_up():
    task = Wordle(guesses=2, dense=False)
    assert say(game(task, word=word_index(task, "class")), "glassclass") == ([0] * 9 + [0.5], True)
    assert say(game(task, word=word_index(task, "class")), "glassgrass") == ([0] * 10, True)
    envs = game(task, word=word_index(task, "class"))
    say(envs, "clas")
    _, reward, terminated, _, _ = envs.step([task.eos_id])
    assert reward[0] == 0 and terminated[0]


def test_wordle_mask_spells_words_of_the_list():
    task = Wordle(n_words=100, masked=True)
    words = {"".join(chr(ord("a") + letter) for letter in word) for word in task.words}
    envs = game(task)
    written = ""
    for letter in sorted(words)[7]:
        legal = {chr(ord("a") + action) for action in np.flatnonzero(envs.action_masks()[0])}
        assert legal == {word[len(written)] for word in words if word.startswith(written)}
        say(envs, letter)
        written += letter
    assert set(np.flatnonzero(envs.action_masks()[0])) == set(task.words[:, 0])  # the next guess


def test_wordle_player_says_only_words_that_fit_what_it_has_seen():
    task = Wordle()
    envs = textgym.TextGenVectorEnv(64, task)
    envs.reset(seed=0)
    secrets = task.words[envs.episodes.columns["word"]]
    for _ in range(5):
        envs.step(task.oracle(envs.episodes))
    running = envs.episodes.lengths == 11
    assert running.sum() > 60
    tokens = envs.episodes.tokens[running]
    opening, seen = tokens[:, 1:6], tokens[:, 6:11] - task.vocab_size
    assert np.array_equal(colour(opening, secrets[running]), seen)
    second = np.zeros((64, 5), np.int64)
    for place in range(5):
        second[:, place] = task.oracle(envs.episodes)
        envs.step(second[:, place])
    assert np.array_equal(colour(opening, second[running]), seen)


def test_wordle_player_solves_nearly_all():
    returns = play(Wordle(dense=False), 250)
    assert (returns > 0).mean() > 0.97 and returns.mean() > 0.65


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_words": 0}, "n_words must be an integer of at least 1, got 0"),
        ({"n_words": 10_000}, r"n_words must be at most \d+ for words of 5 to 5 letters, got 10000"),
        ({"guesses": 0}, "guesses must be"),
    ],
)
def test_wordle_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Wordle(**kwargs)


def test_word_lists():
    words = secret_words(4, 6)
    assert len(words) > 500 and len(np.unique(words, axis=0)) == len(words)
    lengths = (words >= 0).sum(axis=1)
    assert (lengths >= 4).all() and (lengths <= 6).all() and words.max() < 26
    assert not words.flags.writeable
    assert np.array_equal(secret_words(5, 5, 10), secret_words(5, 5)[:10])
