"""What ``textgym doctor`` finds out: versions against the bounds of the installation, extras, threads, devices."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "textgym"


def diagnose() -> dict[str, Any]:
    """Look at the installation and the machine; nothing is changed and the network is not asked.

    Returns:
        Plain values: ``python``, ``platform``, ``cpus``, ``torch_threads``, ``devices``, ``packages`` (name → version
        of what TextGym always needs), ``problems`` (what is missing or out of bounds, one line each), ``extras``
        (name → what it lacks, one line each; empty if it is complete) and ``tools`` (programs that some commands use).
    """
    requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    core = [requirement for requirement in requirements if _applies(requirement, "")]
    extras = sorted(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count() or 1,
        **_torch_setup(),
        "packages": {DISTRIBUTION: metadata.version(DISTRIBUTION)}
        | {requirement.name: _version(requirement.name) or "missing" for requirement in core},
        "problems": _python_problems() + _name_problems() + lacking(core),
        "extras": {extra: lacking(_of_extra(requirements, extra)) for extra in extras},
        "tools": {"chromium": shutil.which("chromium") or "missing: tests of the report's page are skipped"},
    }


def lacking(requirements: Iterable[Requirement]) -> list[str]:
    """One line for each requirement that is missing, or installed in a version that it does not admit.

    Example:
        >>> lacking([Requirement("numpy>=2"), Requirement("numpy<1"), Requirement("no-such-package")])
        ['numpy ... is installed, <1 is needed', 'no-such-package is missing']
    """
    lines = []
    for requirement in requirements:
        version = _version(requirement.name)
        if version is None:
            lines.append(f"{requirement.name}{requirement.specifier} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            lines.append(f"{requirement.name} {version} is installed, {requirement.specifier} is needed")
    return lines


def _of_extra(requirements: list[Requirement], extra: str, seen: frozenset[str] = frozenset()) -> list[Requirement]:
    """What an extra adds, with the extras of TextGym that it names itself."""
    found: dict[str, Requirement] = {}
    for requirement in requirements:
        if _applies(requirement, "") or not _applies(requirement, extra):
            continue
        inner = [requirement]
        if requirement.name == DISTRIBUTION:
            others = requirement.extras - seen - {extra}
            inner = [line for other in sorted(others) for line in _of_extra(requirements, other, seen | {extra})]
        found |= {str(line): line for line in inner}
    return list(found.values())


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python_problems() -> list[str]:
    needed = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    version = platform.python_version()
    fits = SpecifierSet(needed).contains(version, prereleases=True)
    return [] if fits else [f"Python {version} is running, {needed} is needed: {sys.executable}"]


def _name_problems() -> list[str]:
    """Another package may have the name ``agents``: openai-agents does, which the extra ``verifiers`` brings along."""
    ours, found = Path(__file__).parents[1], util.find_spec("agents")
    origin = None if found is None else found.origin
    if origin is not None and Path(origin).parent.samefile(ours):
        return []
    return [
        f"'import agents' finds another package, {origin}; set PYTHONPATH={ours.parent}, start Python in that folder, "
        "or uninstall the other (pip uninstall openai-agents, which the extra verifiers needs)"
    ]


def _torch_setup() -> dict[str, Any]:
    """Threads and devices; a torch that cannot be imported is a finding, too."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch_threads": 0, "devices": [f"torch cannot be imported: {error}"]}
    devices = ["cpu"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"torch_threads": torch.get_num_threads(), "devices": devices}
