"""Every example in the docs runs: docstrings as doctests, the README's Python blocks from top to bottom."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agents
import textgym
from textgym.documentation import markdown_table, task_pages
from textgym.registration import ENVIRONMENTS

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    module.name
    for package in (textgym, agents)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("name", ["textgym", "agents", *MODULES])
def test_docstring_examples(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    # "<!-- needs: minari, h5py -->" before a block names the modules of an extra, without which it is left out.
    pattern = r"^(?:<!-- needs: (.*?) -->\n)?```python\n(.*?)^```"
    namespace = {"__name__": page.stem}
    for needs, block in re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if all(importlib.util.find_spec(module) for module in needs.split(", ") if module):
            exec(compile(block, str(page), "exec"), namespace)


def test_links_of_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_task_pages_are_what_the_docstrings_say():
    """Made by ``textgym list --pages docs/tasks``, never by hand."""
    written = {page.name: page.read_text("utf-8") for page in (ROOT / "docs" / "tasks").glob("*.md")}
    assert written == dict(task_pages())


def test_table_of_the_readme_is_the_generated_one():
    base = [row.id for row in ENVIRONMENTS if not re.search(r"-(Easy|Hard|Sparse)-", row.id)]
    assert markdown_table(base, link="docs/tasks") in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-d",
        str(tmp_path / "doctrees"),
        "docs",
        str(tmp_path / "site"),
    ]
    subprocess.run(build, cwd=ROOT, check=True)
    page = (tmp_path / "site" / "api" / "agents.html").read_text("utf-8")
    assert "agents.double_dqn.double_dqn.DoubleDQN" in page and "updates_per_step" in page
