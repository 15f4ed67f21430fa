"""What is compared: agents × tasks × seeds with their budgets. Data only; nothing here runs anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.saving.files import read_yaml_mapping


@dataclass(frozen=True)
class Cell:
    """One learning run.

    Attributes:
        agent: A name of :data:`benchmarks.baselines.AGENTS`.
        task: Id of the environment.
        seed: Seed of the agent and of its environments.
        env_kwargs: Arguments of the environment; plain JSON values.
        agent_kwargs: Arguments of the agent's constructor that differ from the benchmark's; plain JSON values.
        budget_steps: Most environment steps (≥ 1); None for the agent's own default, see
            :func:`benchmarks.baselines.default_steps`.
        budget_seconds: Most seconds of training, evaluations not counted (> 0); None for no limit.
        evaluations: Evaluations spread evenly over the budget, beside one before the first step (≥ 1).
        eval_episodes: Episodes in an evaluation (≥ 1).
    """

    agent: str
    task: str
    seed: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    agent_kwargs: dict[str, Any] = field(default_factory=dict)
    budget_steps: int | None = None
    budget_seconds: float | None = None
    evaluations: int = 20
    eval_episodes: int = 128

    @property
    def name(self) -> str:
        """What it is called in files, which says what the cell is, and changes whenever its definition does."""
        definition = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(definition.encode()).hexdigest()[:8]
        return f"{self.task.replace('/', '-')}_{self.agent}_seed{self.seed}_{digest}"


BASELINES = ("ppo-performer", "ppo-mlp", "dqn-performer", "dqn-mlp")
SEEDS = (0, 1, 2)
REVERSE = "TextGen/Reverse-v0"
TEXTGEN = "TextGen-v0"


def grid(agents: Iterable[str], task: str, seeds: Iterable[int] = SEEDS, **budget: Any) -> tuple[Cell, ...]:
    """Cells of every agent with every seed, seed by seed, so that an unfinished sweep has all agents."""
    agents = tuple(agents)
    return tuple(Cell(agent, task, seed, **budget) for seed in seeds for agent in agents)


BASE: dict[str, Any] = {
    "learning_rate": 2e-3,
    "updates_per_step": 0.04,
    "exploration": "ucb",
    "exploration_kwargs": {"coefficient": 0.02},
    "lower_bound": False,
    "n_steps": 1,
    "double_q": True,
    "dueling": True,
    "priority_alpha": 0.6,
    "tau": 0.01,
    "gamma": 0.99,
    "policy_kwargs": {"feature_map": "softmax", "features_dim": 64, "n_layers": 2, "n_random_features": 32},
}
"""What the sweep of the defaults changes one by one; everything is said, so that its cells outlive the defaults."""
DECAY: dict[str, Any] = {"weight_decay": 1.0, "decoupled_weight_decay": True}
FACTORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("learning rate 1e-3", {"learning_rate": 1e-3}),
    ("learning rate 4e-3", {"learning_rate": 4e-3}),
    ("feature map relu", {"policy_kwargs": {"feature_map": "relu"}}),
    ("updates_per_step 0.02", {"updates_per_step": 0.02}),
    ("updates_per_step 0.08", {"updates_per_step": 0.08}),
    ("ε-greedy", {"exploration_kwargs": {"coefficient": 0.0}}),
    ("UCB 0.1", {"exploration_kwargs": {"coefficient": 0.1}}),
    ("UCB 0.3", {"exploration_kwargs": {"coefficient": 0.3}}),
    ("Boltzmann", {"exploration": "boltzmann", "exploration_kwargs": {}}),
    ("lower bound", {"lower_bound": True}),
    ("3-step", {"n_steps": 3}),
    ("Q(λ) 0.7", {"q_lambda": 0.7}),
    ("Watkins's Q(λ) 0.7", {"q_lambda": 0.7, "watkins": True}),
    ("uniform replay", {"prioritized_replay": False}),
    ("α 1.0", {"priority_alpha": 1.0}),
    ("τ 0.003", {"tau": 0.003}),
    ("τ 0.03", {"tau": 0.03}),
    ("weight decay 0.1", {"policy_kwargs": {"optimizer_kwargs": DECAY | {"weight_decay": 0.1}}}),
    ("weight decay 1", {"policy_kwargs": {"optimizer_kwargs": DECAY}}),
    ("1 layer", {"policy_kwargs": {"n_layers": 1}}),
    ("3 layers", {"policy_kwargs": {"n_layers": 3}}),
    ("width 32", {"policy_kwargs": {"features_dim": 32}}),
    ("width 128", {"policy_kwargs": {"features_dim": 128}}),
)
"""Name → arguments that differ from :data:`BASE`."""
SMALL_TASKS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("TextGen/Sort-v0", {"length": 5, "vocab_size": 12}, 12_000),
    ("TextGen/Copy-v0", {"length": 2, "vocab_size": 7, "dense": False}, 24_000),
    ("TextGen/Addition-v0", {"digits": 2}, 16_000),
    (TEXTGEN, {"vocab_size": 300, "max_new_tokens": 6}, 24_000),
)
"""Task, its arguments and environment steps: none of them is a task or a size that a table of results reports."""


def one_at_a_time(seeds: Iterable[int] = (10, 11)) -> tuple[Cell, ...]:
    """Cells of the base and of every factor, on every small task."""
    variants = [BASE]
    for _, change in FACTORS:
        merged = BASE | change
        for name in ("policy_kwargs", "exploration_kwargs"):
            if change.get(name):
                merged[name] = BASE[name] | change[name]
        variants.append(merged)
    return tuple(
        Cell("ours", task, seed, env_kwargs, agent_kwargs, budget_steps=steps)
        for agent_kwargs in variants
        for task, env_kwargs, steps in SMALL_TASKS
        for seed in seeds
    )


HYPERPARAMETERS = Path(__file__).parent / "hyperparams"
TABLE_AGENTS = (
    "ours",
    "ppo-mlp",
    "ppo-performer",
    "maskable-ppo-mlp",
    "recurrent-ppo-mlp",
    "a2c-mlp",
    "dqn-mlp",
    "qrdqn-mlp",
)
"""DQN + Performer is not among them: its 140 to 250 steps a second are too few for it to learn anything in its time."""
TABLE_TASKS = (
    REVERSE,
    TEXTGEN,
    "TextGen/Classify-v0",
    "TextGen/Hangman-v0",
    "TextGen/Brackets-v0",
    "TextGen/Keywords-Easy-v0",
    "TextGen/Recall-v0",
    "TextGen/Addition-v0",
)
"""All groups of tasks: manipulation, generation (twice), understanding (twice), games, structure, long context."""
TABLE_SECONDS = 45.0
"""Of training, on one thread, for every cell of the table: 192 cells, an hour and a half on two cores.

