import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers

import textgym
from textgym.rewards import Distinctness
from textgym.tasks.text_generation import TextGeneration, tone_reward
from textgym.tokenizers import CharacterTokenizer, WordTokenizer

# Words that make up sentiment, VADER's rules on word sequences, and plain text, so that random texts meet all of them.
WORDS = (
    "great best bad death love war poor happy no not never nothing without very most more less so this but least kind "
    "of little really almost die for to the food is and problem stop bus heart wrong free or friend perfect nor"
).split()


def write(envs, texts):
    """Play one text a row; returns rewards of each step, shape (T, n), and the returns."""
    task, tokenizer = envs.task, envs.task.tokenizer
    plan = np.full((envs.num_envs, task.max_new_tokens), task.eos_id)
    for row, text in enumerate(texts):
        ids = tokenizer.encode(text)
        plan[row, : len(ids)] = ids
    rewards, running = [], np.ones(envs.num_envs, bool)
    for step in range(task.max_new_tokens):
        _, reward, terminated, _, _ = envs.step(plan[:, step])
        rewards.append(reward * running)
        running &= ~terminated
    return np.array(rewards), np.sum(rewards, axis=0)


def random_texts(n, words, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(words, generator.integers(0, 11))) for _ in range(n)]


def test_default_prompts():
    envs = gym.make_vec("TextGen-v0", num_envs=512).unwrapped
    task = envs.task
    observations, _ = envs.reset(seed=0)
    assert (task.vocab_size, task.eos_id, task.pad_id, task.sep_id, task.context_length) == (1501, 1500, 1503, None, 13)
    assert set(observations[:, 0]) == {1501, 1502} and (observations[:, 1:3] < 1500).all()
    assert (observations[:, 3:] == 1503).all()
    assert 0.4 < (observations[:, 0] == 1501).mean() < 0.6
    texts = [task.decode(row) for row in observations]
    assert {text.split()[0] for text in texts} == {"positive:", "negative:"}
    assert len(set(texts)) > 400


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("budget", [10, 4])
def test_returns_are_the_reward_of_the_text(dense, budget):
    """However it is paid: the batch, its short cuts included, gives what the pure function of text gives."""
    n = 1500
    envs = textgym.TextGenVectorEnv(n, "text_generation", dense=dense, max_new_tokens=budget)
    envs.reset(seed=3)
    prompts = [envs.task.decode(envs.episodes.prompt(row)) for row in range(n)]
    words = [word for word in WORDS if word in envs.task.tokenizer.symbols]
    assert len(words) > 40
    texts = [" ".join(text.split()[:budget]) for text in random_texts(n, words)]
    rewards, returns = write(envs, texts)
    tones = [prompt.split(":")[0] for prompt in prompts]
    expected = tone_reward(1500, budget)(prompts, texts, tone=tones)
    assert returns == pytest.approx(expected, abs=1e-9)
    assert np.mean(np.array(expected) > 0.05) > 0.1
    assert 0 <= min(expected) and max(expected) <= 1
    paid_steps = (np.abs(rewards) > 1e-12).sum(axis=0)
    assert paid_steps.max() > 2 if dense else paid_steps.max() == 1


def test_dense_rewards_are_changes_of_the_estimate():
    envs = textgym.TextGenVectorEnv(1, "text_generation")
    envs.reset(seed=1)
    tone = envs.task.decode(envs.episodes.prompt(0)).split(":")[0]
    text = "best friend of the perfect gift" if tone == "positive" else "death of the war crime"
    rewards, returns = write(envs, [text])
    assert rewards[0, 0] > 0  # the first word has a tone already
    n_words = len(text.split())
    assert np.abs(rewards[n_words, 0]) < 1e-4  # no rule of VADER's applies: EOS settles its rounding alone
    assert (rewards[n_words + 1 :] == 0).all()
    assert returns[0] == pytest.approx(rewards.sum())


def test_tone_matters_and_degenerate_texts_earn_little():
    envs = textgym.TextGenVectorEnv(64, "text_generation")
    envs.reset(seed=0)
    asked = envs.episodes.tokens[:, 0] == 1501
    _, good = write(envs, ["best friend of the perfect gift basket is a great"] * 64)
    assert good[asked].min() > 0.5 and good[~asked].max() == 0
    for text in ("", "best", "best best best best best best best best best best", "the of the of the of"):
        envs.reset(seed=0)
        assert write(envs, [text] * 64)[1].max() < 0.2


def test_a_policy_that_ignores_the_tone_gets_half_way_at_most():
    references = textgym.references("TextGen-v0")
    assert references.random < 0.05
    assert references.normalise(references.blind) <= 0.5
    assert references.best > 0.7


def count_letters(prompts, completions, letter, **columns):
    return [float(text.count(one)) for text, one in zip(completions, letter, strict=True)]


ROWS = [{"prompt": "Say a", "letter": "a"}, {"prompt": "write many b", "letter": "b"}]


