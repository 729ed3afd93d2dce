"""The site's rows in memory, read again only when a file has changed, and whether they meet the contract."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fedround.files import sha256_of
from fedround.learning.recipe import Examples, Recipe
from fedround.values import CheckId
from site_workers.site import Site
from validation import encoding
from validation import rows as gate
from validation.contract import load_contract


@dataclass(frozen=True)
class Rows:
    """Encoded training and validation rows, and a digest of the files that never leaves the site."""

    train: Examples
    validation: Examples
    digest: bytes
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Of all rows, as far as they were asked for."""


def read_site_rows(site: Site) -> Rows:
    """Encode the rows by the recipe. Raises SetupError or ContractError that quotes no value."""
    return _encoded(site.row_files, site.recipe, site.folder / site.settings.recipe, _digest(site.row_files),
                    site.policy.limits.seconds)


def failed_checks(site: Site) -> tuple[CheckId, ...]:
    """The ids of the contract's checks that the site's rows, both files together, fail; in the contract's order."""
    return _failed(_Judged(site.contract.digest, _digest(site.row_files), tuple(path.suffix for path in site.row_files),
                           site.folder / site.settings.contract, site.row_files))


def _digest(paths: tuple[Path, ...]) -> bytes:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256_of(path)) if path.is_file() else hashlib.sha256(b"").digest())
    return digest.digest()


@functools.lru_cache(maxsize=1)
def _encoded(paths: tuple[Path, Path], recipe: Recipe, file: Path, digest: bytes, seconds: int) -> Rows:
    train, validation = encoding.encoded(paths, recipe, file, seconds)       # once per change of the files
    return Rows(train, validation, digest)


def read_columns(site: Site, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Columns of all rows, of both files, (N,) each; without those that one of the files does not have."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    return encoding.columns_alone(site.row_files, wanted)


@dataclass(frozen=True)
class _Judged:
    """What is judged, by content: where it lies makes no difference."""

    contract_digest: str
    digest: bytes
    formats: tuple[str, ...]
    contract: Path = field(compare=False)
    rows: tuple[Path, ...] = field(compare=False)


@functools.lru_cache(maxsize=64)     # a few ids each; what was judged once need not be judged again
def _failed(judged: _Judged) -> tuple[CheckId, ...]:
    """Great Expectations costs seconds to import and 150 MB: it judges in a process of its own, once per change of
    the files, unless this process has it already (see `host`).
    """
    if "great_expectations" in sys.modules:
        return gate.failed_checks(gate.read_all(judged.rows), load_contract(judged.contract))
    return gate.failed_checks_in_subprocess(judged.rows, judged.contract)
