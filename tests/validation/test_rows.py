"""Only ids of failed checks come out of a validation."""

import json
import logging
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError, SetupError
from validation.rows import failed_checks, failed_checks_in_subprocess, load_contract, read_rows

SECRET = "SECRET-PATIENT-77"


def between(name: str, column: str, low: float, high: float, **more: float) -> dict[str, object]:
    return {"id": name, "type": "expect_column_values_to_be_between",
            "kwargs": {"column": column, "min_value": low, "max_value": high, **more}}


CHECKS = [
    {"id": "rows", "type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 5}},
    between("age", "age", 18, 120),
    {"id": "sex", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "sex", "value_set": [1, 2]}},
    {"id": "income.mean", "type": "expect_column_mean_to_be_between", "kwargs": {"column": "income", "max_value": 1e6}},
    {"id": "columns", "type": "expect_table_columns_to_match_set",
     "kwargs": {"column_set": ["age", "sex", "income"], "exact_match": True}},
]


def contract_file(folder: Path, *checks: dict[str, object]) -> Path:
    path = folder / "contract.json"
    path.write_text(json.dumps({"name": "tiny", "checks": list(checks or CHECKS)}))
    return path


@pytest.fixture
def contract(tmp_path):
    return load_contract(contract_file(tmp_path))


def good() -> pd.DataFrame:
    return pd.DataFrame({"age": [20, 30, 40, 50, 60, 70], "sex": [1, 2, 1, 2, 1, 2], "income": np.arange(6.0)})


def test_rows_that_meet_the_contract_fail_nothing(contract):
    assert failed_checks(good(), contract) == ()


class Unhashable:
    """A cell on which Great Expectations stumbles before any check: it fingerprints the frame."""

    def __hash__(self):
        raise ValueError(SECRET)


@pytest.mark.parametrize(("frame", "failed"), [
    (good().head(3), ("rows",)),
    (good().assign(age=[20, 30, 40, 50, 60, 121]), ("age",)),
    (good().assign(sex=[1, 2, 3, 2, 1, 2], age=-1), ("age", "sex")),
    (good().assign(income=2e6), ("income.mean",)),
    (good().drop(columns="sex"), ("sex", "columns")),
    (good().assign(more=1), ("columns",)),
    (good().assign(age=["x"] * 6), ("age",)),
    (good().assign(income=["x"] * 6), ("income.mean",)),
    (good().assign(income=[[1], [2], [3], [4], [5], [6]]), ("income.mean",)),
    (good().assign(income=[Unhashable()] * 6), ("rows", "age", "sex", "income.mean", "columns")),
], ids=["few", "one-cell", "order", "mean", "missing-column", "extra-column", "text", "text-mean", "lists", "hash"])
def test_every_failed_or_impossible_check_is_named_in_contract_order(contract, frame, failed):
    assert failed_checks(frame, contract) == failed


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=8), low=st.integers(-9, 9), width=st.integers(0, 9))
def test_a_range_check_fails_exactly_when_a_loop_finds_a_value_outside(tmp_path, values, low, width):
    contract = load_contract(contract_file(tmp_path, between("x", "x", low, low + width)))
    outside = [value for value in values if not low <= value <= low + width]
    assert failed_checks(pd.DataFrame({"x": values}), contract) == (("x",) if outside else ())


# -- attacks: a secret in the rows goes nowhere ------------------------------------------------------------------------


def secret_frame() -> pd.DataFrame:
    mixed = good().assign(age=pd.Series([20, SECRET, 30, None, -5, 7], dtype=object), sex=[SECRET] * 6)
    return mixed.assign(income=pd.Series([1.0, 2.0, SECRET, 3.0, 4.0, 5.0], dtype=object), **{SECRET: 1})


