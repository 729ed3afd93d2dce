"""A cohort's updates become one delta: two passes over them, in bounded memory.

Legend: N admitted updates, P points (the N, the origin, the coordinator's own), M of them that are read, S sampled
coordinates, D coordinates.

Same rows, same bytes: whatever the order of arrival, the memory budget and the number of threads. Rows that are left out
before any arithmetic (`survey.screen`) change nothing: all that remains of them is their standing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedround.aggregation.decide import Decision, decide, is_blind
from fedround.aggregation.geometry import Floats, Geometry
from fedround.aggregation.rows import ArrayNumbers, Coordinates, FileNumbers, Numbers, Row, cohort, sampled
from fedround.aggregation.spec import Aggregation
from fedround.aggregation.survey import Survey, Surveyed, guess_reference, reference, screen, why
from fedround.aggregation.sweep import Both, Sweeper, Swept, Work, sweep, total
from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError

__all__ = ["Aggregate", "ArrayNumbers", "FileNumbers", "Numbers", "Row", "Standing", "Verdict", "aggregate"]


@dataclass(frozen=True)
class Standing:
    """How one update stands to the others and to the result."""

    norm: float
    """Not a number, or infinite, for a row that is not finite."""
    distance: float
    """To the result; not a number for a row that was left out before arithmetic."""
    influence: float
    """The share of the result that comes from this update. Rules that clip leave a rest that comes from nobody; for rules
    of coordinates it is the mean over a fixed sample of them."""
    verdict: Verdict
    reason: str


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What a cohort agreed on, and how everybody stands to it."""

    delta_D: Coordinates
    standings: dict[str, Standing]
    """Of every row given, in site order."""
    names: tuple[str, ...]
    """The sites of the rows that arithmetic was done on, in order."""
    distances_NN: Floats
    """Euclidean distances between these."""
    note: str = ""
    """Why the gate did less than it was asked to; empty if it did all."""


def aggregate(rows: Sequence[Row], how: Aggregation, coordinates: int, *, memory_budget_bytes: int = 64 << 20,
              threads: int = 1, seed: bytes = b"", centre: Numbers | None = None, root: Numbers | None = None,
              sweeper: Sweeper | None = None) -> Aggregate:
    """Do what `how` says with the updates in `rows`, D = `coordinates` numbers each.

    seed: what bucketing draws its order from. centre: where centered clipping begins, the origin if None. root: the
    coordinator's own update, which `fltrust` needs.
    sweeper: who goes over the updates; None: this process, with this budget and these threads. The bytes are the same.
    Memory: the budget covers what is read and worked on (one chunk of every row at least, see `sweep.chunk_of`); the
    result's 4 D bytes come on top. Every update is read twice; once where weighted mean, median, trimmed mean or Meamed
    stand alone; once more if some rows must be left out first, or if the guessed reference was a bad one.

    Raises ContractError for an empty cohort, two rows of one site and, naming the site, an update that ends early;
    ToleranceError, naming the theorem, if too few rows are left for a part of `how`.
    """
    rows = cohort(rows, coordinates)
    how.check(len(rows))
    extra = {name: numbers for name, numbers in (("centre", centre), ("root", root)) if numbers is not None}
    if sweeper is None:
        def sweeper(points: Sequence[Numbers], work: Work, coordinates: int) -> Swept:
            return sweep(points, work, 0, coordinates, memory_budget_bytes=memory_budget_bytes, threads=threads)
    sample_NS = sampled(rows, coordinates)

    seen = _look(rows, how, extra, guess_reference(_norms(sample_NS)), sweeper, coordinates)
    norm_N = np.sqrt(seen.surveyed.square_P[:len(rows)])
    verdicts = screen(norm_N)
    chosen = [n for n, verdict in enumerate(verdicts) if verdict is Verdict.USED]
    how.check(len(chosen))
    admitted, sample_NS = [rows[n] for n in chosen], sample_NS[chosen]
    centred_at = reference(norm_N[chosen], _norms(sample_NS))
    if len(admitted) < len(rows) or centred_at != seen.surveyed.reference:
        seen = _look(admitted, how, extra, centred_at, sweeper, coordinates)

    geometry = Geometry.of(seen.surveyed.gram_PP, _weights(admitted), _places(extra, len(admitted)))
    decision = seen.decision or decide(how, geometry, [row.law for row in admitted], coordinates, seed)
    delta_D, square_N = seen.done or _carry_out(decision, [*admitted, *extra.values()], sweeper, coordinates)
    distance_N = geometry.distances_to(decision.weights_KP[0]) if decision.form is None else np.sqrt(square_N)
    return Aggregate(delta_D, _standings(rows, norm_N, verdicts, decision, distance_N, decision.influence(sample_NS)),
                     tuple(row.site for row in admitted), np.sqrt(geometry.squared_distances_KK()), decision.note)


