"""The site's rows in memory, read again only when a file has changed, and whether they meet the contract."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.errors import ContractError
from fedround.learning.recipe import Examples, Recipe
from fedround.values import CheckId
from site_workers.site import Site
from validation import rows as gate
from validation.contract import load_contract


@dataclass(frozen=True)
class Rows:
    """Encoded training and validation rows, and a digest of the files that never leaves the site."""

    train: Examples
    validation: Examples
    digest: bytes
    paths: tuple[Path, Path]

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of all rows, of both files, (N,). Raises ContractError if one of them has none of this name."""
        return np.concatenate([_column(path, name) for path in self.paths])


def read_site_rows(site: Site) -> Rows:
    """Encode the rows by the recipe. Raises SetupError or ContractError that quotes no value."""
    return _encoded(site.rows, site.recipe, _digest(site.rows))


def failed_checks(site: Site) -> tuple[CheckId, ...]:
    """The ids of the contract's checks that the site's rows, both files together, fail; in the contract's order."""
    return _failed(_Judged(site.contract.digest, _digest(site.rows), tuple(path.suffix for path in site.rows),
                           site.folder / site.settings.contract, site.rows))


def _digest(paths: tuple[Path, ...]) -> bytes:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes() if path.exists() else b"").digest())
    return digest.digest()


@functools.lru_cache(maxsize=1)
def _encoded(paths: tuple[Path, Path], recipe: Recipe, digest: bytes) -> Rows:
    train, validation = (_encode(path, recipe) for path in paths)
    return Rows(train, validation, digest, paths)


def missing_columns(site: Site, columns: Iterable[str]) -> list[str]:
    """Those that one of the files does not have."""
    wanted = set(columns)
    return sorted(wanted - set.intersection(*(set(gate.read_rows(path).columns) for path in site.rows))) if wanted else []


def _column(path: Path, name: str) -> npt.NDArray[Any]:
    frame = gate.read_rows(path)
    if name not in frame.columns:
        raise ContractError(f"the rows at {path} have no column '{name}'")
    found = frame[name]
    return found.to_numpy(dtype=object, na_value=None) if found.dtype.kind not in "biuf" else found.to_numpy()


def _encode(path: Path, recipe: Recipe) -> Examples:
    frame = gate.read_rows(path)
    try:
        return recipe.encode(frame)
    except (ContractError, MemoryError):
        raise
    except Exception as error:      # of the recipe's code; its words may quote the rows
        kind = type(error).__name__
    raise ContractError(f"recipe '{recipe.name}' cannot encode the rows at {path} ({kind}): does a column that it needs "
                        "miss, or hold another type?")


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
