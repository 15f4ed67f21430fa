"""``python -m benchmarks``: run a sweep, draw its learning curves, time everything that claims to be fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer
from rich.console import Console

from agents.saving.files import CommandError, write_json, write_text, writing
from agents.saving.json_lines import append
from agents.saving.results import Result, describe, load_results, read_results
from benchmarks import run as runner
from benchmarks.ablation import described
from benchmarks.cells import Cell
from benchmarks.progress import SweepProgress
from benchmarks.sweep import (
    HYPERPARAMETERS,
    SEARCH_SECONDS,
    SEARCH_TASKS,
    SEARCH_TRIALS,
    SWEEPS,
    TABLE_AGENTS,
    TABLE_SECONDS,
    TUNING_SECONDS,
    TUNING_TRIALS,
)

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    sweep: Annotated[str, typer.Argument(help=f"One of: {', '.join(SWEEPS)}.")],
    only: Annotated[str, typer.Option(help="Run only cells whose name matches, as in 'ours' or '*ppo*seed0*'.")] = "",
    out: Annotated[Path, typer.Option(help="Results go to OUT/SWEEP.jsonl.")] = Path("results"),
    jobs: Annotated[int, typer.Option(min=1, help="Cells that run at a time, one thread each.")] = 1,
    engine: Annotated[str, typer.Option(help=f"One of: {', '.join(runner.ENGINES)}.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; else a Ray is started here.")] = None,
) -> None:
    """Run a sweep's cells, each in its own process; cells that have finished are never run again."""
    if sweep not in SWEEPS:
        raise ValueError(f"SWEEP must be one of {', '.join(SWEEPS)}, got {sweep!r}")
    cells = [cell for cell in SWEEPS[sweep] if fnmatch(cell.name, f"*{only}*")]
    if not cells:
        raise ValueError(f"--only must match a cell of {sweep!r}, such as {SWEEPS[sweep][0].name!r}, got {only!r}")
    if _run(sweep, cells, out, jobs, engine, address):
        raise typer.Exit(1)


def _run(name: str, cells: Sequence[Cell], out: Path, jobs: int, engine: str, address: str | None) -> list[Cell]:
    """Run cells with a live table, print a summary, and return those that failed."""
    with writing("--out", out, "folder"):
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    file = out / f"{name}.jsonl"
    if name == "ablate":
        describe(file, described())
    with SweepProgress(name, cells, _results_of(cells, file), jobs, Console()) as progress:
        failed = runner.run_cells(cells, file, jobs, progress.finish, engine, address)
    _print_summary(_results_of(cells, file))
    return failed


