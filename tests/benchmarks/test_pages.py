"""Results are computed once, and a page keeps what stands around its tables."""

from __future__ import annotations

import pytest

from benchmarks.pages import Memory, fill, table
from fedround.errors import SetupError


def test_a_result_is_computed_once_and_again_when_it_depends_on_something_else(tmp_path):
    calls = []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    assert Memory(tmp_path / "m" / "r.json").recall("x", {"a": 1}, compute) == 1
    assert Memory(tmp_path / "m" / "r.json").recall("x", {"a": 1}, compute) == 1
    assert Memory(tmp_path / "m" / "r.json").recall("x", {"a": 2}, compute) == 2


def test_a_part_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end -->\nbetween\n<!-- two -->\n<!-- end -->\nafter\n")
    fill(page, "one", "new")
    fill(page, "one", "newer")
    assert page.read_text() == "before\n<!-- one -->\nnewer\n<!-- end -->\nbetween\n<!-- two -->\n<!-- end -->\nafter\n"
    with pytest.raises(SetupError, match="no part 'three'"):
        fill(page, "three", "x")


def test_a_table():
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | --: |\n| x | 1 |"
