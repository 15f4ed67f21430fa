"""How users go wrong, and what they are told: one line with the argument, the value and what is accepted."""

import shutil
from pathlib import Path

import gymnasium as gym
import pandas as pd
import pytest

import textgym
from agents import DoubleDQN, PrunedTransformer, StateAutoEncoder, StateEmbedding, learn_from_text, make_vec_env
from agents.exploration import Boltzmann, ContextUCB, EnsembleUCB, EpsilonGreedy
from agents.hyperparam_opt import Study
from agents.replay import EpisodeReplayBuffer, PrioritizedReplayBuffer
from textgym import TextGenEnv, TextGenVectorEnv, TokenSequence, make_task
from textgym.language_models import NGramLM
from textgym.rewards import KeywordCoverage, Length, Product, WeightedSum
from textgym.tokenizers import CharacterTokenizer, WordTokenizer

ENV = "TextGen/Reverse-v0"
SMALL = {"length": 2, "vocab_size": 3}

COMMANDS = [
    ("walk", "No such command 'walk'"),
    ("list --bogus", "--bogus"),
    ("play", "Missing argument 'ID_OR_MODEL'"),
    ("play Qwertz", "accepted: TextGen-v0"),
    ("train", "ID must name an environment"),
    ("train TextGen/Revers-v0", "got 'TextGen/Revers-v0'; did you mean TextGen/Reverse-v0"),
    (f"train {ENV} extra", "extra"),
    (f"train {ENV} --bogus", "--bogus"),
    (f"train {ENV} --steps", "'--steps' requires an argument"),
    (f"train {ENV} --steps many", "'many'"),
    (f"train {ENV} --steps 0", "--steps"),
    (f"train {ENV} --steps -5", "--steps"),
    (f"train {ENV} --minutes 0", "--minutes"),
    (f"train {ENV} --n-envs 0", "--n-envs"),
    (f"train {ENV} --seed -1", "--seed"),
    (f"train {ENV} --seed=x", "'x'"),
    (f"train {ENV} --threads 0", "--threads"),
    (f"train {ENV} --device gpu", "gpu"),
    (f"train {ENV} --set nonsense=1", "--set takes no argument 'nonsense'; accepted: batch_size"),
    (f"train {ENV} --set tau", "--set must be key=value, got 'tau'"),
    (f"train {ENV} --set tau=[", "--set tau must be valid YAML, got '['"),
    (f"train {ENV} --set tau=2", "tau must be in"),
    (f"train {ENV} --set gamma=high", "gamma must be in [0, 1], got 'high'"),
    (f"train {ENV} --set exploration=greedy", "exploration must be one of"),
    (f"train {ENV} --set exploration_kwargs.coefficient=-1", "coefficient must be at least 0, got -1"),
    (f"train {ENV} --set policy_kwargs.features_dim=10 --set policy_kwargs.n_heads=4", "features_dim"),
    (f"train {ENV} --set n_steps=0", "n_steps must be an integer of at least 1, got 0"),
    (f"train {ENV} --set buffer_size=0", "buffer_size must be an integer of at least 1, got 0"),
    (f"train {ENV} --env-arg size=3", "Reverse does not take ['size']; it takes ['length'"),
    (f"train {ENV} --env-arg length=0", "length must be an integer of at least 1, got 0"),
    (f"train {ENV} --env-arg length=two", "length must be an integer of at least 1, got 'two'"),
    (f"train {ENV} --config /nowhere.yaml", "can't read /nowhere.yaml: No such file"),
    ("train --resume /nowhere", "/nowhere"),
    ("train --from-text /nowhere.txt", "/nowhere.txt"),
    (f"train {ENV} --from-demonstrations 0", "--from-demonstrations"),
    (f"train {ENV} --from-demonstrations 10 --noise 2", "--noise"),
    (f"train {ENV} --from-demonstrations 10 --objective sarsa", "sarsa"),
    ("validate", "Missing argument 'RUN_OR_MODEL'"),
    ("validate /nowhere", "got /nowhere, which does not exist"),
    ("validate .", "."),
    ("export /nowhere out", "/nowhere"),
    ("report", "Missing argument"),
    ("report /nowhere", "/nowhere"),
    ("tune", "Missing argument"),
    (f"tune {ENV} --trials 0", "--trials"),
    (f"tune {ENV} --sampler grid", "grid"),
    (f"tune {ENV} --stopping never", "never"),
    ("doctor please", "please"),
]


