"""Only ids of failed checks come out of a validation."""

import json
import logging
import subprocess
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError, SetupError
from validation.checking import check_rows
from validation.contract import load_contract
from validation.judging import Judged, judge, judge_frame, judge_in_subprocess
from validation.row_parts import row_files
from validation.rows import read_rows

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
    assert judge_frame(good(), contract).failed(contract) == ()


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
    (good().assign(income=[Unhashable()] * 6), ("rows", "income.mean")),
], ids=["few", "one-cell", "order", "mean", "missing-column", "extra-column", "text", "text-mean", "lists", "hash"])
def test_every_failed_or_impossible_check_is_named_in_contract_order(contract, frame, failed):
    assert judge_frame(frame, contract).failed(contract) == failed


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=8), low=st.integers(-9, 9), width=st.integers(0, 9))
def test_a_range_check_fails_exactly_when_a_loop_finds_a_value_outside(tmp_path, values, low, width):
    contract = load_contract(contract_file(tmp_path, between("x", "x", low, low + width)))
    outside = [value for value in values if not low <= value <= low + width]
    assert judge_frame(pd.DataFrame({"x": values}), contract).failed(contract) == (("x",) if outside else ())


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
    failed = judge_frame(secret_frame(), contract).failed(contract)
    assert set(failed) >= {"age", "sex", "income.mean", "columns", "kl"}
    assert set(failed) <= {check.id for check in contract.checks}
    out, err = capfd.readouterr()
    assert (out, err, caplog.text, list(recwarn)) == ("", "", "", [])


def test_logging_works_again_afterwards(contract, caplog):
    judge_frame(good(), contract).failed(contract)
    logging.getLogger("site").warning("still here")
    assert "still here" in caplog.text


@pytest.mark.parametrize("name", ["torn.parquet", "torn.csv"])
def test_attack_a_damaged_file_is_not_quoted_by_the_error_or_anything_behind_it(tmp_path, name, capfd):
    path = tmp_path / name
    path.write_bytes({"torn.parquet": SECRET.encode() * 40, "torn.csv": f'"{SECRET}\n'.encode() * 3}[name])
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
    for name, kind, words in [("absent.csv", SetupError, "No such file"), ("folder.csv", SetupError, "no file"),
                              ("empty.parquet", ContractError, "no rows"),
                              ("nothing.csv", ContractError, "not a readable csv"),
                              ("rows.xlsx", ContractError, r"\.parquet or \.csv")]:
        with pytest.raises(kind, match=words):
            read_rows(tmp_path / name)


def test_attack_a_column_that_one_file_lacks_is_missed_although_the_other_has_it(tmp_path):
    """Joined, both had it, and a recipe that fills gaps with zeros trained on zeros."""
    paths = [tmp_path / "train.parquet", tmp_path / "validation.csv"]
    good().drop(columns="age").to_parquet(paths[0])
    good().to_csv(paths[1], index=False)
    path = contract_file(tmp_path, {"id": "there", "type": "expect_column_to_exist", "kwargs": {"column": "age"}},
                         between("age", "age", 18, 120), between("sex", "sex", 1, 1))
    found = judge(paths, load_contract(path))
    assert (found.form, found.rows, found.total) == (("there", "age"), ("sex",), 12)
    assert found.by_file(paths, "form") == f"{paths[0]} fails there, age"
    assert found.left_out == tuple(place + side for side in (0, 6) for place in np.flatnonzero(good()["sex"] != 1))


# -- the process of its own --------------------------------------------------------------------------------------------


def test_a_subprocess_gives_the_same_answer_and_prints_nothing(tmp_path, capfd):
    secret_frame().astype(str).to_parquet(tmp_path / "rows.parquet")
    path = contract_file(tmp_path, *LEAKY)
    paths = [tmp_path / "rows.parquet", tmp_path / "rows.csv"]
    secret_frame().iloc[:, 1:].to_csv(paths[1], index=False)
    found, here = judge_in_subprocess(paths, path), judge(paths, load_contract(path))
    assert (found, found.files) == (here, here.files)
    assert "kl" in found.tables
    assert capfd.readouterr() == ("", "")


