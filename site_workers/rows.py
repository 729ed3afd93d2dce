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

from fedround.errors import ContractError
from fedround.learning.examples import Examples
from fedround.learning.persons import count
from fedround.learning.recipe import Recipe
from fedround.privacy.spec import PersonPrivacy, Privacy
from fedround.spoken import how_many
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
    uncut: Mapping[str, npt.NDArray[Any]] | None = None
    """The same of the rows that are encoded, where the columns are cut to a partition and the encoded rows are not."""

    def units(self, privacy: Privacy, *, held_out: bool = False) -> int:
        """How many are protected: training rows, or the persons who have some; with those held out, too. Of a partition only
        where the encoded rows are cut to it: elsewhere nobody need know how many it has.

        Raises ContractError if nobody read whose rows they are.
        """
        if not isinstance(privacy, PersonPrivacy):
            return len(self.train) + (len(self.validation) if held_out else 0)
        columns = self.columns if self.uncut is None else self.uncut
        if privacy.person not in columns:
            raise ContractError(f"the rows have no column '{privacy.person}'")
        return count(columns[privacy.person][:None if held_out else len(self.train)])


def read_site_rows(site: Site) -> Rows:
    """Encode the rows by the recipe; those that break the contract count for nothing, in their places.

    Raises SetupError or ContractError that quotes no value.
    """
    found = _encoded(site.row_files, site.recipe, site.folder / site.settings.recipe, digest_of_files(site.row_files),
                     site.policy.limits.seconds)
    verdict = judged(site)
    there, given = [one.total for one in verdict.files], [len(found.train), len(found.validation)]
    if there != given:          # its own word, if its code ran; and it is told without noise
        raise ContractError(f"recipe '{site.recipe.name}' gave {given} rows to train on and held out, and the files have "
                            f"{there}: it encodes every row, and no other")
    counts_N = np.concatenate([found.train.counts_N, found.validation.counts_N])
    counts_N[list(verdict.left_out)] = False
    of_train_N, of_validation_N = np.split(counts_N, [len(found.train)])
    return replace(found, train=replace(found.train, counts_N=of_train_N),
                   validation=replace(found.validation, counts_N=of_validation_N))


def judged(site: Site) -> Judged:
    """What the contract says of the site's rows, both files together."""
    return _judged(_Asked(site.contract.digest, digest_of_files(site.row_files),
                          tuple(map(row_files.ending_of, site.row_files)), site.folder / site.settings.contract,
                          site.row_files))


def digest_of_files(paths: tuple[Path, ...]) -> bytes:
    """What stands for the content of these files; it never leaves the site."""
    return hashlib.sha256(b"".join(map(row_files.digest_of, paths))).digest()


@functools.lru_cache(maxsize=1)
def _encoded(paths: tuple[Path, Path], recipe: Recipe, file: Path, digest: bytes, seconds: int) -> Rows:
    train, validation = encoding.encoded(paths, recipe, file, seconds)       # once per change of the files
    return Rows(train, validation, digest)


def read_columns(site: Site, names: Iterable[str], files: tuple[Path, ...] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Columns of all rows of both files, or of these, (N,) each. A column that one of the files lacks is left out."""
    wanted = sorted(set(names))
    return encoding.columns_alone(site.row_files if files is None else files, wanted) if wanted else {}


def only(rows: Rows, part: Partition, *, encoded: bool) -> Rows:
    """The rows in a partition; those that break the contract are in it, too, and count for nothing there.

    encoded: whether the encoded rows are cut as the columns are. Raises ContractError if a recipe has left rows out.
    """
    inside_N = part.holds(rows.columns[part.column])
    cut = replace(rows, columns={name: value_N[inside_N] for name, value_N in rows.columns.items()})
    if not encoded:
        return replace(cut, uncut=rows.columns)
    if len(inside_N) != len(rows.train) + len(rows.validation):
        raise ContractError(f"column '{part.column}' has {how_many(len(inside_N), 'value')}, and "
                            f"{how_many(len(rows.train), 'row')} to train on and {len(rows.validation)} held out are encoded")
    of_train_N, of_validation_N = np.split(inside_N, [len(rows.train)])
    return replace(cut, train=_of(rows.train, of_train_N), validation=_of(rows.validation, of_validation_N))


def rows_of(site: Site, part: Partition | None, privacy: Privacy | None = None) -> Rows:
    """The site's rows, or those of a partition; with whose they are, where a promise is for persons.

    Raises as `read_site_rows`, and ContractError if a column is not there.
    """
    rows, names = read_site_rows(site), columns_for(part, privacy)
    columns = read_columns(site, names)
    if missing := sorted({*names} - columns.keys()):
        raise ContractError(f"the rows have no column '{missing[0]}'")
    rows = replace(rows, columns=columns)
    return rows if part is None else only(rows, part, encoded=True)


def columns_for(part: Partition | None, privacy: Privacy | None) -> list[str]:
    """By which columns rows are told apart."""
    return [*([] if part is None else [part.column]), *([privacy.person] if isinstance(privacy, PersonPrivacy) else [])]


def _of(rows: Examples, inside_N: npt.NDArray[np.bool_]) -> Examples:
    return rows.at(inside_N)


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
