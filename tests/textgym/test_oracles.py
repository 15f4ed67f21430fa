"""The soft optimum: by hand, beside the enumeration of whole texts, at both ends of eta, and what it refuses."""

import math

import numpy as np
import pytest

import textgym
from textgym import Task, TextGenEnv
from textgym.language_models import BigramLM, NGramLM
from textgym.oracles import SoftValues, soft_optimal
from textgym.tasks import Prompts
from textgym.tasks.shaped import Shaped
from textgym.tokenizers import WordTokenizer


class TwoSteps(Task):
    """Two of the tokens a and b, with rewards for the first one and for the pair; EOS is illegal."""

    vocab_size, eos_id, pad_id = 3, 2, 4
    max_new_tokens, context_length = 2, 3
    masked = True
    first, pair = np.array([0.0, 0.25, 0.0]), np.array([[1.0, 0.0], [0.5, 0.5]])

    def prompts(self, random):
        return Prompts(np.full((len(random), 1), 3), np.ones(len(random), np.int64), {})

    def token_text(self, token):
        return ("a", "b", "<eos>", "<sep>", "<pad>")[token]

    def allowed(self, episodes):
        return np.tile([True, True, False], (len(episodes), 1))

    def step_reward(self, episodes, actions):
        return self.first[actions] * (episodes.steps == 1)

    def final_reward(self, episodes):
        return self.pair[episodes.tokens[:, 1], episodes.tokens[:, 2]]


def prefer_b(tokens):
    """a with probability 1/4, whatever came before; EOS would be likelier than both."""
    return np.log([0.25, 0.75, 5.0])


def length_prior(tokens):
    """Six logits that depend on all that is read."""
    return np.sin(np.arange(6) * (1 + tokens.sum() % 7) + len(tokens))


def whole_texts(task, log_prior, seed):
    """Every text of a prompt as (actions, log-probability under the prior, return), by a single environment."""
    env = TextGenEnv(task)
    observation, info = env.reset(seed=seed)
    found, stack = [], [((), 0.0, 0.0, env.get_state(), observation, info["action_mask"])]
    while stack:
        actions, log_p, earned, state, observation, mask = stack.pop()
        legal = np.flatnonzero(mask)
        length = int(textgym.sequence_lengths(observation[None], task.pad_id)[0])
        given = np.zeros(task.vocab_size) if log_prior is None else np.asarray(log_prior(observation[:length]))
        given = given - np.log(np.exp(given[legal]).sum())
        for action in legal.tolist():
            if given[action] == -np.inf:
                continue
            env.set_state(state)
            observation, reward, terminated, _, info = env.step(action)
            one = ((*actions, action), log_p + given[action], earned + reward)
            if terminated:
                found.append(one)
            else:
                stack.append((*one, env.get_state(), observation, info["action_mask"]))
    return found


def words_task():
    tokenizer = WordTokenizer(["good", "bad", "food"])

    def counts(prompts, completions, **columns):
        return [0.3 * text.split().count("good") + 0.1 * len(set(text.split())) for text in completions]

    return textgym.make_task(
        "text_generation", prompts=["food", "bad"], reward=counts, tokenizer=tokenizer, max_new_tokens=3
    )


def bigrams():
    return NGramLM(["good food", "bad food good", "food"], tokenizer=WordTokenizer(["good", "bad", "food"]), order=2)


SMALL = {
    "reverse": lambda: textgym.make_task("reverse", length=2, vocab_size=3),
    "reverse, sparse": lambda: textgym.make_task("reverse", length=2, vocab_size=2, dense=False),
    "brackets": lambda: textgym.make_task("brackets", length=4, kinds=1, max_depth=3),
    "recall": lambda: textgym.make_task("recall", pairs=2, value_length=2, vocab_size=4),
    "star, masked": lambda: textgym.make_task("star_graph", degree=3, path_length=4, nodes=10, masked=True),
    "star": lambda: textgym.make_task("star_graph", degree=2, path_length=3, nodes=5),
    "walks, masked": lambda: textgym.make_task(
        "random_walks", nodes=5, max_length=6, edge_probability=0.5, masked=True
    ),
    "walks": lambda: textgym.make_task("random_walks", nodes=5, max_length=5, edge_probability=0.5),
    "addition": lambda: textgym.make_task("addition", digits=1, carry=False),
    "shaped": lambda: Shaped(
        textgym.make_task("random_walks", nodes=5, max_length=5, edge_probability=0.5), discount=0.9
    ),
    "words": words_task,
}