_Done = tuple[Coordinates, Floats]
"""The result, and where a form yields it each update's squared distance to it."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """What pass 1 found; and what it computed at once, where nothing had to be found first."""

    surveyed: Surveyed
    decision: Decision | None = None
    done: _Done | None = None


def _look(rows: Sequence[Row], how: Aggregation, extra: Mapping[str, Numbers], centred_at: int, sweeper: Sweeper,
          coordinates: int) -> _Seen:
    """Pass 1. If what is to be done does not depend on it, pass 2 goes with it: its result holds if all rows are admitted."""
    numbers = [*rows, *extra.values()]
    work = Survey(len(numbers), len(rows), centred_at)
    if not is_blind(how):
        return _Seen(_checked(work.found(sweeper(numbers, work, coordinates).slabs), extra))
    anything = Geometry.of(np.eye(len(numbers) + 1), _weights(rows), _places(extra, len(rows)))
    decision = decide(how, anything, [None] * len(rows), coordinates, b"")
    both = Both(work, decision.work(range(len(numbers))), work.shape)
    swept = sweeper(numbers, both, coordinates)
    measured, distances = both.split(swept.slabs)
    return _Seen(_checked(work.found(measured), extra), decision, (swept.out_D, total(distances)))


def _carry_out(decision: Decision, numbers: Sequence[Numbers], sweeper: Sweeper, coordinates: int) -> _Done:
    """Pass 2."""
    needed = decision.needs()
    if not needed:
        return np.zeros(coordinates, np.float32), np.empty(0)
    swept = sweeper([numbers[m] for m in needed], decision.work(needed), coordinates)
    return swept.out_D, total(swept.slabs)


def _norms(x_PS: Coordinates) -> Floats:
    """Not a number, or infinite, where a row is."""
    x_PS = x_PS.astype(np.float64)
    norm_P: Floats = np.sqrt(np.vecdot(x_PS, x_PS))
    return norm_P


def _weights(rows: Sequence[Row]) -> Floats:
    return np.array([row.weight for row in rows])


def _places(extra: Mapping[str, Numbers], rows: int) -> dict[str, int]:
    """After the rows comes the origin, then these."""
    return {name: rows + 1 + turn for turn, name in enumerate(extra)}


def _checked(surveyed: Surveyed, extra: Mapping[str, Numbers]) -> Surveyed:
    own_P = surveyed.square_P[len(surveyed.square_P) - len(extra):]
    for name, square in zip(extra, own_P, strict=True):
        if not math.isfinite(square):
            raise ContractError(f"the coordinator's own {name} is not finite; it may come from a damaged checkpoint")
    return surveyed


def _standings(rows: Sequence[Row], norm_N: Floats, verdicts: Sequence[Verdict], decision: Decision, distance_N: Floats,
               influence_N: Floats) -> dict[str, Standing]:
    judged = iter(zip(distance_N, influence_N, decision.verdicts, decision.reasons, strict=True))
    standings = {}
    for row, norm, verdict in zip(rows, norm_N, verdicts, strict=True):
        if verdict is Verdict.USED:
            distance, influence, of_gate, reason = next(judged)
            standings[row.site] = Standing(float(norm), float(distance), float(influence), of_gate, reason)
        else:
            standings[row.site] = Standing(float(norm), math.nan, 0.0, verdict, why(verdict))
    return standings
