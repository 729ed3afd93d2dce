"""The site's rows in memory, read again only when a file has changed, and whether they meet the contract."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.learning.recipe import Examples, Recipe
from fedround.statistics.partitions import Partition
from site_workers.site import Site
from validation import encoding, judging, row_files
from validation.contract import load_contract
from validation.judging import Judged


@dataclass(frozen=True)
class Rows:
    """Encoded training and validation rows, and a digest of the files that never leaves the site."""

    train: Examples
    validation: Examples
    digest: bytes
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Of all rows, as far as they were asked for."""


def read_site_rows(site: Site) -> Rows:
    """Encode the rows by the recipe; those that break the contract count for nothing, in their places.

    Raises SetupError or ContractError that quotes no value.
    """
    found = _encoded(site.row_files, site.recipe, site.folder / site.settings.recipe, _digest(site.row_files),
                     site.policy.limits.seconds)
    counts_N = np.concatenate([found.train.counts_N, found.validation.counts_N])
    counts_N[list(judged(site).left_out)] = False
    of_train_N, of_validation_N = np.split(counts_N, [len(found.train)])
    return replace(found, train=replace(found.train, counts_N=of_train_N),
                   validation=replace(found.validation, counts_N=of_validation_N))


def judged(site: Site) -> Judged:
    """What the contract says of the site's rows, both files together."""
    return _judged(_Asked(site.contract.digest, _digest(site.row_files), tuple(map(row_files.ending_of, site.row_files)),
                          site.folder / site.settings.contract, site.row_files))


def _digest(paths: tuple[Path, ...]) -> bytes:
    return hashlib.sha256(b"".join(map(row_files.digest_of, paths))).digest()


@functools.lru_cache(maxsize=1)
def _encoded(paths: tuple[Path, Path], recipe: Recipe, file: Path, digest: bytes, seconds: int) -> Rows:
    train, validation = encoding.encoded(paths, recipe, file, seconds)       # once per change of the files
    return Rows(train, validation, digest)


def read_columns(site: Site, names: Iterable[str], part: Partition | None = None) -> dict[str, npt.NDArray[Any]]:
    """Columns of all rows of both files, or of those in `part`, (N,) each. A column that one of the files lacks is left out;
    if it is the part's, no row is in the part.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    found = encoding.columns_alone(site.row_files, wanted)
    if part is None or part.column not in found:
        return found if part is None else {}
    inside_N = part.holds(found[part.column])
    return {name: value_N[inside_N] for name, value_N in found.items()}


@dataclass(frozen=True)
class _Asked:
    """What is judged, identified by content: the path makes no difference."""

    contract_digest: str
    digest: bytes
    formats: tuple[str, ...]
    contract: Path = field(compare=False)
    rows: tuple[Path, ...] = field(compare=False)


@functools.lru_cache(maxsize=64)     # what was judged once need not be judged again
def _judged(asked: _Asked) -> Judged:
    """The judgement, made in a process of its own, once per change of the files: Great Expectations takes seconds and 150 MB.

    It judges in this process if it is imported already (see `host`).
    """
    if "great_expectations" in sys.modules:
        return judging.judge(asked.rows, load_contract(asked.contract))
    return judging.judge_in_subprocess(asked.rows, asked.contract)
