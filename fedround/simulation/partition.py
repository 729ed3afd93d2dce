"""Partitions of one data set among simulated sites: even, or as different from each other as real sites are.

Every partition is a value; `deal` is a function of it, the rows and a seed. Every row goes to exactly one site, and every
site gets one row at least. In words for a command line: "iid", "dirichlet:0.5", "shards:2", "quantity:1", "features:0.8",
"column:hospital".

Legend: N rows, F features, C classes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.tasks import CLASSIFY, Task
from fedround.spoken import how_many
from fedround.values import Value

Places = npt.NDArray[np.int64]
Concentration = Annotated[float, Field(gt=0, le=1e6)]


class Iid(Value):
    """Shuffled, and cut into equal parts."""

    name: Literal["iid"] = "iid"


class Dirichlet(Value):
    """The rows of each label are dealt in shares drawn from a Dirichlet distribution (Hsu et al. 2019, arXiv:1909.06335; per
    label as in Yurochkin et al. 2019): 100 is nearly even, at 0.1 most sites see few labels. Sizes differ, too.
    """

    name: Literal["dirichlet"] = "dirichlet"
    concentration: Concentration = 0.5


class Shards(Value):
    """Rows sorted by label and cut into equal shards, of which every site gets some (McMahan et al. 2017, arXiv:1602.05629).
    With 2 a site sees two labels, mostly.
    """

    name: Literal["shards"] = "shards"
    each: Annotated[int, Field(ge=1, le=1000)] = 2


class Quantity(Value):
    """Shuffled, and cut into parts whose sizes are drawn from a Dirichlet distribution: labels alike, sizes unlike."""

    name: Literal["quantity"] = "quantity"
    concentration: Concentration = 1.0


class Features(Value):
    """Rows that look alike go to one site: sorted along the first principal direction of the features, and cut into equal
    parts. strength: 0 is as good as shuffled, 1 is sorted.
    """

    name: Literal["features"] = "features"
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0


class Column(Value):
    """One site for each value of a column: as the data came."""

    name: Literal["column"] = "column"
    column: str


Partition = Annotated[Iid | Dirichlet | Shards | Quantity | Features | Column, Field(discriminator="name")]
_PARTITION: TypeAdapter[Partition] = TypeAdapter(Partition)
_PARAMETER = {"dirichlet": "concentration", "shards": "each", "quantity": "concentration", "features": "strength",
              "column": "column"}


def parse_partition(text: str) -> Partition:
    """A partition in words. Raises ContractError that says which there are."""
    name, _, value = text.partition(":")
    said = {_PARAMETER[name]: value} if value and name in _PARAMETER else {}
    try:
        if name not in ("iid", *_PARAMETER) or (value and not said):
            raise ValueError
        return _PARTITION.validate_python({"name": name, **{key: _number(item) for key, item in said.items()}})
    except (ValidationError, ValueError):
        raise ContractError(f"partition '{text}': expected iid, dirichlet:0.5 (above 0), shards:2 (a whole number), "
                            "quantity:1 (above 0), features:0.8 (0 to 1) or column:NAME") from None


def deal(how: Partition, examples: Examples, sites: int, seed: int,
         column_N: npt.NDArray[np.object_] | None = None, task: Task = CLASSIFY) -> dict[str, Places]:
    """Which rows each site gets, ascending; sites by name, in order.

    task: says which rows are alike (`Kind.strata`) where labels are dealt: those with one label, or between two quantiles.
    sites: how many; a `Column` has as many as it has values. column_N: its values.
    Raises ContractError if there are fewer rows than sites, or a column is asked for and not given.
    """
    if isinstance(how, Column):
        return _by_column(how, column_N)
    rows = len(examples)
    if not 1 <= sites <= rows:
        raise ContractError(f"{how_many(rows, 'row')} cannot be dealt to {how_many(sites, 'site')}, one each at least")
    generator = np.random.default_rng(seed)
    match how:
        case Iid():
            parts = np.array_split(generator.permutation(rows), sites)
        case Quantity(concentration=concentration):
            parts = _cut(generator.permutation(rows), _shares(generator, concentration, sites))
        case Features(strength=strength):
            parts = np.array_split(_along(examples, strength, generator), sites)
        case Shards(each=each):
            parts = _shards(task.strata(examples.targets), sites, each, generator)
        case Dirichlet(concentration=concentration):
            parts = _dirichlet(task.strata(examples.targets), sites, concentration, generator)
    return dict(zip(_names(sites), map(np.sort, _at_least_one(parts)), strict=True))


def take(examples: Examples, places: Places) -> Examples:
    """These rows."""
    return examples.at(places)


def _shares(generator: np.random.Generator, concentration: float, sites: int) -> npt.NDArray[np.float64]:
    """A Dirichlet draw. Gamma variables of a tiny shape underflow to zero all at once: then one site gets all."""
    weights = generator.standard_gamma(concentration, sites)
    if weights.sum() == 0:
        weights[generator.integers(sites)] = 1.0
    share: npt.NDArray[np.float64] = weights / weights.sum()
    return share


def _cut(places: Places, shares: npt.NDArray[np.float64]) -> list[Places]:
    return np.split(places, np.rint(np.cumsum(shares)[:-1] * len(places)).astype(np.int64))


def _dirichlet(strata_N: Places, sites: int, concentration: float, generator: np.random.Generator) -> list[Places]:
    parts: list[list[Places]] = [[] for _ in range(sites)]
    for label in np.unique(strata_N):
        own = generator.permutation(np.flatnonzero(strata_N == label))
        for part, piece in zip(parts, _cut(own, _shares(generator, concentration, sites)), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _shards(strata_N: Places, sites: int, each: int, generator: np.random.Generator) -> list[Places]:
    if (count := sites * each) > len(strata_N):
        raise ContractError(f"{how_many(len(strata_N), 'row')} cannot be cut into {how_many(count, 'shard')}, a row each at "
                            "least")
    shuffled = generator.permutation(len(strata_N))
    shards = np.array_split(shuffled[np.argsort(strata_N[shuffled], kind="stable")], count)
    dealt = generator.permutation(count).reshape(sites, each)
    return [np.concatenate([shards[shard] for shard in own]) for own in dealt]


def _along(examples: Examples, strength: float, generator: np.random.Generator) -> Places:
    """All rows, sorted by a mixture of their rank along the principal direction and a rank that is drawn."""
    centred_NF = examples.table_NF.astype(np.float64)
    centred_NF -= centred_NF.mean(axis=0)
    _, direction_FF = np.linalg.eigh(centred_NF.T @ centred_NF)
    rank_N = np.argsort(np.argsort(centred_NF @ direction_FF[:, -1], kind="stable"))
    mixed_N = strength * rank_N + (1 - strength) * generator.permutation(len(examples))
    return np.argsort(mixed_N, kind="stable")


def _by_column(how: Column, column_N: npt.NDArray[np.object_] | None) -> dict[str, Places]:
    if column_N is None:
        raise ContractError(f"to deal rows by the column '{how.column}', its values must be given")
    values = sorted({str(value) for value in column_N})
    found = {_slug(value): np.flatnonzero([str(own) == value for own in column_N]) for value in values}
    if len(found) < len(values) or "" in found:
        raise ContractError(f"the values of the column '{how.column}' make no distinct site names: lower-case letters, "
                            "digits and hyphens remain of each; rename them")
    return found


def _slug(value: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in value.lower())
    return "-".join(filter(None, kept.split("-")))[:40].strip("-")


def _at_least_one(parts: list[Places]) -> list[Places]:
    """Each site without rows gets the last row of the site with the most."""
    for place, part in enumerate(parts):
        if len(part) == 0:
            richest = max(range(len(parts)), key=lambda other: len(parts[other]))
            parts[place], parts[richest] = parts[richest][-1:], parts[richest][:-1]
    return parts


def _names(sites: int) -> list[str]:
    digits = len(str(sites))
    return [f"site-{number:0{digits}d}" for number in range(1, sites + 1)]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text