@app.command()
def ablate(
    out: Annotated[Path, typer.Option(help="Results go to OUT/ablate.jsonl.")] = Path("results"),
    jobs: Annotated[int, typer.Option(min=1, help="Cells that run at a time, one thread each.")] = 1,
    engine: Annotated[str, typer.Option(help=f"One of: {', '.join(runner.ENGINES)}.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; else a Ray is started here.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write what came out as Markdown, too.")] = None,
) -> None:
    """Test each claim about the agent at equal environment steps: run the sweep 'ablate', and say what came out."""
    from agents.application.report.effects import effects
    from agents.application.report.tables import ablation_rows
    from benchmarks.ablation import markdown
    from benchmarks.comparison import print_table

    failed = _run("ablate", SWEEPS["ablate"], out, jobs, engine, address)
    found = effects(load_results(out / "ablate.jsonl"), described())
    print_table("ablate: normalised area under the curve", ablation_rows(found))
    if page is not None:
        write_text(page, markdown(found))
        Console().print(f"wrote {page}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command("tune-agents")
def tune_agents(
    trials: Annotated[int, typer.Option(min=1, help="Trials of each agent, before the final.")] = TUNING_TRIALS,
    only: Annotated[str, typer.Option(help="Only agents of the table whose name matches, as in '*ppo*'.")] = "*",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of training on each task, in a trial.")] = TUNING_SECONDS,
    final_seconds: Annotated[float, typer.Option(min=0.1, help="The same in the final.")] = TABLE_SECONDS,
    folder: Annotated[Path, typer.Option(help="The studies; what has run is not run again.")] = Path(
        "results/tune-agents"
    ),
    out: Annotated[Path, typer.Option(help="The best arguments, a file for each agent.")] = HYPERPARAMETERS,
    jobs: Annotated[int, typer.Option(min=1, help="Agents at a time, one thread each.")] = 1,
    engine: Annotated[str, typer.Option(help=f"One of: {', '.join(runner.ENGINES)}.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; else a Ray is started here.")] = None,
) -> None:
    """Tune every agent of the table alike, on tasks that are not in it, and write its hyperparameters."""
    from benchmarks.tune_agents import TableObjective, Tuned
    from benchmarks.tune_agents import tune_agents as tune

    agents = [agent for agent in TABLE_AGENTS if fnmatch(agent, only)]
    if not agents:
        raise ValueError(f"--only must match one of {', '.join(TABLE_AGENTS)}, got {only!r}")
    console = Console()

    def on_agent(tuned: Tuned) -> None:
        failed = f", {tuned.failed} failed" if tuned.failed else ""
        scores = ", ".join(f"{finalist.score:.3f}" for finalist in tuned.finalists)
        console.print(
            f"{tuned.agent}: final {scores} (the defaults first) after {tuned.trials} trials{failed}: "
            f"{tuned.best.arguments or 'the defaults'}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )

    tune(
        [TableObjective(agent, seconds=seconds) for agent in agents],
        trials,
        folder,
        out,
        final_seconds,
        jobs,
        engine,
        address,
        on_agent,
    )


@app.command("tune-defaults")
def tune_defaults(
    trials: Annotated[int, typer.Option(min=1, help="Trials, before the final.")] = SEARCH_TRIALS,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of training on each task, in a trial.")] = SEARCH_SECONDS,
    final_seconds: Annotated[float, typer.Option(min=0.1, help="The same in the final.")] = TABLE_SECONDS,
    folder: Annotated[Path, typer.Option(help="The study; what has run is not run again.")] = Path(
        "results/tune-defaults"
    ),
) -> None:
    """Search all defaults of our agent at once, on tasks that are not in the table, and print what won."""
    from benchmarks.spaces import SEARCH_SPACE
    from benchmarks.tune_agents import TableObjective, tune_agent

    objective = TableObjective("ours", SEARCH_TASKS, seconds)
    tuned = tune_agent(objective, trials, folder, final_seconds, SEARCH_SPACE)
    for finalist in tuned.finalists:
        Console().print(f"{finalist.score:.3f}  {finalist.arguments or 'the defaults'}", soft_wrap=True, markup=False)


@app.command()
def figure(
    results: Annotated[list[Path], typer.Argument(help="Files of results, or folders: all below them are drawn.")],
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("docs/learning_curves.png"),
) -> None:
    """Draw learning curves: score against seconds of training and against environment steps."""
    from benchmarks.figures import learning_curves

    loaded = [result for path in results for result in load_results(path)]
    learning_curves(loaded, out)
    _print_summary(loaded)
    Console().print(f"wrote {out}", soft_wrap=True)


@app.command()
def leaderboard(
    results: Annotated[Path, typer.Argument(help="File of the sweep 'table'.")] = Path("results/table.jsonl"),
    out: Annotated[Path, typer.Option(help="The page.")] = Path("docs/table.md"),
) -> None:
    """Write the table of agents and tasks, at equal time and at equal steps."""
    from benchmarks.leaderboard import markdown

    write_text(out, markdown(load_results(results)))
    Console().print(f"wrote {out}", soft_wrap=True)


@app.command()
def throughput(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats, and nothing that takes long.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="PyTorch threads.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Add the figures to this file, a line.")] = None,
) -> None:
    """Time every part that claims to be fast beside its alternative, in one process."""
    from benchmarks.comparison import print_figures
    from benchmarks.throughput import measure

    figures = measure(quick, threads, progress=lambda name: Console(stderr=True).print(f"timing {name} ..."))
    print_figures(figures)
    if json_file is not None:
        append(json_file, {"name": "throughput", **figures})


@app.command()
def suite(
    ids: Annotated[str, typer.Option(help="Ids that match, as in '*Sort*'; all by default.")] = "*",
    seconds: Annotated[float, typer.Option(min=0.0, help="Time for an id.")] = 1.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Speed and memory of every registered id, batched and in SB3's DummyVecEnv."""
    from benchmarks.suite import as_plain, measure_suite, print_suite
    from textgym import env_ids

    chosen = [env_id for env_id in env_ids() if fnmatch(env_id, ids)]
    if not chosen:
        raise ValueError(f"--ids must match a registered id, such as {env_ids()[0]!r}, got {ids!r}")
    measured = measure_suite(
        chosen, seconds=seconds, progress=lambda name: Console(stderr=True).print(f"timing {name} ...")
    )
    print_suite(measured)
    if json_file is not None:
        write_json(json_file, as_plain(measured))


@app.command(hidden=True)
def cell(definition: str, path: Path) -> None:
    """Run one cell, given as JSON, in this process, and add its result to a file; to repeat one by hand."""
    from benchmarks.cell import main as run_one

    run_one(definition, path)


def _results_of(cells: Sequence[Cell], file: Path) -> list[Result]:
    done = read_results(file)
    return [done[cell.name] for cell in cells if cell.name in done]


def _print_summary(results: list[Result]) -> None:
    from benchmarks.comparison import print_table
    from benchmarks.figures import summarise

    for task, rows in summarise(results).items():
        print_table(f"{task}: greedy returns after training", rows)


def main() -> None:
    """The command; what is wrong with its input becomes one line."""
    try:
        app()
    except (ValueError, CommandError) as error:
        if "cell" in sys.argv[1:2]:  # for the log of the run
            raise
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
