"""A recipe's COLUMNS and a data contract: what the one says as checks, and where the two differ.

The recipe has a place for a value beyond a bound, for one that is not on a list, and for one that misses. So these checks
only warn: no row is left out for what the model can use. What the model cannot use is an error: a column of another kind, a
row without a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fedround.learning.columns import Category, Column, Date, Numeric
from fedround.spoken import how_many
from fedround.values import MAX_CHECKS, Name, parse
from validation.contract import Contract, ContractFile, columns_of
from validation.inferring import named_once, slug

_IN_SET, _BETWEEN = "expect_column_values_to_be_in_set", "expect_column_values_to_be_between"


def contract_of(columns: Sequence[Column], targets: Sequence[Column], name: Name) -> tuple[ContractFile, int]:
    """The contract that says what COLUMNS say, and how many checks found no room in it, bounds and lists first."""
    everything = [*columns, *targets]
    first = {"id": "columns_as_agreed", "type": "expect_table_columns_to_match_set",
             "kwargs": {"column_set": [one.column for one in everything], "exact_match": False}}
    ranked = [check for some, of in ((targets, _of_target), (everything, _of_kind), (columns, _of_values))
              for one in some for check in of(one)]
    kept = [first, *ranked[:MAX_CHECKS - 1]]
    found = parse(ContractFile, {"name": name, "checks": list(named_once(kept))}, "the contract of COLUMNS")
    return found, 1 + len(ranked) - len(kept)


def _check(column: str, suffix: str, expectation: str, severity: str = "error", **kwargs: Any) -> dict[str, Any]:
    made = {"id": f"{slug(column)}_{suffix}", "type": expectation, "kwargs": {"column": column, **kwargs}}
    return made if severity == "error" else {**made, "severity": severity}


def _of_kind(one: Column) -> Iterator[dict[str, Any]]:
    """Of texts alone: no check takes both whole numbers and others, and the recipe takes both."""
    if isinstance(one, Category) and isinstance(one.values[0], str):
        yield _check(one.column, "is_text", "expect_column_values_to_be_of_type", type_="str")


def _of_values(one: Column) -> Iterator[dict[str, Any]]:
    if isinstance(one, Numeric):
        low, high = (int(end) if end.is_integer() and abs(end) < 2 ** 53 else end for end in (one.low, one.high))
        yield _check(one.column, "in_range", _BETWEEN, "warning", min_value=low, max_value=high)
    if isinstance(one, Category):
        yield _check(one.column, "is_known", _IN_SET, "warning", value_set=list(one.values))
    if not one.missing:
        yield _check(one.column, "is_there", "expect_column_values_to_not_be_null", "warning")


def _of_target(one: Column) -> Iterator[dict[str, Any]]:
    yield _check(one.column, "is_there", "expect_column_values_to_not_be_null")
    if isinstance(one, Category):
        yield _check(one.column, "is_known", _IN_SET, value_set=list(one.values))
    if isinstance(one, Numeric):
        yield from _of_values(one.model_copy(update={"missing": True}))


def differences(columns: Sequence[Column], contract: Contract | ContractFile) -> tuple[str, ...]:
    """Where the contract and COLUMNS say other things of the same column, and what follows; in words."""
    checks: dict[str, list[Any]] = {one.column: [] for one in columns}
    agreed = {str(name) for check in contract.checks if isinstance(said := check.kwargs.get("column_set"), list)
              for name in said}
    agreed |= {str(check.kwargs["column"]) for check in contract.checks if check.type == "expect_column_to_exist"}
    for check in contract.checks:
        for name in columns_of(check):
            checks.setdefault(name, []).append(check)
    found: list[str] = []
    for one in columns:
        if not checks[one.column] and one.column not in agreed:
            found.append(f"'{one.column}': the recipe reads it, and no check of the contract names it: a site without "
                         "it is ready by the contract, and cannot train")
        for check in checks[one.column]:
            found += _differ(one, check.type, check.kwargs, drops=check.severity == "error")
    return tuple(dict.fromkeys(found))


def _differ(one: Column, kind: str, kwargs: dict[str, Any], *, drops: bool) -> Iterator[str]:
    if kind == _BETWEEN and isinstance(one, Numeric):
        yield from _bounds(one, kwargs.get("min_value"), kwargs.get("max_value"), drops=drops)
    elif kind == _BETWEEN and isinstance(one, Category) and isinstance(one.values[0], str):
        yield f"'{one.column}': the contract gives bounds of numbers, and COLUMNS a list of texts"
    elif kind == _IN_SET and isinstance(one, Category):
        agreed, listed = set(kwargs.get("value_set") or ()), set(one.values)
        if more := len(agreed - listed):
            yield (f"'{one.column}': the contract lists {how_many(more, 'value')} that COLUMNS lack, which read \"other\" "
                   "instead")
        if drops and (more := len(listed - agreed)):
            yield (f"'{one.column}': COLUMNS list {how_many(more, 'value')} that the contract lacks: rows with such a value "
                   "count for nothing")
    elif kind == "expect_column_values_to_not_be_null" and drops and one.missing:
        yield (f"'{one.column}': COLUMNS have a place for \"missing\", and by the contract a row without it counts for "
               "nothing: say missing=False, or let the check only warn")
    elif kind == "expect_column_values_to_be_of_type" and (wrong := _of_another_kind(one, str(kwargs.get("type_", "")))):
        yield f"'{one.column}': the contract asks for {wrong}, and COLUMNS for {one.holds}"


def _bounds(one: Numeric, low: Any, high: Any, *, drops: bool) -> Iterator[str]:
    if isinstance(low, int | float) and low != one.low:
        yield f"'{one.column}': it begins at {low:g} in the contract, at {one.low:g} in COLUMNS: " + (
            "smaller numbers become that one" if low < one.low else
            "rows below the contract's count for nothing" if drops else "between them the contract warns")
    if isinstance(high, int | float) and high != one.high:
        yield f"'{one.column}': it ends at {high:g} in the contract, at {one.high:g} in COLUMNS: " + (
            "larger numbers become that one" if high > one.high else
            "rows above the contract's count for nothing" if drops else "between them the contract warns")


def _of_another_kind(one: Column, agreed: str) -> str | None:
    number = agreed.lower().startswith(("int", "uint", "float"))
    texts = isinstance(one, Category) and isinstance(one.values[0], str)
    if number and (texts or isinstance(one, Date)):
        return "numbers"
    return "texts" if agreed == "str" and not texts and not isinstance(one, Date) else None
