"""A first contract: the sample meets it, everybody can read it, and no row's own value stands in it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from validation import row_parts
from validation.checking import check_rows
from validation.contract import MAX_CHECKS, read_contract
from validation.inferring import Inferred, as_text, infer, outward
from validation.row_parts import row_files

LENGTHS = st.floats(1e-6, 1e9)


@given(st.floats(-1e9, 1e9), LENGTHS)
def test_bounds_are_readable_lie_outside_by_a_tenth_and_within_twice_the_span(low, span):
    high = low + span
    span = high - low or abs(high)
    below, above = outward(low, high)
    slack = 1e-9 * max(abs(low), abs(high), span)
    assert below == 0 <= low or below <= low - 0.1 * span + slack
    assert above == 0 >= high or above >= high + 0.1 * span - slack
    assert above - below <= 2 * span + max(0.0, low if below == 0 else 0.0) + max(0.0, -high if above == 0 else 0.0) + slack


@pytest.mark.parametrize(("low", "high", "bounds"), [
    (21, 79, (10, 90)), (0, 1, (0, 1.1)), (-2, 8, (-3, 9)), (10_000, 1_000_000, (0, 1_100_000)), (-7, -7, (-8, -6)),
    (0.001, 0.009, (0, 0.01)), (0, 0, (0, 0)), (5.5, 5.5, (4, 7))])
def test_bounds_are_written_as_a_person_would(low, high, bounds):
    assert outward(low, high) == bounds
    assert [type(one) for one in outward(low, high)] == [type(one) for one in bounds]


def sample(rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({
        "Age (years)": rng.integers(21, 80, rows), "income": rng.lognormal(10, 1, rows).round(2),
        "sex": rng.choice(["f", "m"], rows), "age  years": rng.choice([0, 1, 2], rows),
        "town": pd.Series(rng.choice(["a", "bb", *(f"town {place}" for place in range(60))], rows)),
        "visits": np.where(np.arange(rows) % 3 == 0, np.nan, rng.integers(0, 5, rows)),
        "smokes": rng.random(rows) < 0.5,
        "seen": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 99, rows), "D"),
        "empty": pd.Series([None] * rows, dtype=object), "y": rng.choice([0, 1], rows)})


def inferred(folder: Path, frame: pd.DataFrame, suffix: str = ".parquet", **how: object) -> Inferred:
    path = folder / f"rows{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    return infer([row_files(path)], "made-up", **how)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_sample_meets_the_contract_that_was_made_of_it(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(row_parts, "ROWS_OF_A_PART", 70)
    found = inferred(tmp_path, sample(), suffix, target="y")
    contract = read_contract(as_text(found.contract).encode(), "the inferred contract")
    assert contract.checks == found.contract.checks
    checked = check_rows([row_files(tmp_path / f"rows{suffix}")], contract)
    assert (checked.holds, checked.left_out, checked.rows) == (True, 0, 300)
    assert all(one.holds for one in checked.results)
    kinds = {check.id: check.type.removeprefix("expect_column_") for check in contract.checks}
    assert kinds["y_is_known"] == "values_to_be_in_set"
    assert kinds["age_years_in_range"] == "values_to_be_between"
    assert kinds["age_years_is_known"] == "values_to_be_in_set", "the other column that is spelled alike"
    assert kinds["age_years_is_there_2"] == "values_to_not_be_null"
    assert kinds["town_length_in_range"] == "value_lengths_to_be_between"
    assert any("'empty'" in note for note in found.notes)
    assert any("'town'" in note and "--without" in note for note in found.notes)
    assert {check.id for check in contract.checks if check.severity == "warning"} == {"visits_mostly_there"}


def test_attack_no_value_that_a_single_row_holds_stands_in_the_contract(tmp_path):
    """Neither an extreme, nor a rare category, nor a name, wherever in the rows it is."""
    frame = sample()
    frame.loc[7, "income"], frame.loc[8, "Age (years)"], frame.loc[9, "age  years"] = 912_345.67, 103, 17
    frame.loc[10, "sex"] = "SECRET-PATIENT-77"
    text = as_text(inferred(tmp_path, frame, target="y").contract)
    assert not any(secret in text for secret in ("912345.67", "103", "17", "SECRET"))
    numbers = {check.kwargs[key] for check in inferred(tmp_path, frame).contract.checks for key in ("min_value", "max_value")
               if "between" in check.type and "proportion" not in check.type and "length" not in check.type
               and check.kwargs.get(key)}
    assert numbers.isdisjoint({*frame["income"], *frame["Age (years)"].agg(["min", "max"])})


def test_attack_whether_one_row_is_there_changes_the_contract_only_as_an_extreme(tmp_path):
    """The habit that the page describes: a row that is neither an extreme nor one of the few that hold its value."""
    frame = sample()
    middle = frame["income"].sort_values().index[150]
    assert inferred(tmp_path, frame, target="y").contract == inferred(tmp_path, frame.drop(index=middle), target="y").contract


def test_what_is_not_to_be_spoken_of_is_not(tmp_path):
    found = inferred(tmp_path, sample(), without=["town", "empty"])
    assert "town" not in as_text(found.contract)
    with pytest.raises(ContractError, match="no column 'nowhere'"):
        inferred(tmp_path, sample(), without=["nowhere"])
    with pytest.raises(ContractError, match="no column 'label'"):
        inferred(tmp_path, sample(), target="label")


def test_a_wide_table_gets_as_many_checks_as_a_contract_may_have(tmp_path):
    wide = pd.DataFrame(np.arange(30.0 * 400).reshape(30, 400), columns=[f"pixel {place}" for place in range(400)])
    found = inferred(tmp_path, wide)
    kinds = [check.type for check in found.contract.checks]
    assert (len(kinds), kinds.count("expect_column_values_to_be_between")) == (MAX_CHECKS, 400)
    assert "201 are left out" in found.notes[-1]


def test_a_column_of_lists_is_refused_in_words(tmp_path):
    with pytest.raises(ContractError, match="column 'a' holds lists"):
        inferred(tmp_path, pd.DataFrame({"a": [[1], [2]]}))


@pytest.mark.parametrize("frame", [pd.DataFrame({"a": [math.inf, 1.0, math.nan]}),
                                   pd.DataFrame({"a": pd.array([1, None], "Int64")}), pd.DataFrame({"a": [2 ** 60, 1]}),
                                   pd.DataFrame({"a": pd.Categorical(["x", "y"])})])
def test_odd_columns_are_no_surprise(tmp_path, frame):
    found = inferred(tmp_path, frame, rows_each=2)
    assert read_contract(as_text(found.contract).encode(), "the inferred contract").checks == found.contract.checks
