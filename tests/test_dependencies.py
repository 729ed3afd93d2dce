"""What the packages import is declared; what is declared is imported, or its line in pyproject.toml says why it is there."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedround", "fedround_cli", "flows", "infra", "site_workers", "tasks", "validation")
HALVES = {"botocore": "boto3", "click": "typer", "markupsafe": "jinja2", "mypy-boto3-s3": "boto3",
          "opentelemetry-api": "opentelemetry-sdk", "opentelemetry-proto": "opentelemetry-sdk",
          "opentelemetry-semantic-conventions": "opentelemetry-sdk", "pydantic-core": "pydantic"}
"""Distributions that make one product with another, which is declared."""
_IMPORT = re.compile(r"^\s*(?:from|import) ([a-z_A-Z0-9]+)", re.MULTILINE)


def named(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@cache
def imported() -> dict[str, set[str]]:
    """The distributions that the packages import, and where."""
    known, found = packages_distributions(), dict[str, set[str]]()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for module in {*_IMPORT.findall(path.read_text())} - sys.stdlib_module_names - {*PACKAGES, "fedround_examples"}:
                for distribution in known.get(module, ()):
                    found.setdefault(named(distribution), set()).add(str(path.relative_to(ROOT)))
    return found


def declared() -> Iterator[tuple[str, str]]:
    """Each distribution that a user installs, with what its line says after it."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    for said in (*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)):
        lines = [line for line in text.splitlines() if f'"{said}"' in line]
        yield named(re.match(r"[\w.-]+", said)[0]), lines[0].partition("#")[2]


def test_what_the_packages_import_is_declared():
    missing = imported().keys() - {name for name, _ in declared()} - HALVES.keys()
    assert {name: imported()[name] for name in missing} == {}


def test_what_is_declared_is_imported_or_its_line_says_why_it_is_there():
    assert [name for name, why in declared() if name not in imported() and not why] == []


def test_every_half_is_still_imported_beside_its_other_half():
    assert {half for half, whole in HALVES.items() if half not in imported() or whole not in dict(declared())} == set()


def test_types_and_imports_are_checked_in_every_package():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {*PACKAGES} == {*tool["mypy"]["packages"]} == {*tool["importlinter"]["root_packages"]}
