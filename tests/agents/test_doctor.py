"""``textgym doctor``: what is installed against what is needed."""

import json
import re
import sys
import tomllib
from importlib import metadata, util
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from agents.application import doctor
from agents.application.cli import main

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *arguments])
    return stopped.value.code, capsys.readouterr()


def test_this_installation_is_sound(capsys):
    code, output = run(capsys, "--json")
    found = json.loads(output.out)
    assert code == 0 and found["problems"] == []
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["extras"]["test"] == [] and set(found["extras"]) == set(EXTRAS)
    assert found["devices"][0] == "cpu" and found["torch_threads"] >= 1


def test_extras_hold_those_that_they_name():
    requirements = [Requirement(line) for line in metadata.requires("textgym")]
    names = {requirement.name for requirement in doctor._of_extra(requirements, "test")}
    assert {"pytest", "sb3-contrib", "scikit-optimize", "sacrebleu"} <= names and "textgym" not in names


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_direct_dependency_is_pinned_at_a_version_that_it_admits(extra):
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonical(name): version for name, version in (line.split("==") for line in lines if line[:1] != "#")}
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        needed = Requirement(line)
        if needed.name != "textgym":
            assert needed.specifier.contains(pins[canonical(needed.name)]), line


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_another_package_of_the_name_is_an_error(capsys, monkeypatch, tmp_path):
    other = tmp_path / "agents" / "__init__.py"
    other.parent.mkdir()
    other.touch()
    monkeypatch.setattr(sys.modules["agents"], "__spec__", util.spec_from_file_location("agents", other))
    code, output = run(capsys)
    assert code == 1 and f"finds another package, {other}; set PYTHONPATH={ROOT}" in output.err


def test_a_missing_package_is_an_error_and_a_missing_extra_is_none(capsys, monkeypatch):
    real = metadata.version

    def version(name):
        if name in ("gymnasium", "sacrebleu"):
            raise metadata.PackageNotFoundError(name)
        return {"numpy": "1.26.0"}.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    code, output = run(capsys)
    assert code == 1
    assert output.err.splitlines() == [
        "textgym: error: gymnasium<2,>=1.4 is missing",
        "textgym: error: numpy 1.26.0 is installed, >=2.0 is needed",
    ]
    assert "TextGym cannot run." in output.out and "sacrebleu" in output.out
