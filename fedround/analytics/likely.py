"""What a regression would say of records that nobody has, as they might lie in what is public: so that a price can be weighed
against an error before anybody is asked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.analytics.estimates import Table
from fedround.analytics.newton import Stepwise, fit
from fedround.errors import ContractError
from fedround.privacy.noise import stream
from fedround.privacy.spec import GaussianCounts, NoMechanism
from fedround.statistics import Bounded, GlmSums, Levels, Release, Statistic, release

_RECORDS = 2000


def expected(start: Stepwise, steps: int, sites: int, records: int) -> tuple[Table, ...]:
    """The answer, if so many records of all sites had bell-shaped numbers with bounds three standard deviations away, evenly
    spread times, one in four each value and the event, and nothing depended on anything. Its half-widths are what to expect;
    more where columns say the same, or a value is rarer. Nobody is asked. Deterministic.
    """
    noise_std = start.noise_std * math.sqrt(sites)
    mechanism = GaussianCounts(noise_std=noise_std) if noise_std else NoMechanism()
    rows = _Likely(start)

    def ask(statistic: Statistic) -> Release:
        exact = release(statistic.model_copy(update={"noise_std": 0.0, "where": ()}), rows, stream(bytes(32), b"likely"))
        told = exact.table * (records / _RECORDS / statistic.scale)
        return Release(statistic=statistic, numbers=tuple(told.ravel().tolist()), mechanism=mechanism)

    return fit(start, steps, ask)


class _Likely:
    """Such records."""

    def __init__(self, asked: Stepwise):
        draw = np.random.default_rng(0)
        self._columns: dict[str, npt.NDArray[Any]] = {}
        outcome = (asked.outcome,) if isinstance(asked, GlmSums) else ()
        for one in (*asked.of, *outcome):
            if isinstance(one, Bounded):
                self._columns[one.column] = _number(one, draw)
            else:
                self._columns.setdefault(one.column, _among(one, draw))
        if not isinstance(asked, GlmSums):
            first, *_, last = asked.time.edges
            beyond = (last - first) / len(asked.time.edges)
            self._columns[asked.time.column] = draw.uniform(first, last + beyond, _RECORDS)
            self._columns[asked.event.column] = _among(asked.event, draw)

    def column(self, name: str) -> npt.NDArray[Any]:
        """As `Evidence`."""
        return self._columns[name]

    def held_out(self, name: str) -> npt.NDArray[Any]:
        """No regression is about a model."""
        raise ContractError(f"nothing is held out of column '{name}'")

    def encoded(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """No recipe encodes these rows."""
        raise ContractError("there is no recipe")

    def scores(self) -> dict[str, npt.NDArray[Any]]:
        """No regression is about a model."""
        raise ContractError("there is no model")

    def summands(self) -> npt.NDArray[np.float64]:
        """No regression is about a model."""
        raise ContractError("there is no model")

    def replaced(self, *_: object) -> _Likely:
        """No regression is about a model."""
        raise ContractError("there is no model")


def _number(of: Bounded, draw: np.random.Generator) -> npt.NDArray[Any]:
    """Bounds that are 1 apart are those of a truth."""
    if of.high - of.low == 1:
        return np.where(draw.random(_RECORDS) < 1 / 4, of.high, of.low)
    return draw.normal(of.middle, of.half / 3, _RECORDS)


def _among(levels: Levels, draw: np.random.Generator) -> npt.NDArray[Any]:
    """One in four one of the values, the others none."""
    count, value_N = len(levels.values), np.array([*levels.values, None], dtype=object)
    return value_N[np.where(draw.random(_RECORDS) < 1 / 4, draw.integers(0, count, _RECORDS), count)]
