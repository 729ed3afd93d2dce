"""What the options of `fedround ask` say, as queries.

COLUMN=LOW:HIGH a number between public bounds; COLUMN=VALUE,VALUE values; COLUMN:EDGE,EDGE ranges. ' + ' is between columns
of one query, ' x ' between columns that groups are crossed by.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedround.analytics.asked import Asked
from fedround.analytics.newton import Stepwise
from fedround.analytics.queries import Questions
from fedround.errors import ContractError
from fedround.statistics import CoxSums, GlmSums, HazardSums
from fedround.values import parse

_DAY = r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*"
_RARE = -2.0                    # where the levels of hazards begin: an event in one of eight
_SHOWN = 80
_CONDITION = re.compile(r"^(?P<column>.+?)\s*(?P<sign>>=|<)\s*(?P<number>[^<>=]+)$")


def from_file(path: Path) -> tuple[Asked, ...]:
    """The questions of a TOML or JSON file. Raises ContractError with one line per problem."""
    from infra.toml import read_said

    return parse(Questions, read_said(path), f"questions {path}").ask


def from_options(asked: Mapping[str, Sequence[str]], by: str | None, where: Sequence[str], noise: float | None,
                 error: float | None) -> tuple[Asked, ...]:
    """The queries that options ask for, in the options' order. Raises ContractError that names the option."""
    common: dict[str, Any] = {"by": [] if by is None else [_group(one, f"--by {by}") for one in by.split(" x ")],
                              "where": [_condition(one) for one in where]}
    common |= {} if noise is None else {"noise_std": noise}
    common |= {} if error is None else {"error": error}
    found: list[Asked] = []
    for option, said in asked.items():
        for one in said:
            source = _shorten(f"--{option} {one}")
            body = {"what": option, **_BODIES[option](one, source), **common}
            found += parse(Questions, {"ask": [body]}, source).ask
    return tuple(found)


def _shorten(said: str) -> str:
    """What was typed, in one line of a message."""
    said = said.strip()
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"


def _bounded(text: str, source: str) -> dict[str, Any]:
    column, listed = _named(text, "=", source, "its bounds, for example 'age=0:120'")
    low, is_there, high = listed.partition(":")
    if not is_there:
        raise ContractError(f"{source}: expected bounds for '{column}', for example '{column}=0:100'")
    return {"column": column, "low": _number(low, source), "high": _number(high, source)}


def _ranges(text: str, source: str, sign: str = "=") -> dict[str, Any]:
    column, listed = _named(text, sign, source, f"edges, for example 'age{sign}20,30,40'")
    edges = [_edge(edge, source) for edge in listed.split(",")]
    return {"column": column, "edges": [number for number, _ in edges], **_dates([day for _, day in edges], source)}


def _levels(text: str, source: str) -> dict[str, Any]:
    column, listed = _named(text, "=", source, "values, for example 'sex=f,m'")
    return {"column": column, "values": [_value(value.strip()) for value in listed.split(",")]}


def _group(text: str, source: str) -> dict[str, Any]:
    """Values after '=', edges after ':', whichever comes first."""
    at = [text.find(sign) for sign in "=:"]
    if max(at) < 0:
        raise ContractError(f"{source}: expected groups, for example 'sex=f,m' or 'age:40,60'")
    return _levels(text, source) if at[0] >= 0 and (at[1] < 0 or at[0] < at[1]) else _ranges(text, source, ":")


def _all_bounded(text: str, source: str) -> list[dict[str, Any]]:
    return [_bounded(one, source) for one in text.split(" + ")]


def _mixed(text: str, source: str) -> dict[str, Any]:
    """Numbers with bounds, and columns with values."""
    parts = text.split(" + ")
    numbers = [one for one in parts if ":" in one.partition("=")[2]]
    return {"numbers": [_bounded(one, source) for one in numbers],
            "levels": [_levels(one, source) for one in parts if one not in numbers]}


def _factor(text: str, source: str) -> dict[str, Any]:
    """A number between bounds, or whether a column holds one of some values."""
    return _bounded(text, source) if ":" in text.partition("=")[2] else _levels(text, source)


def _formula(text: str, source: str) -> tuple[str, list[dict[str, Any]]]:
    """What is left of '~', and the columns that are right of it."""
    left, is_there, right = text.partition("~")
    if not is_there or not left.strip() or not right.strip():
        raise ContractError(f"{source}: expected what is explained, '~', and by which columns, for example "
                            "'pressure=50:250 ~ age=0:120 + sex=f'")
    return left.strip(), [_factor(one.strip(), source) for one in right.split(" + ")]


def _linear(text: str, source: str) -> dict[str, Any]:
    outcome, of = _formula(text, source)
    return {"outcome": _factor(outcome, source), "of": of}


