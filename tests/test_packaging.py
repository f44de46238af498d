"""What `pip install` brings: everything that is to come along, and the versions to ask for."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.pages.__main__ import SHARE, commands, pages
from tests.commands import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def constraints() -> dict[str, Version]:
    """The versions that `constraints.txt` pins, by canonical name."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, _, version in pinned}


def needed(requirement: str, found: set[str]) -> None:
    """Adds what a requirement needs on this machine, and what that needs in turn."""
    wanted = Requirement(requirement)
    name = canonicalize_name(wanted.name)
    if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
        return
    found.add(name)
    for further in metadata.requires(wanted.name) or []:
        needed(further, found)


def test_constraints_name_everything_that_is_needed() -> None:
    pinned = constraints()
    found: set[str] = set()
    for text in PROJECT["project"]["dependencies"]:
        requirement = Requirement(text)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier
        needed(text, found)
    assert found <= set(pinned)
    assert {"construct", "numpy", "zstandard"} <= found


def test_linters_are_pinned() -> None:
    tools = {wanted.name: wanted for wanted in map(Requirement, PROJECT["project"]["optional-dependencies"]["dev"])}
    for name in ("mypy", "ruff"):
        assert re.fullmatch(r"==\d+\.\d+\.\d+", str(tools[name].specifier))


def test_every_page_comes_along() -> None:
    """Each file below `share/` goes to the same place below the prefix."""
    places = PROJECT["tool"]["setuptools"]["data-files"]
    brought = {
        f"{place}/{path.name}" for place, globs in places.items() for glob in globs for path in REPOSITORY.glob(glob)
    }
    assert brought == {f"share/{place}" for command in commands() for place in pages(command)}
    assert SHARE == REPOSITORY / "share"


def test_every_package_is_typed() -> None:
    packages = {script.partition(".")[0] for script in PROJECT["project"]["scripts"].values()} | {"cowlib", "cowcli"}
    assert {f"{name}*" for name in packages} == set(PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert [name for name in packages if not Path(REPOSITORY, name, "py.typed").exists()] == []


def test_commands_have_pages_and_links() -> None:
    names = set(PROJECT["project"]["scripts"])
    assert names == {command.name for command in commands()}
    linked = re.search(r"^commands=\((.*)\)$", (REPOSITORY / "scripts/install.sh").read_text(), re.MULTILINE)
    assert linked and set(linked[1].split()) == names