The metric is the greedy mean return on 128 fresh episodes, normalised by :func:`textgym.references`, at the end and, at
equal environment steps, where our shortest run of a task ended. Everything else that the report says is read off the
same curves. No agent has presets; every agent has what ``python -m benchmarks tune-agents`` found for it, with the same
number of trials on the same other tasks.
"""
TUNING_TASKS = ("TextGen/Sort-v0", "TextGen/Summary-Easy-v0", "TextGen/GuessNumber-Easy-v0")
"""What all agents of the table are tuned on: none of them is in the table."""
TUNING_SECONDS = 10.0
"""Of training, for each of these tasks in each trial; the final, of the best two and the defaults, has those above."""
TUNING_TRIALS = 9


def tuned(agent: str) -> dict[str, Any]:
    """Arguments that ``python -m benchmarks tune-agents`` found for an agent; none before it has run."""
    path = HYPERPARAMETERS / f"{agent}.yaml"
    return read_yaml_mapping(path)["agent_kwargs"] if path.is_file() else {}


ABLATION_BASE: dict[str, Any] = {
    "learning_rate": 1e-3,
    "updates_per_step": 0.04,
    "exploration": "ucb",
    "exploration_kwargs": {"coefficient": 0.02},
    "lower_bound": False,
    "n_steps": 1,
    "q_lambda": None,
    "double_q": True,
    "dueling": True,
    "prioritized_replay": True,
    "tau": 0.01,
    "gamma": 0.99,
}
"""The agent whose parts are taken away, or exchanged, one at a time."""
_EXPLORER: dict[str, Any] = {"exploration_kwargs": {}}
ABLATION: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("base", "ours", {}),
    ("single in place of Double Q", "ours", {"double_q": False}),
    ("uniform in place of prioritized replay", "ours", {"prioritized_replay": False}),
    ("no dueling heads", "ours", {"dueling": False}),
    ("ε-greedy in place of UCB", "ours", {"exploration": "epsilon"} | _EXPLORER),
    ("Boltzmann in place of UCB", "ours", {"exploration": "boltzmann"} | _EXPLORER),
    ("3-step returns", "ours", {"n_steps": 3}),
    ("Peng's Q(λ) 0.7", "ours", {"q_lambda": 0.7}),
    ("return lower bound", "ours", {"lower_bound": True}),
    ("softmax attention in place of the Performer", "ours-transformer", {}),
    ("GRU in place of the Performer", "ours-gru", {}),
    ("transition updates in place of sequences", "ours-transitions", {}),
)
"""What is tested, the agent, and its arguments that differ from :data:`ABLATION_BASE`."""
_SEQUENCES_ONLY = ("updates_per_step", "lower_bound", "tau", "q_lambda")
ABLATION_TASKS: tuple[tuple[str, int], ...] = (
    (REVERSE, 20_000),
    ("TextGen/Sort-v0", 20_000),
    ("TextGen/Addition-v0", 20_000),
    ("TextGen/Brackets-Sparse-v0", 30_000),
)
"""Task and environment steps: dense and sparse rewards; all deterministic, for the lower bound.