@pytest.mark.parametrize("prompts", [ROWS, Dataset.from_list(ROWS), iter(ROWS)])
def test_rows_with_columns(prompts):
    envs = textgym.TextGenVectorEnv(
        32,
        "text_generation",
        prompts=prompts,
        reward=count_letters,
        tokenizer=WordTokenizer(["a", "b"]),
        max_new_tokens=4,
    )
    task = envs.task
    # a, b, EOS; then say, write, many; SEP; PAD.
    assert (task.vocab_size, task.eos_id, task.sep_id, task.pad_id) == (3, 2, 6, 7)
    assert task.context_length == 4 + 4
    observations, _ = envs.reset(seed=0)
    prompts_seen = {tuple(row) for row in observations.tolist()}
    assert prompts_seen == {(3, 0, 6, 7, 7, 7, 7, 7), (4, 5, 1, 6, 7, 7, 7, 7)}
    assert task.token_text(6) == "<sep>" and task.token_text(7) == "<pad>" and task.token_text(5) == "many"
    rewards, returns = write(envs, ["a b b"] * 32)
    assert np.array_equal(returns, np.where(observations[:, 0] == 3, 1.0, 2.0))
    assert (rewards[:3] == 0).all()


def test_reward_is_called_once_a_step_with_what_the_user_gave():
    calls = []

    def reward(prompts, completions, **columns):
        calls.append((list(prompts), list(completions), columns))
        return [1.0] * len(prompts)

    envs = textgym.TextGenVectorEnv(
        3, "text_generation", prompts=["AB: "], reward=reward, tokenizer=CharacterTokenizer("xy"), max_new_tokens=2
    )
    envs.reset(seed=0)
    envs.step(np.array([0, 2, 1]))
    assert calls == [(["AB: "], [""], {})]
    _, rewards, terminated, _, _ = envs.step(np.array([1, 0, 2]))
    assert calls[1:] == [(["AB: ", "AB: "], ["xy", "y"], {})]
    assert terminated.tolist() == [True, False, True] and rewards.tolist() == [1.0, 0.0, 1.0]


def test_own_reward_on_the_default_prompts():
    seen = []

    def reward(prompts, completions, tone):
        seen.extend(zip(prompts, completions, tone, strict=True))
        return [0.5] * len(prompts)

    envs = textgym.TextGenVectorEnv(2, "text_generation", reward=reward)
    envs.reset(seed=0)
    _, returns = write(envs, ["good food", ""])
    assert returns.tolist() == [0.5, 0.5]
    assert {completion for _, completion, _ in seen} == {"good food", ""}
    assert all(prompt.startswith(f"{tone}: ") for prompt, _, tone in seen)


@pytest.mark.parametrize(
    "prompts",
    [["positive: the food", "Negative: my trip was"], [{"prompt": "the food", "tone": "positive"}]],
)
def test_default_reward_for_prompts_that_name_a_tone(prompts):
    envs = textgym.TextGenVectorEnv(8, "text_generation", prompts=prompts, max_new_tokens=10)
    envs.reset(seed=0)
    indices = envs.episodes.columns["prompt_index"].copy()
    _, returns = write(envs, ["is a great success of the best friend"] * 8)
    assert (returns[indices == 0] > 0.5).all() and (returns[indices == 1] == 0).all()
    assert envs.task.reward_range == (0.0, 1.0)


def test_prompts_are_drawn_uniformly_and_reproducibly():
    prompts = [f"{letter} x" for letter in "abcd"]
    task = {"task": "text_generation", "prompts": prompts, "reward": Distinctness()}
    envs = textgym.TextGenVectorEnv(2000, **task)
    first, _ = envs.reset(seed=0)
    assert np.bincount(envs.episodes.columns["prompt_index"]) == pytest.approx(500, abs=90)
    second, _ = textgym.TextGenVectorEnv(2000, **task).reset(seed=0)
    assert np.array_equal(first, second)


