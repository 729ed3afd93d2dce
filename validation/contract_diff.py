"""What changed between two contracts, in words: which rows that met the one meet the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from validation.contract import ROW_BY_ROW, Check, ContractFile, columns_of

Kind = Literal["added", "removed", "loosened", "tightened", "changed"]
Way = Literal["looser", "tighter", "other"]


@dataclass(frozen=True)
class Change:
    """One check that is not as it was."""

    kind: Kind
    """loosened: all that met it before still does; tightened: the reverse; changed: neither can be said."""
    id: str
    about: str
    """The columns, or "all columns", "all rows"."""
    words: str


def changes(before: ContractFile, after: ContractFile) -> list[Change]:
    """All of them, in the order of `after`, and then what was removed."""
    was = _matched(before, after)
    found = []
    for check in after.checks:
        old = was.get(check.id)
        if old is None:
            found.append(Change("added", check.id, about(check), f"{_short(check)}{_warns(check)}"))
        elif ways := list(_ways(old, check)):
            kinds = {way for way, _ in ways}
            kind: Kind = "loosened" if kinds == {"looser"} else "tightened" if kinds == {"tighter"} else "changed"
            found.append(Change(kind, check.id, about(check), "; ".join(words for _, words in ways)))
    kept = {old.id for old in was.values()}
    return found + [Change("removed", check.id, about(check), f"{_short(check)}{_warns(check)}")
                    for check in before.checks if check.id not in kept]


def about(check: Check) -> str:
    """What a check looks at."""
    named = columns_of(check) or tuple(str(check.kwargs[key]) for key in ("column",) if key in check.kwargs)
    return ", ".join(named) or ("all rows" if "row_count" in check.type else "all columns")


def _matched(before: ContractFile, after: ContractFile) -> dict[str, Check]:
    """By id of `after`: the check that it was before. An id that is new may be that of a check that was renamed."""
    was = {check.id: check for check in before.checks}
    found = {check.id: was[check.id] for check in after.checks
             if check.id in was and _place(was[check.id]) == _place(check)}
    left = {_place(check): check for check in before.checks if check.id not in {old.id for old in found.values()}}
    for check in after.checks:
        if check.id not in found and (old := left.pop(_place(check), None)) is not None:
            found[check.id] = old
    return found


def _place(check: Check) -> tuple[str, str]:
    return check.type, about(check)


def _short(check: Check) -> str:
    told = {key: value for key, value in check.kwargs.items() if key not in {"column", "column_A", "column_B", "column_list"}}
    words = check.type.removeprefix("expect_").removeprefix("column_").replace("_", " ")
    return words + "".join(f", {key} {_value(value)}" for key, value in told.items())


def _warns(check: Check) -> str:
    return " (a warning)" if check.severity == "warning" else ""


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value[:8])) + (f" and {len(value) - 8} more" if len(value) > 8 else "")
    return "nothing" if value is None else str(value)


def _ways(before: Check, after: Check) -> Iterator[tuple[Way, str]]:
    if before.severity != after.severity:
        yield ("looser", "it only warns now") if after.severity == "warning" else ("tighter", "it is an error now")
    for key in dict.fromkeys((*before.kwargs, *after.kwargs)):
        old, new = before.kwargs.get(key), after.kwargs.get(key)
        if old != new and not (key == "mostly" and after.type in ROW_BY_ROW):       # each row is judged by itself
            yield _way(key, old, new, after), f"{key} {_value(old)} → {_value(new)}" if not isinstance(
                new, list) or not isinstance(old, list) else f"{key}: {_of_lists(old, new)}"
    if before.id != after.id:
        yield "other", f"it was called {before.id}"


def _of_lists(old: list[Any], new: list[Any]) -> str:
    more, fewer = [one for one in new if one not in old], [one for one in old if one not in new]
    told = [f"{sign} {_value(some)}" for sign, some in (("+", more), ("-", fewer)) if some]
    return "; ".join(told) or "in another order"


def _way(key: str, old: Any, new: Any, check: Check) -> Way:
    numbers = all(one is None or type(one) in (int, float) for one in (old, new))
    if key in {"min_value", "max_value"} and numbers:
        if old is None or new is None:
            return "looser" if new is None else "tighter"
        return "looser" if (new < old) == (key == "min_value") else "tighter"
    if key in {"strict_min", "strict_max"} and bool(old) != bool(new):
        return "tighter" if new else "looser"
    if key == "exact_match":
        return "looser" if new is False else "tighter"
    if isinstance(old, list) and isinstance(new, list) and (more_is := _MORE_IS.get((check.type, key))) is not None:
        return _of_sets(old, new, more_is, check.kwargs)
    return "other"


def _of_sets(old: list[Any], new: list[Any], more_is: Way, kwargs: Mapping[str, Any]) -> Way:
    more, fewer = any(one not in old for one in new), any(one not in new for one in old)
    if more == fewer or ("column_set" in kwargs and kwargs.get("exact_match", True) is not False):
        return "other"
    return more_is if more else "tighter" if more_is == "looser" else "looser"


_MORE_IS: dict[tuple[str, str], Way] = {
    ("expect_column_values_to_be_in_set", "value_set"): "looser",
    ("expect_column_values_to_not_be_in_set", "value_set"): "tighter",
    ("expect_column_distinct_values_to_be_in_set", "value_set"): "looser",
    ("expect_column_distinct_values_to_contain_set", "value_set"): "tighter",
    ("expect_column_values_to_be_in_type_list", "type_list"): "looser",
    ("expect_table_columns_to_match_set", "column_set"): "tighter",
}