@pytest.mark.parametrize(("line", "message"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_command_line(line, message, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    code, out, err = request.getfixturevalue("textgym")(*line.split())
    assert code == 2 and out == ""
    assert err.startswith("textgym: error: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())  # nothing half-begun


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        ("list --pages file/x", "--pages must be a folder that can be written, got file/x"),
        (f"tune {ENV} --trials 1 --steps 64 --out file/x", "--out must be a folder that can be written, got file/x"),
        (f"train {ENV} --steps 64 --run-dir file/x", "can't make the run folder file/x"),
        ("report results --out file/x.html", "--out must be a file that can be written, got file/x.html"),
        ("report results --figures file/x", "--figures must be a folder that can be written, got file/x"),
    ],
)
def test_places_that_cannot_be_written(line, argument, tmp_path, monkeypatch, textgym):
    shutil.copy(Path(__file__).parents[1] / "results" / "textgen.jsonl", tmp_path / "results.jsonl")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    code, _, error = textgym(*line.split())
    assert code == 2 and error.startswith(f"textgym: error: {argument}") and error.count("\n") == 1


def agent(**arguments):
    return lambda: DoubleDQN("PerformerPolicy", make_vec_env(ENV, n_envs=2, seed=0, env_kwargs=SMALL), **arguments)


SPACES = TokenSequence(6, vocab_size=4, pad_id=4), gym.spaces.Discrete(4)
CALLS = {
    "unknown id": (lambda: gym.make("TextGen/Revers-v0"), "Revers"),
    "unknown task": (lambda: make_task("revers"), "task must be one of .*, got 'revers'"),
    "task of another type": (lambda: make_task(3), "task must be a name, a Task subclass or a Task instance, got 3"),
    "argument of a finished task": (lambda: make_task(make_task("sort"), length=3), "takes no further arguments"),
    "unknown argument of a task": (lambda: gym.make(ENV, size=3), r"does not take \['size'\]"),
    "length": (lambda: gym.make(ENV, length=0), "length must be an integer of at least 1, got 0"),
    "length as a float": (lambda: gym.make(ENV, length=2.5), "length must be an integer of at least 1, got 2.5"),
    "num_envs": (lambda: TextGenVectorEnv(0, "sort"), "num_envs must be at least 1, got 0"),
    "render_mode": (lambda: TextGenEnv("sort", render_mode="video"), "render_mode must be one of .*got 'video'"),
    "no prompts": (lambda: gym.make("TextGen-v0", prompts=[]), "prompts"),
    "one prompt, no list": (lambda: gym.make("TextGen-v0", prompts="the food"), "prompts must be a list of"),
    "tokenizer without prompts": (lambda: gym.make("TextGen-v0", tokenizer=CharacterTokenizer("ab")), "pass prompts"),
    "budget": (lambda: gym.make("TextGen-v0", max_new_tokens=0), "max_new_tokens must be an integer of at least 1"),
    "no demonstrations": (lambda: textgym.demonstrations(ENV, n=0), "n must be an integer of at least 1, got 0"),
    "error_rate": (lambda: textgym.demonstrations(ENV, n=1, error_rate=2), r"error_rate must lie in \[0, 1\], got 2"),
    "empty alphabet": (lambda: CharacterTokenizer(""), "got none|at least|empty"),
    "words twice": (lambda: WordTokenizer(["a", "a"]), "'a'"),
    "rewards that are a string": (
        lambda: Product("ab"),
        "rewards must be a list of reward functions, got a single str",
    ),
    "rewards that are none": (lambda: Product(["ab"]), "rewards must hold functions, got 'ab'"),
    "weights that are a list": (lambda: WeightedSum([1.0]), "weights must be a mapping of reward functions"),
    "texts that are one": (
        lambda: KeywordCoverage(["a"])(["the food"], "is happy"),
        "completions must be a list of texts or conversations, got a single str: 'is happy'",
    ),
    "symbols without an order": (
        lambda: WordTokenizer({"a", "b"}),
        "words must have an order, which decides their ids",
    ),
    "widths that are one": (lambda: StateAutoEncoder(8, 2, hidden=16), "hidden must be a list of widths"),
    "columns for lines": (
        lambda: NGramLM(pd.DataFrame({"text": ["a b"]})),
        "texts must be a list of lines, got one that holds {'text': 'a b'}",
    ),
    "no weights": (lambda: WeightedSum({}), "weights must hold at least one reward function, got none"),
    "no rewards": (lambda: Product([]), "got none"),
    "maximum below minimum": (lambda: Length(5, 3), "maximum must be an integer of at least 5, got 3"),
    "no keywords": (lambda: KeywordCoverage([]), "keyword"),
    "order of an n-gram": (lambda: NGramLM(["a b"], order=0), "order must be"),
    "policy": (lambda: DoubleDQN("LSTMPolicy", "CartPole-v1"), "LSTMPolicy"),
    "sequences of numbers": (lambda: DoubleDQN("PerformerPolicy", "CartPole-v1"), "TokenSequence observations"),
    "continuous actions": (lambda: DoubleDQN("MlpPolicy", "Pendulum-v1"), "Discrete"),
    "gamma": (agent(gamma=1.5), r"gamma must be in \[0, 1\], got 1.5"),
    "batch_size": (agent(batch_size=0), "batch_size must be an integer of at least 1, got 0"),
    "learning_starts": (agent(learning_starts=-1), "learning_starts must be an integer of at least 0, got -1"),
    "updates_per_step": (agent(updates_per_step=-1.0), "updates_per_step must be in .*, got -1.0"),
    "priority_alpha": (agent(priority_alpha=2.0), r"priority_alpha must be in \[0, 1\], got 2.0"),
    "q_lambda": (agent(q_lambda=2.0), r"q_lambda must be in \[0, 1\], got 2.0"),
    "exploration": (agent(exploration="greedy"), "exploration must be one of .*got 'greedy'"),
    "epsilon": (lambda: EpsilonGreedy(initial=2.0), r"initial must be in \[0, 1\], got 2.0"),
    "temperature": (lambda: Boltzmann(initial_temperature=0.0), "initial_temperature must be greater than 0, got 0.0"),
    "coefficient": (lambda: ContextUCB(coefficient=-1.0), "coefficient must be at least 0, got -1.0"),
    "coefficient of an ensemble": (lambda: EnsembleUCB(coefficient=-1.0), "coefficient must be at least 0, got -1.0"),
    "capacity": (lambda: EpisodeReplayBuffer(0, *SPACES), "buffer_size must be at least 1, got 0"),
    "alpha": (lambda: PrioritizedReplayBuffer(8, *SPACES, alpha=-1.0), "alpha must be"),
    "empty replay": (lambda: EpisodeReplayBuffer(8, *SPACES).sample(1), "cannot sample from an empty"),
    "latent_dim": (lambda: StateAutoEncoder(8, latent_dim=0), "latent_dim"),
    "an encoder that is not there": (lambda: StateEmbedding.from_pretrained("no/such-encoder"), "no/such-encoder"),
    "a model that is not there": (lambda: PrunedTransformer("no/such-model", sparsity=0.5), "no/such-model"),
    "objective": (lambda: learn_from_text(agent()(), ["a"], objective="sarsa"), "sarsa"),
    "an empty space to search": (lambda: Study({}, lambda arguments, seed, report: 0.0), "space"),
}


@pytest.mark.parametrize("name", CALLS)
def test_python(name):
    call, message = CALLS[name]
    with pytest.raises((ValueError, TypeError, OSError, AssertionError, gym.error.Error), match=message) as error:
        call()
    assert len(str(error.value).splitlines()) == 1