def test_a_subprocess_passes_our_errors_on_and_stops_in_time(tmp_path):
    path = contract_file(tmp_path)
    with pytest.raises(SetupError, match=r"absent\.parquet.*No such file"):
        judge_in_subprocess([tmp_path / "absent.parquet"], path)
    (tmp_path / "torn.parquet").write_text(SECRET)
    with pytest.raises(ContractError, match="not a readable parquet"):
        judge_in_subprocess([tmp_path / "torn.parquet"], path)
    with pytest.raises(SetupError, match="longer than"):
        judge_in_subprocess([tmp_path / "torn.parquet"], path, timeout_s=0.01)


@pytest.mark.parametrize("wrong", [[["x"]], [{"x": 1}], ["of nobody"], [1], "x", None])
def test_a_subprocess_that_names_anything_but_checks_has_not_answered(tmp_path, monkeypatch, wrong):
    answer = {"form": (), "form_warnings": (), "rows": (), "tables": (), "warnings": (), "left_out": (), "total": 1}
    rows, path = tmp_path / "rows.parquet", contract_file(tmp_path)
    for said in (answer | {"warnings": wrong}, {"files": [answer, answer | {"warnings": wrong}]}):
        done = subprocess.CompletedProcess([], 0, json.dumps(said).encode())
        monkeypatch.setattr(subprocess, "run", lambda *_, done=done, **__: done)
        with pytest.raises(SetupError, match="ended without an answer"):
            judge_in_subprocess([rows], path)


# -- what one record can change is not told ----------------------------------------------------------------------------


def told(frame: pd.DataFrame, tmp_path: Path, *checks: dict[str, object], suffix: str = ".parquet") -> Judged:
    path = tmp_path / f"rows{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    return judge([path], load_contract(contract_file(tmp_path, *checks)))


def test_attack_nothing_that_may_be_told_depends_on_whether_a_record_is_there(tmp_path):
    """One value, named by a contract, told whether a person is in the rows; 900 thresholds on the largest income told it to
    three digits. All were signed, and charged nothing."""
    checks = [{"id": "ada", "type": "expect_column_values_to_not_be_in_set", "kwargs": {"column": "age", "value_set": [77]}},
              {"id": "twice", "type": "expect_column_values_to_be_unique", "kwargs": {"column": "age"}}]
    checks += [{"id": f"max-{most}", "type": "expect_column_max_to_be_between",
                "kwargs": {"column": "income", "max_value": most}} for most in range(0, 100, 25)]
    for frame in (good(), good().assign(age=[20, 77, 40, 50, 60, 70]), good().assign(income=80.0), good().head(1)):
        found = told(frame, tmp_path, *checks)
        assert found.form == ()
        assert found.left_out == tuple(np.flatnonzero(frame["age"] == 77))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_attack_a_gap_among_whole_numbers_is_no_change_of_type(tmp_path, suffix):
    whole = {"id": "type", "type": "expect_column_values_to_be_of_type", "kwargs": {"column": "sex", "type_": "int64"}}
    assert told(good(), tmp_path, whole, suffix=suffix) == Judged((), (), (), (), (), (), 6)
    assert told(good().assign(sex=pd.array([1, 2, None, 2, 1, 2], "Int64")), tmp_path, whole, suffix=suffix).form == ()