def special_tokenizer():
    tokenizer = FastTokenizer(models.WordLevel({"[PAD]": 0, "good": 1, "food": 2, "[SEP]": 3}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[SEP]"])
    return tokenizer


def test_special_tokens_are_masked_and_ids_are_the_tokenizers_own():
    env = gym.make("TextGen-v0", prompts=["good", "good food"], reward=Distinctness(), tokenizer=special_tokenizer())
    task = env.unwrapped.task
    assert (task.vocab_size, task.eos_id, task.sep_id, task.pad_id, task.max_new_tokens) == (4, 3, 4, 5, 32)
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [0, 1, 1, 1]
    assert env.get_wrapper_attr("action_masks")().tolist() == [False, True, True, True]
    env.step(1)
    _, reward, terminated, _, info = env.step(0)
    assert (reward, terminated, info["illegal_action"]) == (0.0, True, True)


def test_masks_of_a_tokenizer_stay_one_broadcast_row():
    task = {"prompts": ["good"], "reward": Distinctness(), "tokenizer": special_tokenizer()}
    envs = textgym.TextGenVectorEnv(3, "text_generation", **task)
    envs.reset(seed=0)
    eos = envs.task.eos_id
    for actions in ([1, eos, 2], [eos, eos, eos], [1, 0, 2]):  # some rows begin anew, all do, one breaks the rules
        envs.step(np.array(actions))
        assert envs.action_masks().strides[0] == 0
        assert envs.action_masks()[2].tolist() == [False, True, True, True]


def test_gymnasium_copies_arguments_without_harm():
    reward, tokenizer = Distinctness(), CharacterTokenizer("ab")
    env = gym.make("TextGen-v0", prompts=["ab"], reward=reward, tokenizer=tokenizer)
    assert env.unwrapped.task.reward is reward and env.unwrapped.task.tokenizer is tokenizer
    assert env.spec.kwargs["reward"] is reward


def test_context_length():
    task = TextGeneration(prompts=["good food"], reward=Distinctness(), context_length=50, max_new_tokens=5)
    assert (task.context_length, task.max_new_tokens) == (50, 5)
    with pytest.raises(ValueError, match=r"context_length leaves 1 tokens for a prompt .*, prompts\[1\] has 2"):
        TextGeneration(prompts=["good", "good food"], reward=Distinctness(), context_length=7, max_new_tokens=5)
    with pytest.raises(ValueError, match="context_length must be an integer of at least 13, got 12"):
        TextGeneration(context_length=12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "prompts must hold at least one prompt, got none"),
        ({"prompts": "a prompt"}, "prompts must be a list of prompts, got a single str: 'a prompt'"),
        ({"prompts": ["a", " "]}, r"prompts\[1\] must be a string that is not blank, got ' '"),
        ({"prompts": ["a", 3]}, r"prompts\[1\] must be a string that is not blank, got 3"),
        ({"prompts": [{"text": "a"}]}, r"prompts\[0\] must have a key 'prompt', got \['text'\]"),
        ({"prompts": [*ROWS, {"prompt": "a"}]}, r"prompts\[2\] must have the columns of prompts\[0\], \['letter'\]"),
        ({"prompts": [*ROWS, "a"]}, r"prompts\[2\] must be a mapping as prompts\[0\] is, got 'a'"),
        ({"prompts": ["positive: a", "b"], "reward": None}, r"reward is needed: .* prompts\[1\] neither has"),
        ({"prompts": [{"prompt": "a", "tone": "sad"}], "reward": None}, "tone must be one of .* got 'sad'"),
        ({"reward": 3}, "reward must be a function .* got 3"),
        ({"tokenizer": CharacterTokenizer("a")}, "tokenizer cannot be combined with the default prompts"),
        ({"prompts": ["a"], "tokenizer": "no/such"}, "must be a local path .*'no/such' does not exist"),
        ({"prompts": ["a"], "tokenizer": CharacterTokenizer("a"), "vocab_size": 9}, "combined with vocab_size=9"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, got 0"),
        ({"vocab_size": 10**6}, "vocab_size must lie in .* got 1000000"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        TextGeneration(**{"reward": Distinctness(), **arguments})


def test_prompts_of_a_data_frame_are_its_rows():
    frame = pd.DataFrame({"prompt": ["the food", "my day"], "topic": ["food", "day"]})
    seen = []

    def reward(prompts, completions, topic):
        seen.extend(topic)
        return [1.0] * len(prompts)

    env = gym.make("TextGen-v0", prompts=frame, reward=reward, max_new_tokens=1)
    for seed in range(8):
        env.reset(seed=seed)
        env.step(0)
    assert set(seen) == {"food", "day"}
    assert TextGeneration(frame["prompt"], reward)._source._texts == ["the food", "my day"]


@pytest.mark.parametrize("prompts", [{"the food", "my day"}, b"the food", {"prompt": ["a"]}, "the food"])
def test_prompts_of_another_meaning_are_refused(prompts):
    with pytest.raises(ValueError, match="prompts must be a list of prompts, got a single"):
        gym.make("TextGen-v0", prompts=prompts, reward=len)


def test_a_dense_reward_of_ones_own_pays_each_token_what_it_changes():
    calls = []

    def vowels(prompts, completions, letter):
        calls.append(list(zip(prompts, completions, letter, strict=True)))
        return [sum(one in "ae" for one in text) / 8 for text in completions]

    arguments = {"prompts": ROWS, "reward": vowels, "tokenizer": CharacterTokenizer("abcdeny "), "max_new_tokens": 4}
    found = {}
    for dense in (True, False):
        envs = textgym.TextGenVectorEnv(3, "text_generation", dense=dense, **arguments)
        envs.reset(seed=0)
        calls.clear()
        found[dense] = write(envs, ["abae", "be", ""])
        assert all(
            (prompt, letter) in {(row["prompt"], row["letter"]) for row in ROWS} for (prompt, _, letter) in calls[0]
        )
        assert sorted(text for _, text, _ in calls[0]) == (["", "a", "b"] if dense else [""])
    assert found[True][0][:, :2].T.tolist() == [[1 / 8, 0, 1 / 8, 1 / 8], [0, 1 / 8, 0, 0]]
    assert found[False][0][:, :2].T.tolist() == [[0, 0, 0, 3 / 8], [0, 0, 1 / 8, 0]]
    assert (found[True][1] == found[False][1]).all()