LEAKY = [*CHECKS, between("pair", "age", 0, 1, mostly=0.5),
         {"id": "unique", "type": "expect_column_values_to_be_unique", "kwargs": {"column": "sex"}},
         {"id": "type", "type": "expect_column_values_to_be_of_type", "kwargs": {"column": "sex", "type_": "int64"}},
         {"id": "regex", "type": "expect_column_values_to_match_regex", "kwargs": {"column": "sex", "regex": "^1$"}},
         {"id": "distinct", "type": "expect_column_distinct_values_to_be_in_set",
          "kwargs": {"column": "age", "value_set": [1]}},
         {"id": "quantiles", "type": "expect_column_quantile_values_to_be_between",
          "kwargs": {"column": "income", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}}},
         {"id": "kl", "type": "expect_column_kl_divergence_to_be_less_than",
          "kwargs": {"column": "sex", "partition_object": {"values": ["F", "M"], "weights": [0.5, 0.5]},
                     "threshold": 0.1}}]


def test_attack_a_secret_in_the_rows_goes_nowhere(tmp_path, capfd, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    contract = load_contract(contract_file(tmp_path, *LEAKY))
    failed = failed_checks(secret_frame(), contract)
    assert set(failed) >= {"age", "sex", "income.mean", "columns", "kl"}
    assert set(failed) <= {check.id for check in contract.checks}
    out, err = capfd.readouterr()
    assert (out, err, caplog.text, list(recwarn)) == ("", "", "", [])


def test_logging_works_again_afterwards(contract, caplog):
    failed_checks(good(), contract)
    logging.getLogger("site").warning("still here")
    assert "still here" in caplog.text


@pytest.mark.parametrize("name", ["torn.parquet", "ragged.csv", "latin.csv"])
def test_attack_a_damaged_file_is_not_quoted_by_the_error_or_anything_behind_it(tmp_path, name, capfd):
    path = tmp_path / name
    path.write_bytes({"torn.parquet": SECRET.encode() * 40, "latin.csv": f"age\n{SECRET}\xff".encode("latin-1"),
                      "ragged.csv": f"a,b\n1,2\n{SECRET},{SECRET},3,4".encode()}[name])
    with pytest.raises(ContractError) as refused:
        read_rows(path)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    error: BaseException | None = refused.value
    while error is not None:
        assert SECRET not in f"{error!r} {vars(error)}"
        error = error.__context__
    assert capfd.readouterr() == ("", "")


# -- reading -----------------------------------------------------------------------------------------------------------


def test_parquet_and_csv_give_the_same_rows(tmp_path):
    good().to_parquet(tmp_path / "rows.parquet")
    good().to_csv(tmp_path / "rows.csv", index=False)
    pd.testing.assert_frame_equal(read_rows(tmp_path / "rows.parquet"), read_rows(tmp_path / "rows.csv"))


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path):
    good().head(0).to_parquet(tmp_path / "empty.parquet")
    (tmp_path / "nothing.csv").touch()
    (tmp_path / "rows.xlsx").touch()
    (tmp_path / "folder.csv").mkdir()
    for name, kind, words in [("absent.csv", SetupError, "No such file"), ("folder.csv", SetupError, "directory"),
                              ("empty.parquet", ContractError, "no rows"),
                              ("nothing.csv", ContractError, "not a readable csv"),
                              ("rows.xlsx", ContractError, r"\.parquet or \.csv")]:
        with pytest.raises(kind, match=words):
            read_rows(tmp_path / name)


# -- the process of its own --------------------------------------------------------------------------------------------


def test_a_subprocess_gives_the_same_answer_and_prints_nothing(tmp_path, capfd):
    secret_frame().astype(str).to_parquet(tmp_path / "rows.parquet")
    path = contract_file(tmp_path, *LEAKY)
    failed = failed_checks_in_subprocess([tmp_path / "rows.parquet"], path)
    assert failed == failed_checks(read_rows(tmp_path / "rows.parquet"), load_contract(path))
    assert "kl" in failed
    assert capfd.readouterr() == ("", "")


def test_a_subprocess_passes_our_errors_on_and_stops_in_time(tmp_path):
    path = contract_file(tmp_path)
    with pytest.raises(SetupError, match=r"absent\.parquet.*No such file"):
        failed_checks_in_subprocess([tmp_path / "absent.parquet"], path)
    (tmp_path / "torn.parquet").write_text(SECRET)
    with pytest.raises(ContractError, match="not a readable parquet"):
        failed_checks_in_subprocess([tmp_path / "torn.parquet"], path)
    with pytest.raises(SetupError, match="longer than"):
        failed_checks_in_subprocess([tmp_path / "torn.parquet"], path, timeout_s=0.01)
