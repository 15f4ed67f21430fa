"""``textgym report``: sorts what it is given into results, timings and runs, and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import textgym
from agents.application.report import html, sections
from agents.application.report.charts import Chart
from agents.application.report.data import Comparison, split_ablations
from agents.application.report.run_data import Run, is_run, load_run
from agents.saving.files import CommandError, write_text, writing
from agents.saving.json_lines import by_name
from agents.saving.results import Ablation, Result, ablations_in, files_of, is_result

N_EPISODES = 36


@dataclass
class Sources:
    """What the paths hold.

    Attributes:
        results: Results of ``python -m benchmarks run``.
        ablations: What sweeps that change one thing at a time compare.
        throughput: What ``python -m benchmarks throughput --json`` last wrote; None where it is not among them.
        runs: Run folders of ``textgym train``.
    """

    results: list[Result] = field(default_factory=list)
    ablations: list[Ablation] = field(default_factory=list)
    throughput: dict[str, Any] | None = None
    runs: list[Path] = field(default_factory=list)


def report(
    paths: Sequence[str | Path],
    out: str | Path = "report.html",
    figures_dir: str | Path | None = None,
    n_episodes: int = N_EPISODES,
    trust: bool = False,
) -> Path:
    """Write a report.

    Args:
        paths: Run folders, files of results and timings (``.jsonl`` may be left out), folders (whatever is below them).
        out: The page.
        figures_dir: Folder for the same figures as PNG and SVG, which needs matplotlib; None for none.
        n_episodes: Fresh episodes for the token view of each run (≥ 1).
        trust: Whether to import the rewards that runs name.

    Returns:
        The page's path.

    Raises:
        CommandError: If a path does not exist, or holds nothing to report on.
    """
    if n_episodes < 1:
        raise CommandError(f"--episodes must be at least 1, got {n_episodes}")
    sources = find_sources([Path(path) for path in paths])
    runs = [load_run(folder, n_episodes, trust) for folder in sources.runs]
    content, charts = build(sources, runs)
    with writing("--out", out):
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_text(out, content)
    if figures_dir is not None:
        from agents.application.report.paper import save

        with writing("--figures", figures_dir, "folder"):
            save(charts, Path(figures_dir))
    return Path(out)


def find_sources(paths: Sequence[Path]) -> Sources:
    """Sort paths into what they hold.

    Raises:
        CommandError: If a path does not exist, or holds nothing to report on.
    """
    sources = Sources()
    for path in paths:
        if is_run(path):
            sources.runs.append(path)
            continue
        files = files_of(path)
        if not path.is_dir() and not files[0].exists():
            raise CommandError(f"RUN_OR_RESULTS must exist, got {path}")
        inside = sorted(folder for folder in path.rglob("*") if is_run(folder)) if path.is_dir() else []
        found = len(inside)
        sources.runs += inside
        records = _records(files)
        sources.ablations += ablations_in(records)
        for record in records:
            if is_result(record):
                sources.results.append(record)
            elif _is_timings(record):
                sources.throughput = record
            else:
                continue
            found += 1
        if not found:
            raise CommandError(
                "RUN_OR_RESULTS must be a run folder of 'textgym train', or hold results of 'python -m benchmarks', "
                f"got {path}"
            )
    return sources


def build(sources: Sources, runs: Sequence[Run] = ()) -> tuple[str, list[Chart]]:
    """The page, and the charts in it."""
    comparison_results, ablations = split_ablations(sources.results, sources.ablations)
    charts: list[Chart] = []
    parts: list[tuple[str, str, str]] = []
    tiles: list[tuple[str, str, str]] = []
    if comparison_results:
        comparison = Comparison(comparison_results)
        tiles += sections.comparison_tiles(comparison)
        for build_section in (sections.overview, sections.curves, sections.scores, sections.profile, sections.reaching):
            section = build_section(comparison)
            if section is not None:
                parts.append(section.html)
                charts += section.charts
    optional = [
        *(sections.ablation(ablation, results) for ablation, results in ablations),
        sections.throughput(sources.throughput) if sources.throughput else None,
        *(sections.run(run, number) for number, run in enumerate(runs, 1)),
    ]
    for section in optional:
        if section is not None:
            parts.append(section.html)
            charts += section.charts
    if not sources.results and len(runs) == 1:
        tiles += sections.run_tiles(runs[0])
    if sources.results:
        parts.append(sections.methods(sources.results))
    title = f"{runs[0].title}: a training run" if runs and not sources.results else "TextGym: benchmark report"
    lede = (
        "Reinforcement learning of text generation, one token at a time. Hover over a figure, or focus it and use the "
        "arrow keys, to read its values."
    )
    footer = html.paragraph(f"Made by textgym {textgym.__version__} with “textgym report”; the page loads nothing.")
    return html.page(title, lede, parts, html.tiles(tiles) if tiles else "", footer), charts


def _records(files: Sequence[Path]) -> list[dict[str, Any]]:
    try:
        return [record for file in files for record in by_name(file).values()]
    except ValueError as error:
        raise CommandError(str(error)) from None


def _is_timings(record: dict[str, Any]) -> bool:
    wanted = {"name", "unit", "value", "other", "against", "ratio", "bar", "at_most", "met"}
    rows = record.get("figures")
    whole = isinstance(rows, list) and all(isinstance(row, dict) and wanted <= row.keys() for row in rows)
    return whole and "machine" in record
