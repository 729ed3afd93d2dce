"""The data contract: what rows must look like, as every member agreed.

A contract is a JSON file: ``{"name": …, "checks": [{"id": …, "type": "expect_…", "kwargs": {…}}]}``. Types and
arguments are those of Great Expectations, narrowed to the ones that look at one table of rows and run no code. A check with
``"severity": "warning"`` refuses nothing and leaves no row out (`validation.judging`).

Reading one costs milliseconds: Great Expectations ships its argument schemas as files, and those are read instead of
importing it (four to eight CPU seconds, 150 MB).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from fedround.errors import ContractError, SetupError
from fedround.files import check_utf8, read_named
from fedround.signing import digest
from fedround.values import MAX_CHECKS, CheckId, Digest, Name, Value, parse

_NOT_FOR_CONTRACTS = frozenset({
    # Runs as a pandas query, which can call Python functions.
    "row_condition", "condition_parser",
    # A contract may not choose the form or the detail of the result.
    "result_format", "catch_exceptions", "rendered_content",
    # Bookkeeping of Great Expectations.
    "id", "meta", "notes", "description", "severity", "windows", "batch_id", "metadata", "library_metadata",
})


_FORM = frozenset({
    "expect_column_to_exist", "expect_table_columns_to_match_set", "expect_table_columns_to_match_ordered_list",
    "expect_table_column_count_to_equal", "expect_table_column_count_to_be_between"})
TYPES = frozenset({"expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"})
"""Decided by a file's schema; for a column that holds objects, by each value."""

ROW_BY_ROW = frozenset({
    f"expect_{name}" for name in (
        "column_values_to_be_between", "column_values_to_be_in_set", "column_values_to_not_be_in_set",
        "column_values_to_be_null", "column_values_to_not_be_null", "column_value_lengths_to_be_between",
        "column_value_lengths_to_equal", "column_values_to_match_regex", "column_values_to_match_regex_list",
        "column_values_to_not_match_regex", "column_values_to_not_match_regex_list",
        "column_values_to_match_strftime_format", "column_pair_values_a_to_be_greater_than_b",
        "column_pair_values_to_be_equal", "column_pair_values_to_be_in_set", "multicolumn_sum_to_equal",
        "multicolumn_values_to_be_equal", "select_column_values_to_be_unique_within_record")})
"""Checks that look at each row alone. All others look at many rows (`unique`, `max`) or at none."""


Severity = Literal["error", "warning"]


class Check(Value):
    """One thing that must hold, under the id by which a refusal names it."""

    id: CheckId
    type: Annotated[str, StringConstraints(pattern=r"^expect_[a-z_]{1,100}$")]
    kwargs: dict[str, JsonValue]
    severity: Severity = "error"
    """error: other columns or types are refused, and a row that fails counts for nothing; warning: neither."""


class ContractFile(Value):
    """What stands in the file."""

    name: Name
    checks: Annotated[tuple[Check, ...], Field(min_length=1, max_length=MAX_CHECKS)]

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        seen: set[str] = set()
        for check in self.checks:
            if check.id in seen:
                raise ValueError(f"two checks have the id '{check.id}'; a refusal could not say which one failed")
            seen.add(check.id)
        return self


class Contract(ContractFile):
    """A contract and the SHA-256 of the file it was read from."""

    digest: Digest

    @property
    def warnings(self) -> tuple[CheckId, ...]:
        """The checks that only warn."""
        return tuple(check.id for check in self.checks if check.severity == "warning")


def load_contract(path: Path) -> Contract:
    """Read and check a contract file.

    Raises SetupError if the file cannot be read; ContractError, naming the check, for an unknown key, an unknown type
    of expectation, a mistyped, missing or wrong argument, or an id used twice.
    """
    try:
        data = read_named(path)
    except OSError as error:
        raise SetupError(f"data contract {path} cannot be read ({error.strerror}): check the path in the settings; "
                         "the coordinator hands the file out") from None
    return read_contract(data, f"data contract {path.name}")


