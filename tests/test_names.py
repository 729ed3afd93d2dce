"""A class's name says which one it is: nobody meets two of one name in a folder, and what is signed has its name alone."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedround", "fedround_cli", "flows", "infra", "site_workers", "tasks", "validation")


@pytest.fixture(scope="module")
def classes() -> list[tuple[Path, str]]:
    return [(path.parent, node.name) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
            for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


def test_no_folder_has_two_classes_of_one_name(classes: list[tuple[Path, str]]):
    assert len(classes) > 500
    assert {one: times for one, times in Counter(classes).items() if times > 1} == {}


def test_what_crosses_a_boundary_has_its_name_alone(classes: list[tuple[Path, str]]):
    from fedround import records

    signed = {name for name in records.__all__ if isinstance(getattr(records, name), type)}
    assert {"Plan", "Answer", "Commit", "Finding"} < signed
    found = Counter(name for _, name in classes if name in signed)
    assert {name: times for name, times in found.items() if times > 1} == {}
