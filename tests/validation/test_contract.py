"""A contract says what it means, or is refused with the name of the check that does not."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from fedround.errors import ContractError, SetupError
from validation.contract import load_contract

AGE = {"id": "age.range", "type": "expect_column_values_to_be_between",
       "kwargs": {"column": "age", "min_value": 18, "max_value": 120}}
ROWS = {"id": "enough-rows", "type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}}


def written(folder: Path, *checks: object, **more: object) -> Path:
    path = folder / "contract.json"
    path.write_text(json.dumps({"name": "tiny", "checks": list(checks), **more}))
    return path


def test_a_contract_keeps_its_order_and_is_named_by_its_bytes(tmp_path):
    path = written(tmp_path, ROWS, AGE)
    contract = load_contract(path)
    assert [check.id for check in contract.checks] == ["enough-rows", "age.range"]
    assert contract.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert contract.checks[1].kwargs == AGE["kwargs"]


def test_a_check_that_says_nothing_of_its_severity_is_an_error(tmp_path):
    contract = load_contract(written(tmp_path, AGE, {**ROWS, "severity": "warning"}))
    assert [check.severity for check in contract.checks] == ["error", "warning"]
    assert contract.warnings == ("enough-rows",)


@pytest.mark.parametrize(("change", "words"), [
    ({"type": "expect_column_values_to_be_nice"}, ["age.range", "expect_column_values_to_be_nice"]),
    ({"kwargs": {"column": "age", "min_vlaue": 18}}, ["age.range", "min_value", "spelling"]),
    ({"kwargs": {"min_value": 18}}, ["age.range", "needs column"]),
    ({"kwargs": {"column": 7}}, ["age.range", "'column'"]),
    ({"kwargs": {"column": "age", "mostly": 1.5}}, ["age.range", "'mostly'"]),
    ({"kwargs": {"column": "age", "min_value": {"$PARAMETER": "x"}}}, ["age.range", "'min_value'"]),
    ({"severity": "critical"}, ["checks.0.severity", "'error' or 'warning'"]),
    ({"kwargs": {**AGE["kwargs"], "severity": "warning"}}, ["age.range", "spelling"]),
    ({"id": "Age Range"}, ["checks.0.id"]),
])
def test_a_wrong_check_is_refused_by_name(tmp_path, change, words):
    with pytest.raises(ContractError) as refused:
        load_contract(written(tmp_path, {**AGE, **change}))
    assert all(word in str(refused.value) for word in words), str(refused.value)


@pytest.mark.parametrize("kwargs", [
    {"row_condition": "@pd.io.common.os.system('true')", "condition_parser": "pandas"},
    {"result_format": "COMPLETE"}, {"catch_exceptions": False}, {"meta": {}},
])
def test_attack_a_contract_cannot_run_code_or_ask_for_values(tmp_path, kwargs):
    with pytest.raises(ContractError, match=r"age\.range"):
        load_contract(written(tmp_path, {**AGE, "kwargs": {**AGE["kwargs"], **kwargs}}))


@pytest.mark.parametrize("kind", ["unexpected_rows_expectation", "expect_query_results_to_match_comparison",
                                  "expect_column_values_to_match_like_pattern"])
def test_expectations_that_query_a_database_are_not_for_contracts(tmp_path, kind):
    with pytest.raises(ContractError):
        load_contract(written(tmp_path, {"id": "q", "type": kind, "kwargs": {}}))


def test_two_checks_with_one_id_are_refused_by_name(tmp_path):
    with pytest.raises(ContractError, match=r"age\.range"):
        load_contract(written(tmp_path, AGE, {**ROWS, "id": "age.range"}))


def test_an_empty_contract_and_unknown_keys_are_refused(tmp_path):
    with pytest.raises(ContractError, match="checks"):
        load_contract(written(tmp_path))
    with pytest.raises(ContractError, match="unknown key 'version'"):
        load_contract(written(tmp_path, AGE, version=2))


def test_a_missing_file_is_a_setup_error(tmp_path):
    with pytest.raises(SetupError, match="contract"):
        load_contract(tmp_path / "nowhere.json")


def test_a_fraction_that_binary_cannot_hold_is_accepted(tmp_path):
    load_contract(written(tmp_path, {**AGE, "kwargs": {"column": "age", "min_value": 0, "mostly": 0.57}}))


def test_reading_a_contract_does_not_import_great_expectations(tmp_path):
    import subprocess
    code = ("import sys, pathlib; from validation.judging import load_contract; load_contract(pathlib.Path(sys.argv[1]));"
            "sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code, written(tmp_path, AGE)], check=False).returncode == 0