def test_two_steps_by_hand():
    """With eta = 1/2 and π0(a) = 1/4: exp(Q/eta) is e², 1 after a and e, e after b."""
    shown = soft_optimal(TwoSteps, prefer_b, eta=0.5).prompt()
    e = math.e
    after_a, after_b = 0.5 * math.log((e**2 + 3) / 4), 0.5
    assert shown.q_values([0]).tolist() == [1.0, 0.0, -np.inf]
    assert shown.value([0]) == pytest.approx(after_a) and shown.value([1]) == pytest.approx(after_b)
    assert shown.q_values() == pytest.approx([after_a, 0.25 + after_b, -np.inf])
    # exp(Q/eta) at the start: (e² + 3)/4 for a, e^0.5 · e for b.
    total = (e**2 + 3) / 16 + 3 / 4 * e**1.5
    assert shown.value() == pytest.approx(0.5 * math.log(total))
    a_first, a_then = (e**2 + 3) / 16 / total, e**2 / (e**2 + 3)
    assert np.exp(shown.log_probs()) == pytest.approx([a_first, 1 - a_first, 0])
    assert np.exp(shown.log_probs([0])) == pytest.approx([a_then, 1 - a_then, 0])
    assert np.exp(shown.log_probs([1])) == pytest.approx([0.25, 0.75, 0])
    assert np.exp(shown.prior_log_probs([0])) == pytest.approx([0.25, 0.75, 0])
    assert shown.expected_reward() == pytest.approx(a_first * a_then + (1 - a_first) * 0.75)
    assert shown.expected_reward([0]) == pytest.approx(a_then)
    kl_after_a = a_then * math.log(4 * a_then) + (1 - a_then) * math.log(4 / 3 * (1 - a_then))
    kl = a_first * math.log(4 * a_first) + (1 - a_first) * math.log(4 / 3 * (1 - a_first)) + a_first * kl_after_a
    assert shown.kl([0]) == pytest.approx(kl_after_a) and shown.kl([1]) == 0.0
    assert shown.kl() == pytest.approx(kl)
    assert shown.tokens.tolist() == [3]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("prior", [None, length_prior])
def test_whole_texts_are_tilted_by_their_returns(name, prior):
    """p(text) ∝ π0(text) · exp(return / eta), and V, KL and the expected return are what that says."""
    task = SMALL[name]()
    log_prior = None if prior is None else lambda tokens: np.resize(prior(tokens), task.vocab_size)
    texts = whole_texts(task, log_prior, seed=4)
    log_p0, returns = np.array([one[1] for one in texts]), np.array([one[2] for one in texts])
    assert np.exp(log_p0).sum() == pytest.approx(1)
    for eta in (0.05, 0.5, 20.0):
        shown = soft_optimal(task, log_prior, eta).prompt(4)
        tilted = log_p0 + returns / eta
        log_total = np.logaddexp.reduce(tilted)
        log_p = tilted - log_total
        expected = (eta * log_total, np.exp(log_p) @ returns, np.exp(log_p) @ (log_p - log_p0))
        assert shown.values() == pytest.approx(expected, abs=1e-9)
        value, reward, kl = shown.values()
        assert value == pytest.approx(reward - eta * kl, abs=1e-9)
        for number in np.random.default_rng(0).integers(len(texts), size=20).tolist():
            actions = texts[number][0]
            steps = [shown.log_probs(actions[:place])[action] for place, action in enumerate(actions)]
            assert sum(steps) == pytest.approx(log_p[number], abs=1e-8)


def test_a_language_model_as_prior():
    """In a batch, and one prefix at a time by the function that it is."""
    task, model = words_task(), bigrams()
    one = lambda tokens: model.log_probs(tokens[None], np.array([len(tokens)]))[0]  # noqa: E731
    texts = whole_texts(task, one, 1)
    for prior in (model, one):
        shown = soft_optimal(task, prior, 0.2).prompt(1)
        tilted = np.array([log_p + earned / 0.2 for _, log_p, earned in texts])
        assert shown.value() == pytest.approx(0.2 * np.logaddexp.reduce(tilted), abs=1e-6)
        assert np.exp(shown.log_probs([0])).sum() == pytest.approx(1)


def test_a_language_model_without_eos_never_writes_it():
    words = BigramLM(vocab_size=3).words
    tokenizer = WordTokenizer(words)
    task = textgym.make_task(
        "text_generation",
        prompts=["the"],
        reward=lambda prompts, completions, **columns: [1.0] * len(prompts),
        tokenizer=tokenizer,
        max_new_tokens=2,
    )
    shown = soft_optimal(task, BigramLM(vocab_size=3), 1.0).prompt()
    assert shown.log_probs()[tokenizer.eos_id] == shown.q_values()[tokenizer.eos_id] == -np.inf
    assert shown.values() == pytest.approx((1.0, 1.0, 0.0), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("words", "shaped")])
