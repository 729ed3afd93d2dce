"""The files of a first recipe: the recipe itself and the settings, as a person would write them, with what to look at."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from fedround.learning.columns import Category, Column, Columns, Numeric
from fedround.values import Name
from validation.drafting import Draft

_HIDDEN, _WIDE = 16, 300
"""A hidden layer of so many; with more features than that there is none."""
_LINE = 110
_WARNING = (
    "Bounds and lists of values are seen by everybody who sees this file. So they must be public knowledge: what is "
    "possible, what a form allows, what a handbook lists. The ones below were made from the rows at hand, moved outward and "
    "rounded. They still tell roughly where those rows lie, and other sites' rows may be unlike these. Replace each by what "
    "everybody knows.")


def recipe_text(draft: Draft, name: Name, source: str) -> str:
    """The recipe. source: what the rows are called."""
    kinds = sorted({type(one).__name__ for one in (*draft.columns, *draft.targets)
                    if one in draft.columns or isinstance(one, Category)})
    task = [] if draft.kind == "classify" else [f"from fedround.learning.tasks import {draft.kind.capitalize()}"]
    columns = [line for one in draft.columns for line in _lines(one, draft.why[one.column])]
    columns += [line for column, why in draft.left_out.items() for line in _comment(f"left out: {_literal(column)} {why}")]
    return "\n".join([
        f'"""A first recipe, made by \'fedround recipe new\' from {source}: read all of it before anybody else does.',
        "",
        *textwrap.wrap(_WARNING, 110),
        '"""', "", "from torch import nn", "", f"from fedround.learning.columns import {', '.join(kinds)}", *task, "",
        f"NAME = {_literal(name)}", *_task(draft), "", "COLUMNS = (", *columns, ")", "", "", *_model(draft)]) + "\n"


def settings_text(name: Name, rows: int) -> str:
    """The settings: what a round asks for. rows: how many there are in the sample."""
    batch = max(32, min(256, 2 ** (rows // 8).bit_length() // 2))
    return f"""\
# What a round asks for; 'fedround privacy plan' and docs/how-to/choose-epsilon.md help to choose.
name = {json.dumps(name)}
quorum = 2                      # a round needs two updates; with more sites, more than half of them
deadline_s = 600                # it waits so long for the others

[training]                      # at each site, in each round
local_steps = 10
batch_size = {batch:<18} # expected: every row is drawn by itself; larger ones need less noise
learning_rate = 1.0

[privacy]                       # what leaves a site over all rounds, for each of its rows
unit = "record"
epsilon = 5.0
delta_dp = 1e-5                 # less than one in the number of rows of the largest site
rounds = 10

[evaluation]                    # noised counts on each site's validation rows, paid from the same budget
bins = 10
noise_std = 10.0

[aggregation]
rule = {{name = "weighted_mean"}} # sees no liars: docs/how-to/choose-a-rule.md
"""


def _task(draft: Draft) -> list[str]:
    said = [f"TARGET = {_target(draft.targets[0])}"]
    for one in draft.targets:
        if isinstance(one, Category):
            numbered = ", ".join(f"{place}: {_literal(value)}" for place, value in enumerate(one.values))
            said.insert(0, f"# the labels are {numbered}"[:_LINE])
    first = draft.targets[0]
    if not isinstance(first, Numeric):
        return said
    if draft.kind == "survive":
        edges = ", ".join(map(_number, draft.edges))
        return [f"TASK = Survive(edges=({edges},))      # in the units of {_literal(first.column)}", *said[:-1],
                f'TARGET = {{"time": {_target(first)}, "event": {_target(draft.targets[1])}}}']
    if draft.kind == "count":
        return [f"TASK = Count(max={_number(first.high)})      # more counts as so many", *said]
    return [f"TASK = Regress(bounds=({_number(first.low)}, {_number(first.high)}))", *said]


def _target(one: Column) -> str:
    return said_of(one.model_copy(update={"missing": True})) if isinstance(one, Category) else _literal(one.column)


def _model(draft: Draft) -> list[str]:
    width, outputs = Columns(columns=draft.columns).width, draft.outputs
    if width > _WIDE:
        return ["def build_model(features: int) -> nn.Module:",
                '    """No hidden layer: there are many features, and each more parameter takes its share of the noise."""',
                f"    return nn.Linear(features, {outputs})"]
    return ["def build_model(features: int) -> nn.Module:",
            f'    """One hidden layer of {_HIDDEN}."""',
            f"    return nn.Sequential(nn.Linear(features, {_HIDDEN}), nn.Tanh(), nn.Linear({_HIDDEN}, {outputs}))"]


def said_of(one: Column) -> str:
    """A column as a recipe says it."""
    if isinstance(one, Numeric):
        scale = "" if one.scale == "linear" else ', scale="log"'
        return f"Numeric({_literal(one.column)}, low={_number(one.low)}, high={_number(one.high)}{scale}{_extra(one)})"
    if isinstance(one, Category):
        values = ", ".join(map(_literal, one.values)) + ("," if len(one.values) == 1 else "")
        return f"Category({_literal(one.column)}, values=({values}){_extra(one)})"
    return f"{type(one).__name__}({_literal(one.column)}{_extra(one)})"


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and value.isprintable() else repr(value)


def _number(value: float) -> str:
    return f"{int(value):_}" if value.is_integer() and abs(value) < 2 ** 53 else repr(value)


def _lines(one: Column, why: str) -> Iterator[str]:
    line = f"    {said_of(one)},"
    if why and len(line) + len(why) < _LINE:
        yield f"{line:<44}  # {why}"
        return
    yield from _comment(why)
    if len(line) <= _LINE or not isinstance(one, Category):
        yield line
        return
    yield f"    Category({_literal(one.column)}{_extra(one)}, values=("
    row = "       "
    for value in map(_literal, one.values):
        if len(row) + len(value) > _LINE:
            yield row
            row = "       "
        row += f" {value},"
    yield from (row, "    )),")


def _extra(one: Column) -> str:
    return "" if one.missing else ", missing=False"


def _comment(text: str) -> Iterator[str]:
    return (f"    # {line}" for line in textwrap.wrap(text, _LINE))
