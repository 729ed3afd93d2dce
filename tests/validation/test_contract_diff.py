"""What changed between two contracts: a row that meets the tighter one meets the looser one."""

from __future__ import annotations

import pytest

from validation.contract import ContractFile
from validation.contract_diff import changes

AGE = {"id": "age", "type": "expect_column_values_to_be_between",
       "kwargs": {"column": "age", "min_value": 18, "max_value": 120}}
SEX = {"id": "sex", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "sex", "value_set": [1, 2]}}
NEVER = {"id": "never", "type": "expect_column_values_to_not_be_in_set", "kwargs": {"column": "sex", "value_set": [9]}}
SET = {"id": "columns", "type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["age"], "exact_match": False}}


def contract(*checks: dict) -> ContractFile:
    return ContractFile.model_validate_json(ContractFile(name="c", checks=checks).model_dump_json())


def changed(check: dict, **kwargs: object) -> dict:
    return {**check, "kwargs": {key: value for key, value in {**check["kwargs"], **kwargs}.items() if value is not None}}


@pytest.mark.parametrize(("before", "after", "kind", "words"), [
    (AGE, changed(AGE, min_value=0), "loosened", "min_value 18 → 0"),
    (AGE, changed(AGE, max_value=None), "loosened", "max_value 120 → nothing"),
    (AGE, changed(AGE, min_value=0, max_value=90), "changed", "min_value 18 → 0; max_value 120 → 90"),
    (AGE, changed(AGE, strict_min=True), "tightened", "strict_min"),
    (SEX, changed(SEX, value_set=[1, 2, 3]), "loosened", "value_set: + 3"),
    (SEX, changed(SEX, value_set=[1, 3]), "changed", "value_set: + 3; - 2"),
    (NEVER, changed(NEVER, value_set=[8, 9]), "tightened", "value_set: + 8"),
    (SET, changed(SET, column_set=["age", "sex"]), "tightened", "column_set: + sex"),
    (SET, changed(SET, exact_match=True), "tightened", "exact_match False → True"),
    (AGE, {**AGE, "severity": "warning"}, "loosened", "it only warns now"),
    (AGE, {**AGE, "id": "age.range"}, "changed", "it was called age"),
])
def test_a_change_is_named_and_its_reverse_is_the_reverse(before, after, kind, words):
    (found,) = changes(contract(before), contract(after))
    assert (found.kind, found.id) == (kind, after["id"])
    assert words in found.words
    (back,) = changes(contract(after), contract(before))
    assert back.kind == {"loosened": "tightened", "tightened": "loosened"}.get(kind, kind)


def test_what_is_new_what_is_gone_and_what_is_as_it_was():
    found = changes(contract(AGE, SEX), contract({**NEVER, "severity": "warning"}, AGE))
    assert [(one.kind, one.id, one.about) for one in found] == [("added", "never", "sex"), ("removed", "sex", "sex")]
    assert found[0].words == "values to not be in set, value_set 9 (a warning)"
    assert changes(contract(AGE, SEX), contract(SEX, AGE)) == []


def test_an_id_that_now_means_something_else_is_no_change_of_a_bound():
    found = changes(contract(AGE), contract({**SEX, "id": "age"}))
    assert [one.kind for one in found] == ["added", "removed"]


def test_a_share_of_rows_that_no_site_judges_by_is_no_change():
    assert changes(contract(AGE), contract(changed(AGE, mostly=0.9))) == []