def test_a_small_eta_finds_what_the_oracle_earns(name):
    task = SMALL[name]()
    envs = textgym.TextGenVectorEnv(3, task)
    envs.reset(seed=0)
    best, running, actions = np.zeros(3), np.ones(3, bool), []
    while running.any():
        actions.append(task.oracle(envs.episodes))
        _, rewards, terminated, _, _ = envs.step(actions[-1])
        best += rewards * running
        running &= ~terminated
    for row in range(3):
        shown = soft_optimal(task, eta=1e-5).prompt(row)
        assert shown.value() == pytest.approx(best[row], abs=1e-3)
        assert shown.expected_reward() == pytest.approx(best[row], abs=1e-9)
        assert shown.log_probs()[actions[0][row]] > -20
        # It never gains by more penalty, and the prior alone is the other end.
        values = [soft_optimal(task, eta=eta).prompt(row).value() for eta in (1e-300, 1e-5, 0.1, 1.0, 1e9)]
        assert values == sorted(values, reverse=True) and np.isfinite(values).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_large_eta_is_the_prior(name):
    task = SMALL[name]()
    texts = whole_texts(task, None, 2)
    shown = soft_optimal(task, eta=1e8).prompt(2)
    assert shown.log_probs() == pytest.approx(shown.prior_log_probs(), abs=1e-7)
    mean = sum(math.exp(log_p) * earned for _, log_p, earned in texts)
    assert shown.values() == pytest.approx((mean, mean, 0.0), abs=1e-7)


def test_a_star_in_closed_form():
    """The uniform policy over successors finds the goal once in `degree` times, so V = eta · log(4/5 + e^(1/eta)/5)."""
    for eta in (0.1, 0.3, 2.0):
        optimum = soft_optimal("TextGen/StarGraph-v0", eta=eta, masked=True)
        right = math.exp(1 / eta) / (4 + math.exp(1 / eta))
        kl = right * math.log(5 * right) + (1 - right) * math.log(5 / 4 * (1 - right))
        expected = (eta * math.log(0.8 + 0.2 * math.exp(1 / eta)), right, kl)
        assert optimum.prompt(seed=3).values() == pytest.approx(expected)
        assert optimum.mean(n_prompts=10, seed=1) == pytest.approx(expected)


def test_the_mean_over_prompts():
    optimum = soft_optimal("TextGen/RandomWalks-Easy-v0", eta=0.2)
    expected = np.mean([optimum.prompt(seed).values() for seed in range(5, 35)], axis=0)
    got = optimum.mean(30, seed=5)
    assert isinstance(got, SoftValues) and got == pytest.approx(tuple(expected))


def test_prompts_are_those_of_the_environments():
    envs = textgym.TextGenVectorEnv(3, "reverse", length=2, vocab_size=5)
    envs.reset(seed=7)
    optimum = soft_optimal("reverse", length=2, vocab_size=5)
    for episode in range(3):
        for row in range(3):
            assert np.array_equal(optimum.prompt(7 + row, episode).tokens, envs.episodes.prompt(row))
        while not envs.step(np.full(3, 5))[2].all():  # EOS
            pass


def test_only_what_is_asked_for_is_enumerated():
    """A task of 16⁸ texts, near the end of one; and a large vocabulary that the prior narrows down."""
    shown = soft_optimal("TextGen/Reverse-v0", max_states=5_000).prompt()
    answer = shown.tokens[::-1].tolist()
    with pytest.raises(ValueError, match=r"max_states must be at least the number of texts .* got 5000, and there are"):
        shown.value()
    assert shown.q_values(answer)[15] == pytest.approx(1 / 7)  # EOS after the answer
    # Each position pays for itself, so what has been written does not matter.
    assert shown.value(answer[:5]) == pytest.approx(shown.value([0] * 5))

    def three_words(tokens):
        return np.where(np.isin(np.arange(1501), [0, 7, 1500]), 0.0, -np.inf)

    shown = soft_optimal("TextGen-v0", three_words, max_states=200, max_new_tokens=4).prompt()
    assert np.isfinite(shown.log_probs()).sum() == 3
    assert np.isfinite(shown.log_probs([3, 5])).sum() == 3  # legal, though the prior would not have written it
    with pytest.raises(ValueError, match="max_states must be at least"):
        soft_optimal("TextGen/Keywords-v0").prompt().value()


