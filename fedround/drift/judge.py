"""From measurements to what has drifted: which column, at which sites, since when.

Time drift: a column lies otherwise than in the run's first measurement, over all sites or at one of them. Site drift: it lies
otherwise at one site than at all others together. Only time drift is an alarm: sites may differ from the beginning.

What holds for a column holds for `TRUTH`, what is true given a model's score, while measurements are about the same model.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedround.drift.law import Noised, compare, holm, interval
from fedround.drift.spec import DriftWatch
from fedround.statistics import Release
from fedround.values import MAX_NUMBER, ColumnName, Name, Value

Distance = Annotated[float, Field(ge=0, le=1)]
Told = Mapping[Name, Sequence[Release]]
"""What each site said in one measurement: a release for each watched column, in their order."""
When = Annotated[str, Field(max_length=60)]


class Shift(Value):
    """One comparison of one column, or of `TRUTH`."""

    column: ColumnName
    site: Name | None
    """None: all sites together."""
    beside: Literal["before", "others"]
    """The run's first measurement, or the other sites at the same time."""
    distance: Distance
    """Jensen-Shannon; noise is still in it."""
    usual: Distance
    """What noise and chance alone stay below in 95 of 100 cases."""
    p: Annotated[float, Field(ge=0, le=1)]
    """How probable so large a distance is without drift."""
    drifted: bool
    """Whether that is too improbable, with all comparisons of the measurement taken into account."""
    estimate: Distance
    """The distance without what noise and chance add."""
    low: Distance | None
    """An interval around it that holds for all columns together in 95 of 100 cases; of all sites together only."""
    high: Distance | None
    since: When
    """The measurement in which it drifted first and from which on it always did; "" if it does not drift."""


class Drift(Value):
    """What one measurement says."""

    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    """Whose model was the newest."""
    when: When
    first: When
    """The measurements with which this one is compared; the same as `when` if it is compared with none."""
    method: Literal["jensenshannon"]
    level: Annotated[float, Field(gt=0, le=0.5)]
    """The chance of a false alarm in this measurement."""
    sites: tuple[Name, ...]
    shifts: tuple[Shift, ...]

    @property
    def is_alarm(self) -> bool:
        """Whether anything has changed since the first measurement."""
        return any(shift.drifted for shift in self.over_time)

    @property
    def over_time(self) -> tuple[Shift, ...]:
        """The comparisons with the first measurements."""
        return tuple(shift for shift in self.shifts if shift.beside == "before")

    @property
    def whole(self) -> tuple[Shift, ...]:
        """Those of all sites together: one for each column."""
        return tuple(shift for shift in self.over_time if shift.site is None)

    @property
    def at_sites(self) -> tuple[Shift, ...]:
        """The comparisons of one site with the others."""
        return tuple(shift for shift in self.shifts if shift.beside == "others")

    @property
    def largest(self) -> Shift | None:
        """The largest change over all sites; None before the second measurement."""
        return max(self.whole, key=lambda shift: shift.distance, default=None)

    def numbers(self) -> dict[str, float]:
        """For metrics.json and exporters."""
        found = {"drift_alarm": float(self.is_alarm), "drift_sites_apart": float(len({
            shift.site for shift in self.at_sites if shift.drifted}))}
        return found if self.largest is None else {**found, "drift_distance": self.largest.distance}


@dataclass(frozen=True)
class DriftAsked:
    """Which measurement is judged, and by what."""

    watch: DriftWatch
    round: int
    when: str
    first: str
    level: float
    seed: int
    """Of the simulated law: the same measurements, the same judgement."""
    same_model: bool = True
    """Whether the first measurements are about the same model."""


def judge(asked: DriftAsked, first: Told | None, now: Told, before: Drift | None) -> Drift:
    """first: the run's first measurements together; None: this one is among them. before: the judgement before this one, for
    `since`.
    """
    generator = np.random.default_rng(asked.seed)
    both = {} if first is None else {site: first[site] for site in now if site in first}
    z = NormalDist().inv_cdf(1 - 0.025 / len(asked.watch.names))
    found = [one for place, (name, statistic) in enumerate(zip(asked.watch.names, asked.watch.statistics, strict=True))
             for one in _compared(name, place, both if asked.same_model or not statistic.reads_model else {}, now, z,
                                  generator)]
    alarms = _alarms(found, asked.level)
    open_ = {} if before is None else {_key(shift): shift.since for shift in before.shifts if shift.drifted}
    shifts = (shift.model_copy(update={"drifted": drifted, "since": open_.get(_key(shift), asked.when) if drifted else ""})
              for shift, drifted in zip(found, alarms, strict=True))
    return Drift(round=asked.round, when=asked.when, first=asked.when if first is None else asked.first,
                 method=asked.watch.method, level=asked.level, sites=tuple(sorted(now)), shifts=tuple(shifts))


def _compared(column: str, place: int, first: Told, now: Told, z: float, generator: np.random.Generator) -> Iterable[Shift]:
    new = {site: _noised(said[place]) for site, said in sorted(now.items())}
    old = {site: _noised(said[place]) for site, said in sorted(first.items())}
    if old:
        one, other = _sum(old.values()), _sum(new[site] for site in old)
        whole = _shift(column, None, "before", one, other, generator)
        low, high = interval(one, other, whole.estimate, z, generator)
        yield whole.model_copy(update={"low": low, "high": min(1.0, high)})
    for site, table in old.items() if len(old) > 1 else ():
        yield _shift(column, site, "before", table, new[site], generator)
    for site, table in new.items() if len(new) > 1 else ():
        yield _shift(column, site, "others", _sum(new[other] for other in new if other != site), table, generator)


def _shift(column: str, site: str | None, beside: Literal["before", "others"], one: Noised, other: Noised,
           generator: np.random.Generator) -> Shift:
    found = compare(one, other, generator)
    return Shift(column=column, site=site, beside=beside, distance=found.distance, usual=found.usual, p=found.p,
                 drifted=False, estimate=found.estimate, low=None, high=None, since="")


def _alarms(shifts: list[Shift], level: float) -> list[bool]:
    """Holm within each family. Half of a false alarm's chance is for all sites together, half for single sites. What a site
    is beside the others is no alarm, and has the whole level.
    """
    alarms = [False] * len(shifts)
    families = (("before", True, level / 2), ("before", False, level / 2), ("others", False, level))
    for beside, whole, share in families:
        places = [place for place, shift in enumerate(shifts) if (shift.beside, shift.site is None) == (beside, whole)]
        for place, drifted in zip(places, holm([shifts[place].p for place in places], share), strict=True):
            alarms[place] = drifted
    return alarms


def _key(shift: Shift) -> tuple[str, str | None, str]:
    return shift.column, shift.site, shift.beside


def _noised(said: Release) -> Noised:
    return Noised(said.table.ravel(), said.noise_std, of_truth=said.statistic.reads_model)


def _sum(tables: Iterable[Noised]) -> Noised:
    return functools.reduce(Noised.plus, tables)
