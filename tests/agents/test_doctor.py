"""``textgym doctor``: what is installed against what is needed."""

import json
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from agents.application import doctor
from agents.application.cli import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *arguments])
    return stopped.value.code, capsys.readouterr()


def test_this_installation_is_sound(capsys):
    code, output = run(capsys, "--json")
    found = json.loads(output.out)
    assert code == 0 and found["problems"] == []
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["extras"]["test"] == [] and {"tune", "zoo", "rewards"} <= set(found["extras"])
    assert found["devices"][0] == "cpu" and found["torch_threads"] >= 1


def test_extras_hold_those_that_they_name():
    requirements = [Requirement(line) for line in metadata.requires("textgym")]
    names = {requirement.name for requirement in doctor._of_extra(requirements, "test")}
    assert {"pytest", "sb3-contrib", "scikit-optimize", "sacrebleu"} <= names and "textgym" not in names


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
