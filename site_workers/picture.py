"""A small picture of a site's rows as the recipe sees them, for its operator alone. Nothing of it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedround.errors import FedroundError
from fedround.learning.examples import Examples
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Task
from site_workers.registry import SIDES
from site_workers.rows import read_site_rows
from site_workers.site import Site, open_site
from validation.encoding import pictures_alone
from validation.picture import Picture


@dataclass(frozen=True)
class Side:
    """The rows to train on, or those held out, as the recipe encodes them."""

    rows: int
    idle: int
    """Rows that count for nothing."""
    groups: dict[str, float]
    """The share of each label, or of each group of what is learnt, among the rows that count."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    zero: tuple[float, ...]
    """Of each feature, over the rows that count: the least, the most, and the share of zeros."""


@dataclass(frozen=True)
class SitePicture:
    """Both sides; what cannot be read or encoded is left out, and `preflight` says why."""

    files: dict[str, Picture]
    sides: dict[str, Side]
    features: tuple[str, ...] = ()
    """What the features are called, where the recipe says so."""


def picture(folder: Path) -> SitePicture:
    """Look at a site's rows. It raises nothing about them."""
    try:
        site = open_site(folder.resolve())
    except FedroundError:
        return SitePicture({}, {})
    return SitePicture({side: found for side, path in zip(SIDES, site.row_files, strict=True)
                        for found in _files([path])}, _sides(site), names_of(site.recipe))


def names_of(recipe: Recipe) -> tuple[str, ...]:
    """What the features are called; empty: the recipe's own function makes them, and they have no names."""
    columns = recipe.declared.columns
    return () if columns is None else columns.names


def hints(paths: Sequence[Path]) -> str:
    """What is odd about columns of these files, in words; empty: nothing, or they cannot be read."""
    return "".join(f"; {path}: {hint}" for path in paths for found in _files([path]) for hint in found.hints)


def _files(paths: Sequence[Path]) -> list[Picture]:
    try:
        return pictures_alone(paths)
    except (FedroundError, MemoryError):
        return []


def _sides(site: Site) -> dict[str, Side]:
    try:
        rows = read_site_rows(site)
    except (FedroundError, MemoryError):
        return {}
    return {side: side_of(examples, site.recipe.task) for side, examples in
            zip(SIDES, (rows.train, rows.validation), strict=True)}


def side_of(examples: Examples, task: Task) -> Side:
    """What the recipe made of these rows."""
    rows = examples.at(examples.counts_N)
    if len(rows) == 0:
        return Side(len(examples), len(examples), {}, (), (), ())
    names, place_N = task.groups(rows.targets)
    shares, features_NF = np.bincount(place_N, minlength=len(names)) / len(rows), rows.table_NF
    return Side(len(examples), len(examples) - len(rows), dict(zip(names, shares.tolist(), strict=True)),
                tuple(features_NF.min(axis=0).tolist()), tuple(features_NF.max(axis=0).tolist()),
                tuple((features_NF == 0).mean(axis=0).tolist()))