def _survival(text: str, source: str) -> dict[str, Any]:
    time, is_there, event = text.partition(" + ")
    if not is_there:
        raise ContractError(f"{source}: expected edges of time and the value that is an event, for example "
                            "'week=0,13,26 + arrest=1'")
    return {"time": _ranges(time, source), "event": _levels(event, source)}


def _discover(text: str, source: str) -> dict[str, Any]:
    column, longest = _named(text, "=", source, "how many characters are told apart, for example 'icd=5'")
    if not longest.isdecimal():
        raise ContractError(f"{source}: '{longest}' is no number of characters; for example 'icd=5'")
    return {"of": column, "longest": int(longest)}


def model(option: str, text: str, where: Sequence[str], noise: float, link: str) -> Stepwise:
    """The first step of a model that takes several. Raises ContractError that names the option."""
    source = _shorten(f"--{option} {text}")
    left, of = _formula(text, source)
    common = {"of": of, "where": [_condition(one) for one in where]}
    if option == "cox":
        return parse(CoxSums, {**common, **_survival(left, source), "at": [0.0] * len(of)}, source)
    if option == "hazards":
        said = _survival(left, source)
        at = [_RARE] * (len(said["time"]["edges"]) - 1) + [0.0] * len(of)
        return parse(HazardSums, {**common, **said, "link": link, "at": at, "noise_std": noise}, source)
    return parse(GlmSums, {**common, "family": option, "outcome": _factor(left, source), "at": [0.0] * (len(of) + 1),
                           "noise_std": noise}, source)


_BODIES: dict[str, Any] = {
    "count": lambda _, __: {},
    "mean": lambda text, source: {"of": _all_bounded(text, source), "spread": True},
    "histogram": lambda text, source: {"of": _ranges(text, source)},
    "quantiles": lambda text, source: {"of": _bounded(text, source)},
    "top": lambda text, source: {"of": _levels(text, source)},
    "missing": lambda text, _: {"of": [one.strip() for one in text.split(",")]},
    "correlations": lambda text, source: {"of": _all_bounded(text, source)},
    "table1": _mixed,
    "linear": _linear,
    "components": lambda text, source: {"of": _all_bounded(text, source)},
    "survival": _survival,
    "discover": _discover,
}
"""What each option's text becomes."""


def _condition(text: str) -> dict[str, Any]:
    source = f"--where {text}"
    if (found := _CONDITION.match(text)) is not None:
        key = "low" if found["sign"] == ">=" else "below"
        number, day = _edge(found["number"], source)
        return {"column": found["column"].strip(), key: number, **_dates([day], source)}
    column, is_there, listed = text.partition("=")
    if is_there and not listed.startswith("=") and not column.rstrip().endswith(("<", ">", "!", "~")):
        return _levels(text, source)
    raise ContractError(f"{source}: expected a condition like 'age>=40', 'age<65', 'seen>=2026-11-30' or 'sex=1,2'; there "
                        "are no others")


def _named(text: str, sign: str, source: str, example: str) -> tuple[str, str]:
    column, is_there, listed = text.partition(sign)
    if not is_there or not column.strip() or not listed.strip():
        raise ContractError(f"{source}: expected a column and {example}")
    return column.strip(), listed.strip()


def _edge(text: str, source: str) -> tuple[float, bool]:
    """A number, or a date as days since 1970; and whether it is one."""
    if re.fullmatch(_DAY, text):
        try:
            return float((datetime.date.fromisoformat(text.strip()) - datetime.date(1970, 1, 1)).days), True
        except ValueError:
            raise ContractError(f"{source}: '{text.strip()}' is no day of the calendar") from None
    return _number(text, source), False


def _dates(days: Sequence[bool], source: str) -> dict[str, bool]:
    if any(days) and not all(days):
        raise ContractError(f"{source}: expected numbers, or dates like 2026-11-30, not both")
    return {"days": True} if any(days) else {}


def _hint(text: str) -> str:
    if re.fullmatch(_DAY, text):
        return ": dates have edges (--histogram, --by, --where, --survival), and no bounds yet"
    return ": between columns stands ' + ', with a space to both sides, where an option takes several" if "+" in text else ""


def _number(text: str, source: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ContractError(f"{source}: '{text.strip()}' is no number{_hint(text)}") from None
    if not math.isfinite(number):
        raise ContractError(f"{source}: '{text.strip()}' bounds nothing: expected a finite number that everybody may know")
    return number


def _value(text: str) -> str | int | float:
    """A value as the column may hold it: a whole number, a number or a text."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) and str(kind(text)) == text else text      # '010' is a text, and so is 'inf'
    return text
