"""``python -m agents.validate`` is ``textgym validate``; in Python, evaluation and loading for scripts of one's own."""

from agents.application.loading import load_model
from agents.application.validate import as_json, export, report, validate
from agents.application.validate_language_model import validate_language_model
from agents.double_dqn.evaluation import FRESH_SEED, EvaluationResult, Scores, evaluate, sample_line, score

__all__ = [
    "FRESH_SEED",
    "EvaluationResult",
    "Scores",
    "as_json",
    "evaluate",
    "export",
    "load_model",
    "report",
    "sample_line",
    "score",
    "validate",
    "validate_language_model",
]

if __name__ == "__main__":
    import sys

    from agents.application.cli import main

    main(["validate", *sys.argv[1:]])