144 cells, one to two hours on two cores; those on transitions take six times as long as the others. Chance succeeds
once in 120 episodes of the sparse task, so that it can tell agents apart within its steps. A task that nobody learns in
so many steps, as ``Keywords-Easy`` in the table, could not.
"""


def ablation(seeds: Iterable[int] = SEEDS) -> dict[str, tuple[Cell, ...]]:
    """Variant → its cells, on every task; on transitions, what only sequences know is left to their defaults."""
    variants = {}
    for name, agent, change in ABLATION:
        arguments = ABLATION_BASE | change
        if agent == "ours-transitions":
            arguments = {key: value for key, value in arguments.items() if key not in _SEQUENCES_ONLY}
        variants[name] = tuple(
            Cell(agent, task, seed, agent_kwargs=arguments, budget_steps=steps)
            for seed in seeds
            for task, steps in ABLATION_TASKS
        )
    return variants


RARE_SUCCESS: dict[str, Any] = {
    "buffer_size": 300_000,
    "priority_alpha": 1.0,
    "priority_beta": 0.0,
    "policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.3, "decoupled_weight_decay": True}},
}
"""For rewards that chance finds once in thousands of episodes: replay forgets no success, draws them again and again
without correcting for it, and the network is kept from learning them by heart."""
UCB: dict[str, Any] = {"exploration": "ucb", "exploration_kwargs": {"coefficient": 0.03, "context": 8}}
BOLTZMANN: dict[str, Any] = {
    "exploration": "boltzmann",
    "exploration_kwargs": {"initial_temperature": 0.03, "final_temperature": 0.003, "fraction": 0.3},
}
EXPLORERS: tuple[dict[str, Any], ...] = (UCB, {"exploration": "epsilon"}, BOLTZMANN)
"""Of the sparse sweep. Random tokens fall to a tenth over three tenths of the run, for the two that draw them."""


def sparse(explorers: Iterable[dict[str, Any]], seeds: Iterable[int], lower_bound: bool = True) -> tuple[Cell, ...]:
    """Cells of the sparse sweep: each explorer, with whatever other arguments it brings, on each seed."""
    explorers = tuple(explorers)
    schedule = {"exploration_fraction": 0.3, "exploration_final_eps": 0.1}
    return tuple(
        Cell(
            "ours",
            "TextGen/Reverse-Sparse-v0",
            seed,
            agent_kwargs={"lower_bound": lower_bound, **schedule, **RARE_SUCCESS, **explorer},
            budget_steps=300_000,
            evaluations=15,
        )
        for seed in seeds
        for explorer in explorers
    )


SWEEPS: dict[str, tuple[Cell, ...]] = {
    # Ours has 20,000 steps, which take it some 25 s; the others have three times that, whatever their number of steps.
    "reverse": (
        *grid(["ours"], REVERSE, budget_steps=20_000, budget_seconds=60),
        *grid(BASELINES, REVERSE, budget_seconds=75),
    ),
    # The main job's budget for ours (its preset's steps, some 150 s), and somewhat more for PPO.
    "textgen": (
        *grid(["ours"], TEXTGEN),
        *grid(["ppo-performer", "ppo-mlp"], TEXTGEN, budget_seconds=180),
    ),
    "quick": (
        *grid(["ours"], REVERSE, seeds=[0], budget_steps=20_000, budget_seconds=20),
        *grid(["ppo-performer", "ppo-mlp"], REVERSE, seeds=[0], budget_seconds=20),
    ),
    # Which feature map of the Performer leaves the plateau of a long copy?
    "copy": tuple(
        Cell(
            "ours",
            "TextGen/Copy-v0",
            seed,
            {"length": 12, "vocab_size": 31},
            {"learning_rate": 3e-3, "policy_kwargs": {"feature_map": feature_map}},
            budget_steps=60_000,
            evaluations=12,
        )
        for feature_map in ("softmax", "relu")
        for seed in SEEDS
    ),
    # Success by chance is 1 in 4,096: which explorer finds it, with the return lower bound and without? The arguments
    # were chosen on seeds 1 and 2; seeds 3 and 4 had no part in it.
    "sparse": (
        *sparse(EXPLORERS, SEEDS),
        *sparse([UCB | {"q_lambda": 0.7}], (*SEEDS, 3, 4)),
        *sparse([UCB], (3, 4)),
        *sparse(EXPLORERS, SEEDS, lower_bound=False),
    ),
    # Does an autoencoder between the embedding and the Q-network help, alone or with its own loss beside the agent's?
    "autoencoder": tuple(
        Cell("ours-compressed", task, seed, env_kwargs, agent_kwargs, budget_steps=8_000, evaluations=8)
        for seed in SEEDS
        for task, env_kwargs in ((REVERSE, {"length": 2, "vocab_size": 7}), ("TextGen/Classify-Easy-v0", {}))
        for agent_kwargs in (
            {},
            *({"latent_dim": size, "auxiliary_coefficient": weight} for size in (4, 16) for weight in (0.0, 1.0)),
        )
    ),
    # Equal wall-clock for all; seed by seed and task by task, so that an unfinished table compares what it has.
    "table": tuple(
        Cell(agent, task, seed, agent_kwargs=tuned(agent), budget_seconds=TABLE_SECONDS, evaluations=10)
        for seed in SEEDS
        for task in TABLE_TASKS
        for agent in TABLE_AGENTS
    ),
    # Equal environment steps for all: is what the project claims for each part of the agent true?
    "ablate": tuple(cell for cells in zip(*ablation().values(), strict=True) for cell in cells),
    # Beside it stands benchmarks/sensitivity.py, which says what each default is worth.
    "defaults": one_at_a_time(),
}
"""Name → cells of a sweep. The budgets are fixed before a sweep is run."""