def read_contract(data: bytes, source: str) -> Contract:
    """The same, of a file's bytes. source: whose they are, for the message."""
    check_utf8(data, source)
    document = parse(ContractFile, data, source)
    for check in document.checks:
        for problem in _problems(check):
            raise ContractError(f"{source}: check '{check.id}': {problem}")
    return Contract(name=document.name, checks=document.checks, digest=digest(data))


def is_form(check: Check) -> bool:
    """Whether the check is about columns and types, and not about any record."""
    return check.type in _FORM or check.type in TYPES


def columns_of(check: Check) -> tuple[str, ...]:
    """The columns that a check looks at, and cannot be judged without."""
    if check.type in _FORM:
        return ()
    named = [check.kwargs.get(key) for key in ("column", "column_A", "column_B")]
    listed = check.kwargs.get("column_list")
    return tuple(str(name) for name in (*named, *(listed if isinstance(listed, list) else ())) if name is not None)


def needed_by(check: Check) -> tuple[str, ...]:
    """The columns that must be there for a check to hold."""
    if check.type == "expect_column_to_exist":
        return (str(check.kwargs["column"]),)
    listed = check.kwargs.get("column_set", check.kwargs.get("column_list"))
    exact = check.kwargs.get("exact_match", True) is not False
    if check.type in _FORM and isinstance(listed, list):
        return tuple(str(name) for name in listed if name is not None) if exact else ()
    return columns_of(check)


def _problems(check: Check) -> Iterator[str]:
    from jsonschema import Draft7Validator

    schema = _schema(check.type)
    if schema is None:
        yield f"'{check.type}' is not an expectation that a contract may use; see greatexpectations.io/expectations"
        return
    for error in Draft7Validator(schema).iter_errors(check.kwargs):
        where = ".".join(str(part) for part in error.absolute_path)
        if where:
            yield f"argument '{where}' of {check.type} has a wrong type or is out of bounds"
        else:
            takes = ", ".join(sorted(schema["properties"]))
            needs = ", ".join(sorted(schema["required"])) or "none of them"
            yield f"{check.type} takes the arguments {takes} and needs {needs}; check their spelling"


@cache
def _schema(expectation: str) -> dict[str, Any] | None:
    """The JSON schema of an expectation's arguments, or None if a contract may not use it."""
    path = _schema_files().get(expectation.replace("_", ""))
    if path is None:
        return None
    shipped = json.loads(path.read_bytes())
    metadata = shipped["properties"]["metadata"]["properties"]
    if "Pandas" not in metadata["supported_data_sources"]["const"]:
        return None
    return {
        "type": "object",
        "properties": {name: _literal(schema) for name, schema in shipped["properties"].items()
                       if name not in _NOT_FOR_CONTRACTS},
        "required": shipped.get("required", []),
        "additionalProperties": False,
        "definitions": shipped.get("definitions", {}),
    }


def _literal(schema: dict[str, Any]) -> dict[str, Any]:
    """An argument's schema without run-time parameters ("$PARAMETER" objects): a contract says what it means."""
    narrowed = {key: value for key, value in schema.items() if key != "multipleOf"}   # 0.57 is no multiple of 0.01
    if "anyOf" in schema:
        literal = [option for option in schema["anyOf"] if option != {"type": "object"}]
        narrowed["anyOf"] = literal or schema["anyOf"]
    return narrowed


@cache
def _schema_files() -> dict[str, Path]:
    package = find_spec("great_expectations")     # finds it without importing it
    if package is None or package.origin is None:
        raise SetupError("Great Expectations is not installed: install the packages of requirements.lock")
    folder = Path(package.origin).parent / "expectations" / "core" / "schemas"
    return {path.stem.lower(): path for path in folder.glob("Expect*.json")}