BY_ROW = {
    "regex": ("expect_column_values_to_match_regex", {"column": "n", "regex": "^[0-9]{1,2}$"}),
    "regexes": ("expect_column_values_to_not_match_regex_list", {"column": "n", "regex_list": ["\\\\."]}),
    "lengths": ("expect_column_value_lengths_to_be_between", {"column": "n", "min_value": 1, "max_value": 2}),
    "set": ("expect_column_values_to_be_in_set", {"column": "n", "value_set": [11, 12, 2 ** 53 + 1]}),
    "range": ("expect_column_values_to_be_between", {"column": "n", "max_value": 2 ** 53}),
    "pair": ("expect_column_pair_values_to_be_equal", {"column_A": "n", "column_B": "other"}),
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("kind", BY_ROW)
def test_attack_one_gap_or_fraction_changes_no_other_rows_verdict(tmp_path, kind, suffix):
    """One gap turned all whole numbers into fractions: a check of how they are written then failed every row."""
    name, kwargs = BY_ROW[kind]
    check = {"id": "x", "type": name, "kwargs": kwargs}
    numbers = [11, 12, 13, 14, 2 ** 53 + 1, 16]
    frame = good().assign(n=numbers, other=[11, 12, 13, 14, 2 ** 53, 16])
    before = told(frame, tmp_path, check, suffix=suffix).left_out
    for odd in (None, *(["34.5", "9223372036854775808"] if suffix == ".csv" else [])):
        changed = pd.array([*numbers[:3], None, *numbers[4:]], "Int64") if odd is None else [*numbers[:3], odd, *numbers[4:]]
        after = told(frame.assign(n=changed), tmp_path, check, suffix=suffix).left_out
        assert set(after) - {3} == set(before) - {3}, odd
        found = check_rows([row_files(tmp_path / f"rows{suffix}")], load_contract(tmp_path / "contract.json"))
        assert found.left_out == len(after), odd


@pytest.mark.parametrize(("value", "left_out"), [(SECRET, ()), (1.5, (2,)), (1e400, (2,))])
def test_in_a_file_without_types_a_value_of_another_type_is_a_matter_of_its_row(tmp_path, value, left_out):
    """A text is a gap there, which the recipe says what to do with; and the other values remain numbers."""
    whole = {"id": "type", "type": "expect_column_values_to_be_of_type", "kwargs": {"column": "sex", "type_": "int64"}}
    frame = good().astype({"sex": object})
    frame.loc[2, "sex"] = value
    found = told(frame, tmp_path, whole, between("sex", "sex", 1, 2), suffix=".csv")
    assert (found.form, found.left_out) == ((), left_out)


def test_a_row_is_judged_by_itself_also_among_values_of_many_types(tmp_path):
    contract = load_contract(contract_file(tmp_path, between("age", "age", 18, 120)))
    frame = good().assign(age=pd.Series([20, "x", 30, None, -5, [7]], dtype=object))
    found = judge_frame(frame, contract)
    assert (found.rows, found.left_out) == (("age",), (1, 4, 5))
    for gone in range(6):
        others = np.arange(6) != gone
        assert [place for place in found.left_out if place != gone] == np.arange(6)[others][
            list(judge_frame(frame[others], contract).left_out)].tolist()


def test_a_check_that_warns_leaves_no_row_out_and_refuses_nothing(tmp_path):
    """Whatever fails it; and only what columns and types fail may be told."""
    checks = [between("age", "age", 18, 40),
              {"id": "sex", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "sex", "value_set": [1]}},
              {"id": "mean", "type": "expect_column_mean_to_be_between", "kwargs": {"column": "income", "max_value": 0}},
              {"id": "gone", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "gone"}},
              {"id": "kind", "type": "expect_column_values_to_be_of_type", "kwargs": {"column": "age", "type_": "str"}}]
    strict = told(good(), tmp_path, *checks)
    assert (strict.form, strict.rows, strict.tables, len(strict.left_out)) == (
        ("gone", "kind"), ("age", "sex"), ("mean",), 4)
    mild = told(good(), tmp_path, checks[0], *({**check, "severity": "warning"} for check in checks[1:]))
    assert mild == Judged((), ("age",), (), ("gone", "kind"), ("sex", "mean"), (3, 4, 5), 6)


def test_attack_what_a_warning_tells_depends_on_no_record(tmp_path):
    """As a check that refuses: a contract may make a warning of every one that names somebody's value."""
    checks = [{"id": "ada", "type": "expect_column_values_to_not_be_in_set", "severity": "warning",
               "kwargs": {"column": "age", "value_set": [77]}},
              {"id": "max", "type": "expect_column_max_to_be_between", "severity": "warning",
               "kwargs": {"column": "income", "max_value": 50}},
              {"id": "kind", "type": "expect_column_values_to_be_of_type", "severity": "warning",
               "kwargs": {"column": "age", "type_": "int64"}}]
    for suffix in (".parquet", ".csv"):
        for frame in (good(), good().assign(age=[20, 77, 40, 50, 60, 70]), good().assign(income=80.0),
                      good().assign(age=[20, None, 40, 50, 60, 70]).astype({"age": "Int64"})):
            found = told(frame, tmp_path, *checks, suffix=suffix)
            assert (found.form, found.form_warnings, found.left_out) == ((), (), ())


def test_a_damaged_line_does_not_make_the_file_unreadable(tmp_path):
    (tmp_path / "ragged.csv").write_bytes(f"a,b\n1,2\n{SECRET},{SECRET},3,4\n5,6\n".encode())
    (tmp_path / "latin.csv").write_bytes(f"age,b\n1,2\n{SECRET}\xff,3\n3,4\n".encode("latin-1"))
    assert read_rows(tmp_path / "ragged.csv")["a"].tolist() == [1, 5]
    assert read_rows(tmp_path / "latin.csv")["age"].isna().tolist() == [False, True, False]
