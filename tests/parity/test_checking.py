"""A contract on rows a part at a time, beside Great Expectations on all rows at once: the same verdicts, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from validation import contract, row_parts
from validation.checking import check_rows
from validation.contract import Contract, load_contract
from validation.judging import judge
from validation.row_parts import row_files

N = 60
NUMBERS = [0, 1, 2, -3, 7, 1.5, np.nan, np.inf, -np.inf, 2 ** 53 + 1, 1e300]
TEXTS = ["a", "b", "", "aa", "é", "1", "nan", None, "a longer text"]
KINDS = {
    "whole": lambda rng: rng.choice([0, 1, 2, -3, 7, 2 ** 53 + 1], N),
    "small": lambda rng: rng.choice([0, 1, 2, -3, 7], N).astype(np.int8),
    "float": lambda rng: rng.choice(NUMBERS, N).astype(float),
    "single": lambda rng: rng.choice([0, 1, 1.5, np.nan, np.inf], N).astype(np.float32),
    "gaps": lambda rng: pd.array(rng.choice([0, 1, None, 3], N), dtype="Int64"),
    "truth": lambda rng: rng.choice([True, False], N),
    "maybe": lambda rng: pd.Series(rng.choice([True, False, None], N), dtype=object),
    "text": lambda rng: pd.Series(rng.choice(TEXTS, N), dtype=object),
    "category": lambda rng: pd.Categorical(rng.choice(["a", "b", "c"], N)),
    "day": lambda rng: pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 9, N), "D"),
    "nothing": lambda rng: pd.Series([None] * N, dtype=object),
}
SETS = [[0, 1], [0, 1.5, 7], ["a", "b"], ["1", 1], [True], [""], [None, "a"], [2 ** 53]]
RANGES = [{"min_value": 0}, {"max_value": 2}, {"min_value": 0, "max_value": 2}, {"min_value": 0, "strict_min": True},
          {"min_value": 2, "max_value": 0}, {"min_value": "a", "max_value": "b"}, {"max_value": 1.5, "strict_max": True}, {}]


def checks_on(column: str) -> list[dict]:
    """Everything that a contract is likely to ask of one column, and what makes no sense of it."""
    of = [("values_to_be_in_set", {"value_set": one}) for one in SETS]
    of += [("values_to_not_be_in_set", {"value_set": one}) for one in SETS[:4]]
    of += [(name, one) for one in RANGES for name in (
        "values_to_be_between", "value_lengths_to_be_between", "unique_value_count_to_be_between",
        "proportion_of_non_null_values_to_be_between", "max_to_be_between")]
    of += [("values_to_be_null", {}), ("values_to_not_be_null", {}), ("values_to_be_unique", {}), ("to_exist", {}),
           ("values_to_match_regex", {"regex": "^a"})]
    of += [("values_to_be_of_type", {"type_": one}) for one in ("int64", "float64", "str", "bool", "int8", "int", "object")]
    return [{"id": f"{column}.{place}", "type": f"expect_column_{name}", "kwargs": {"column": column, **kwargs}}
            for place, (name, kwargs) in enumerate(of)]


OF_ALL = [
    {"id": "rows", "type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 50, "max_value": 59}},
    {"id": "rows_are", "type": "expect_table_row_count_to_equal", "kwargs": {"value": 61}},
    {"id": "columns", "type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["a"], "exact_match": False}},
    {"id": "columns_are", "type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["a"]}},
    {"id": "count", "type": "expect_table_column_count_to_equal", "kwargs": {"value": 1}},
    {"id": "elsewhere", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "elsewhere"}},
]


def contract_of(folder: Path, checks: list[dict]) -> Contract:
    """Of these checks, as far as a contract may hold them."""
    allowed = [check for check in checks if not list(contract._problems(contract.Check(**check)))]
    assert len(allowed) > 0.5 * len(checks)
    (folder / "contract.json").write_text(json.dumps({"name": "made-up", "checks": allowed}))
    return load_contract(folder / "contract.json")


def assert_the_same(paths: list[Path], agreed: Contract) -> None:
    whole, parts = judge(paths, agreed), check_rows([row_files(path) for path in paths], agreed)
    assert tuple(one.check.id for one in parts.results if not one.holds) == whole.failed(agreed)
    assert (parts.rows, parts.left_out) == (whole.total, len(whole.left_out))
    failed = {one.check.id: one.about for one in parts.results if not one.holds}
    assert {name for name, about in failed.items() if about == "form"} == set(whole.form)
    assert {name for name, about in failed.items() if about != "form"} <= {*whole.rows, *whole.tables}


def test_a_table_of_several_kinds_of_columns_meets_and_fails_the_same(tmp_path, monkeypatch):
    """Some of the checks, with some kinds of columns, in parts of 31 rows; and a second file without one of the columns."""
    monkeypatch.setattr(row_parts, "ROWS_OF_A_PART", 31)
    rng = np.random.default_rng(7)
    kinds = ("float", "gaps", "maybe", "small", "text")
    frame = pd.DataFrame({kind: KINDS[kind](rng) for kind in kinds})
    paths = [tmp_path / "1.parquet", tmp_path / "2.csv"]
    frame.to_parquet(paths[0])
    frame.drop(columns="small").to_csv(paths[1], index=False)
    drawn = [check for kind in kinds for check in rng.choice(checks_on(kind), 2)]
    fast = [check for kind in ("float", "text") for check in checks_on(kind)[:3]]
    assert_the_same(paths, contract_of(tmp_path, [*{check["id"]: check for check in (*drawn, *fast)}.values(), *OF_ALL[:3]]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_every_check_says_the_same_of_every_kind_of_column(tmp_path, monkeypatch, kind, suffix):
    """In parts of 23 rows: what a part looks like alone decides nothing."""
    monkeypatch.setattr(row_parts, "ROWS_OF_A_PART", 23)
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    frame, path = pd.DataFrame({"a": KINDS[kind](rng)}), tmp_path / f"rows{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    assert_the_same([path], contract_of(tmp_path, [*checks_on("a"), *OF_ALL]))
