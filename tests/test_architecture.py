"""The plan of the house: who may import whom. Imports inside functions and for types only count as well."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("textgym", "agents", "benchmarks")
FLOORS = (  # from the lowest; a module imports its own floor and those below
    ("textgym",),
    (
        *(
            "agents.distributed",
            "agents.double_dqn",
            "agents.encoders",
            "agents.exploration",
            "agents.pruning",
            "agents.replay",
        ),
        *("agents.representations", "agents.vec_env"),
    ),
    ("agents.offline", "agents.saving", "agents.tuning"),
    ("agents.application",),
    ("agents", "agents.train", "agents.validate"),  # the doors
    ("benchmarks",),
)
"""The longest name that a module begins with decides its floor."""
MOST_NAMES = 14


def modules() -> dict[str, Path]:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def arrows() -> dict[str, set[str]]:
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{name}: imports are written out, found a relative one"
                targets = [
                    full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
                ]
            else:
                continue
            found[name] |= {target for target in targets if target in known and target != name}
    return found


def floor_of(module: str) -> int:
    rooms = [(room, level) for level, floor in enumerate(FLOORS) for room in floor]
    return max((len(room), level) for room, level in rooms if f"{module}.".startswith(f"{room}."))[1]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that can be reached from themselves."""
    remaining = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in remaining.items() if not targets & remaining.keys()]:
        for name in free:
            del remaining[name]
    used = {target for targets in remaining.values() for target in targets}
    return sorted(remaining.keys() & used)


def test_no_import_points_up() -> None:
    up = {
        (name, target) for name, targets in arrows().items() for target in targets if floor_of(target) > floor_of(name)
    }
    assert up == set()


def test_no_circle_of_imports() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circles(arrows()) == []


def test_few_names_in_agents() -> None:
    names = {
        path.stem for path in (ROOT / "agents").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert len(names - {"__init__"}) <= MOST_NAMES, sorted(names)


def test_public_names_of_old() -> None:
    from agents import hyperparam_opt, train, validate
    from agents.hyperparam_opt import Space, Study, TrainObjective

    assert hyperparam_opt.Study is Study
    assert {TrainObjective.__module__, Space.__module__} == {"agents.tuning.objective", "agents.tuning.space"}
    assert callable(train.train) and callable(validate.evaluate)