def test_answers_do_not_depend_on_the_order_of_questions():
    first, second = (
        soft_optimal("reverse", prefer, 0.2, length=2, vocab_size=5).prompt(3) for prefer in [length_prior] * 2
    )
    prefixes = [(), (1,), (1, 2), (4, 4, 0)]
    forwards = [first.log_probs(prefix) for prefix in prefixes]
    backwards = [second.log_probs(prefix) for prefix in reversed(prefixes)]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one, other)


def test_following_the_optimum_earns_what_it_says():
    """Sampled in the environment, beside the expected return and the KL that were computed."""
    task, n, eta = SMALL["walks, masked"](), 4_000, 0.3
    shown, generator = soft_optimal(task, length_prior, eta).prompt(5), np.random.default_rng(0)
    envs = textgym.TextGenVectorEnv(n, task)
    envs.reset(seed=[5] * n)
    prefixes, returns, ratios, running = [()] * n, np.zeros(n), np.zeros(n), np.ones(n, bool)
    while running.any():
        actions = np.zeros(n, int)
        for row in range(n):
            if running[row]:
                log_probs = shown.log_probs(prefixes[row])
                actions[row] = generator.choice(task.vocab_size, p=np.exp(log_probs))
                ratios[row] += log_probs[actions[row]] - shown.prior_log_probs(prefixes[row])[actions[row]]
                prefixes[row] += (actions[row],)
            else:
                actions[row] = envs.action_masks()[row].argmax()
        _, rewards, terminated, _, _ = envs.step(actions)
        returns += rewards * running
        running &= ~terminated
    assert abs(returns.mean() - shown.expected_reward()) < 4 * returns.std() / math.sqrt(n)
    assert abs(ratios.mean() - shown.kl()) < 4 * ratios.std() / math.sqrt(n)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: soft_optimal("TextGen/Hangman-v0"), "task must show what decides its rewards, and Hangman hides it"),
        (lambda: soft_optimal("TextGen/Nothing-v0"), "task must be one of"),
        (lambda: soft_optimal("reverse", eta=0), "eta must be a finite number above 0, got 0"),
        (lambda: soft_optimal("reverse", eta=float("nan")), "eta must be a finite number above 0, got nan"),
        (lambda: soft_optimal("reverse", eta=float("inf")), "eta must be a finite number above 0, got inf"),
        (lambda: soft_optimal("reverse", eta="x"), "eta must be a finite number above 0, got 'x'"),
        (lambda: soft_optimal("reverse", prior=3), "prior must be a language model, a function of token ids or None"),
        (lambda: soft_optimal("reverse", max_states=0), "max_states must be an integer of at least 1, got 0"),
        (lambda: soft_optimal("reverse").prompt(-1), "seed must be an integer of at least 0, got -1"),
        (lambda: soft_optimal("reverse").prompt(0, -1), "episode must be an integer of at least 0, got -1"),
        (lambda: soft_optimal("reverse").mean(0), "n_prompts must be an integer of at least 1, got 0"),
        (
            lambda: soft_optimal(TwoSteps).prompt().value([2]),
            r"prefix must hold legal tokens, got 2 at place 0 of \[2\]",
        ),
        (lambda: soft_optimal(TwoSteps).prompt().value([-1]), "prefix must hold legal tokens, got -1"),
        (lambda: soft_optimal(TwoSteps).prompt().value([0, 9]), "prefix must hold legal tokens, got 9 at place 1"),
        (
            lambda: soft_optimal(TwoSteps).prompt().value([0, 1]),
            r"prefix must not end the episode, got \[0, 1\], which",
        ),
        (lambda: soft_optimal(TwoSteps).prompt().value([0.5]), r"prefix must be a row of token ids, got \[0.5\]"),
        (lambda: soft_optimal(TwoSteps).prompt().value("a"), "prefix must be a row of token ids, got 'a'"),
        (lambda: soft_optimal(TwoSteps).prompt().value([[0]]), "prefix must be a row of token ids"),
        (
            lambda: soft_optimal(TwoSteps, lambda tokens: [0.0]).prompt().value(),
            r"prior must return log-probabilities of shape \(3,\), got shape \(1,\)",
        ),
        (
            lambda: soft_optimal(TwoSteps, lambda tokens: [np.nan, 0, 0]).prompt().value(),
            "prior must give a finite log-probability to some legal token, .* got nan after '<sep>'",
        ),
        (
            lambda: soft_optimal(TwoSteps, lambda tokens: [-np.inf, -np.inf, 0]).prompt().value(),
            "got -inf after '<sep>'",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
