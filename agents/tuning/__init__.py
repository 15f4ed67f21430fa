"""Hyperparameter optimisation: Gaussian process or random search, parallel, resumable, for any agent.

A :class:`Study` searches a :class:`Space` for the arguments that make an objective largest. The objective is a function
``objective(arguments, seed, report) -> score``; :class:`TrainObjective` trains :class:`agents.DoubleDQN` on a TextGym
id, and any other agent is tuned by a function of one's own::

    def ppo(arguments, seed, report):
        env = make_vec_env("TextGen/Reverse-v0", n_envs=16, seed=seed)
        model = PPO("MlpPolicy", env, seed=seed, **arguments).learn(100_000)
        return evaluate_policy(model, make_vec_env("TextGen/Reverse-v0", n_envs=64, seed=10_000), 256)[0]

    study = Study({"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}, ppo, "ppo/study.jsonl", seeds=2)
    study.run(trials=20, n_jobs=2)
    print(study.best)

``textgym tune`` is this from the command line. It needs scikit-optimize (random search does not), and joblib for more
than one job.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.tuning.objective import DEFAULT_SPACE, TrainObjective
    from agents.tuning.parallel import Objective, Report
    from agents.tuning.records import Run, Trial
    from agents.tuning.space import Choice, Range, Space
    from agents.tuning.stopping import StoppedEarly, Stopping
    from agents.tuning.study import Study

__all__ = [
    "DEFAULT_SPACE",
    "Choice",
    "Objective",
    "Range",
    "Report",
    "Run",
    "Space",
    "StoppedEarly",
    "Stopping",
    "Study",
    "TrainObjective",
    "Trial",
]

_MODULES = {
    "Choice": "agents.tuning.space",
    "DEFAULT_SPACE": "agents.tuning.objective",
    "Objective": "agents.tuning.parallel",
    "Range": "agents.tuning.space",
    "Report": "agents.tuning.parallel",
    "Run": "agents.tuning.records",
    "Space": "agents.tuning.space",
    "StoppedEarly": "agents.tuning.stopping",
    "Stopping": "agents.tuning.stopping",
    "Study": "agents.tuning.study",
    "TrainObjective": "agents.tuning.objective",
    "Trial": "agents.tuning.records",
}


def __getattr__(name: str) -> Any:  # on first use: torch need not be loaded for a --help
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
