"""A cohort's updates become one delta: one or two passes over them, in bounded memory.

Legend: N admitted updates, P points (the N, the origin, the coordinator's own), M of them that are read, S sampled
coordinates, D coordinates.

The same rows give the same bytes, whatever the order of arrival, the names of sites, the memory budget and the number of
threads. Rows that are left out before any arithmetic (`survey.screen`) change only f. Only their standing is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedround.aggregation import estimate
from fedround.aggregation.decide import Composition, RuleDecision, decide, is_blind
from fedround.aggregation.geometry import Geometry
from fedround.aggregation.rows import ArrayNumbers, Coordinates, FileNumbers, Floats, Numbers, Row, cohort, sampled
from fedround.aggregation.spec import Aggregation, Bucketing
from fedround.aggregation.survey import Survey, Surveyed, guess_reference, reference, screen, why
from fedround.aggregation.sweep import Sweeper, Swept, Work, sweep
from fedround.aggregation.verdict import Verdict
from fedround.errors import ContractError

__all__ = ["Aggregate", "ArrayNumbers", "FileNumbers", "Numbers", "Row", "Standing", "Verdict", "aggregate",
           "estimates_distances"]


@dataclass(frozen=True)
class Standing:
    """How one update stands to the others and to the result."""

    norm: float
    """Not a number, or infinite, for a row that is not finite."""
    distance: float
    """To the result; not a number for a row that was left out before arithmetic."""
    influence: float
    """The share of the result that comes from this update. Under rules that clip, the shares sum to less than 1. For
    coordinate-wise rules it is the mean over a fixed sample of coordinates."""
    verdict: Verdict
    reason: str


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The aggregate of a cohort, and how each update relates to it."""

    delta_D: Coordinates
    standings: dict[str, Standing]
    """Of every row given, in site order."""
    names: tuple[str, ...]
    """The sites of the rows that arithmetic was done on, in order."""
    distances_NN: Floats
    """Euclidean distances between these; estimates if `estimates_distances`."""
    composition: Composition
    """How the delta is made of these."""
    note: str = ""
    """Why the gate did less than it was asked to; empty if it did all."""


def aggregate(rows: Sequence[Row], how: Aggregation, coordinates: int, *, memory_budget_bytes: int = 64 << 20,
              threads: int = 1, seed: bytes = b"", centre: Numbers | None = None, root: Numbers | None = None,
              sweeper: Sweeper | None = None) -> Aggregate:
    """Do what `how` says with the updates in `rows`, D = `coordinates` numbers each.

    seed: what bucketing draws its order from, and the sample of estimated distances (with the updates). centre: where
    centered clipping begins, the origin if None. root: the coordinator's own update, which `fltrust` needs.
    sweeper: what goes over the updates. None: this process, with this budget and these threads. The bytes are the same.
    Memory: the budget covers what is read and worked on (one chunk of every row at least, see `sweep.chunk_of`); the
    result's 4 D bytes come on top. Every update is read twice. If weighted mean, median, trimmed mean or Meamed stands
    alone, it is read once, and a sample of it again. It is read once more if some rows must be left out first, or if the
    guessed reference was a bad one.

    Rows that no honest site sends (`survey.screen`) lower N and f by the same number: a cohort of N rows that bears f liars
    becomes one of N-g rows that bears f-g. `note` says so.

    Raises ContractError for an empty cohort, two rows of one site and, naming the site, an update that ends early;
    ToleranceError, naming the theorem, if too few rows are left for a part of `how`.
    """
    rows = in_order(cohort(rows, coordinates), how, coordinates)
    how.check(len(rows))
    if sweeper is None:
        def sweeper(points: Sequence[Numbers], work: Work, coordinates: int) -> Swept:
            return sweep(points, work, 0, coordinates, memory_budget_bytes=memory_budget_bytes, threads=threads)
    extra = {name: numbers for name, numbers in (("centre", centre), ("root", root)) if numbers is not None}
    blind = is_blind(how)

    def look(some: Sequence[Row], about: int) -> tuple[Floats, _Done | Surveyed]:
        if blind:
            return _compute(some, how, sweeper, coordinates, len(rows) - len(some))
        return _survey(some, extra, about, sweeper, coordinates)

    sample_NS = sampled(rows, coordinates)
    guess = guess_reference(_norms(sample_NS))
    norm_N, seen = look(rows, guess)
    verdicts = screen(norm_N)
    chosen = [n for n, verdict in enumerate(verdicts) if verdict is Verdict.USED]
    gone = len(rows) - len(chosen)
    how.check_gone(gone, len(rows))
    admitted, sample_NS = [rows[n] for n in chosen], sample_NS[chosen]
    about = reference(norm_N[chosen], _norms(sample_NS))
    if len(admitted) < len(rows) or (about != guess and not blind):
        _, seen = look(admitted, about)

    if isinstance(seen, Surveyed):
        geometry = Geometry.of(seen.gram_PP, _weights(admitted), _places(extra, len(admitted)))
        distances_NN = np.sqrt(geometry.squared_distances_KK())
        decision = decide(how, geometry, [row.law for row in admitted], coordinates, seed, gone)
        done = _carry_out(decision, geometry, [*admitted, *extra.values()], sweeper, coordinates)
    else:
        done = seen
        distances_NN = estimate.distances(admitted, done.delta_D, done.distance_N, about, seed + sample_NS.tobytes(), sweeper)
    influence_N = done.decision.influence(sample_NS)
    by_name = sorted(range(len(admitted)), key=lambda n: admitted[n].site)
    return Aggregate(done.delta_D, _standings(rows, norm_N, verdicts, done, influence_N),
                     tuple(admitted[n].site for n in by_name), distances_NN[np.ix_(by_name, by_name)],
                     Composition(tuple(row.site for row in admitted), done.decision.weights_KP[:, :len(admitted)],
                                 done.decision.form), _note(gone, len(admitted), done.decision.note))


def in_order(rows: Sequence[Row], how: Aggregation, coordinates: int) -> list[Row]:
    """The rows in the order of their content, so that names do not decide ties.

    With bucketing the order is that of the names: buckets are dealt by place, and no site can change its name after it knows
    the plan.
    """
    if any(isinstance(mixing, Bucketing) for mixing in how.mixing):
        return list(rows)
    content = [sample_S.tobytes() for sample_S in sampled(rows, coordinates)]
    return [rows[n] for n in sorted(range(len(rows)), key=lambda n: (content[n], rows[n].weight, rows[n].site))]


def _note(gone: int, left: int, note: str) -> str:
    if not gone:
        return note
    screened = f"{gone} left out before any arithmetic, as liars that are gone: {left} remain, and f counts {gone} less"
    return f"{screened}; {note}" if note else screened


def estimates_distances(how: Aggregation, coordinates: int) -> bool:
    """Whether the distances between updates are estimates: nothing in `how` needs them, and the model is large."""
    return is_blind(how) and coordinates > estimate.SAMPLE


@dataclass(frozen=True, eq=False)
class _Done:
    """A decision that was carried out."""

    decision: RuleDecision
    delta_D: Coordinates
    distance_N: Floats
    """From every update to the result."""


def _survey(rows: Sequence[Row], extra: Mapping[str, Numbers], about: int, sweeper: Sweeper,
            coordinates: int) -> tuple[Floats, Surveyed]:
    """Pass 1: the norms of the rows, and how they lie to each other."""
    numbers = [*rows, *extra.values()]
    work = Survey(len(numbers), len(rows), about)
    surveyed = work.found(sweeper(numbers, work, coordinates).slabs)
    norm_P = np.sqrt(surveyed.square_P)
    for name, norm in zip(extra, norm_P[len(rows):], strict=True):
        if not math.isfinite(norm):
            raise ContractError(f"the coordinator's own {name} is not finite; it may come from a damaged checkpoint")
    return norm_P[:len(rows)], surveyed


def _carry_out(decision: RuleDecision, geometry: Geometry, numbers: Sequence[Numbers], sweeper: Sweeper,
               coordinates: int) -> _Done:
    """Pass 2. The distances to a weighted sum follow from the geometry."""
    needed = decision.needs()
    if not needed:
        return _Done(decision, np.zeros(coordinates, np.float32), geometry.distances_to(decision.weights_KP[0]))
    by_form = decision.form is not None
    work = decision.work(needed, measures=by_form)
    swept = sweeper([numbers[m] for m in needed], work, coordinates)
    distance_N = work.norms_and_distances(swept.slabs)[1] if by_form else geometry.distances_to(decision.weights_KP[0])
    return _Done(decision, swept.out_D, distance_N)


def _compute(rows: Sequence[Row], how: Aggregation, sweeper: Sweeper, coordinates: int,
             gone: int) -> tuple[Floats, _Done]:
    """The only pass, if no geometry is needed: the norms of the rows, and the result if all of them are admitted.

    gone: how many were left out before.
    """
    anything = Geometry.of(np.eye(len(rows) + 1), _weights(rows))
    decision = decide(how, anything, [None] * len(rows), coordinates, b"", gone)
    work = decision.work(range(len(rows)), measures=True)
    swept = sweeper(rows, work, coordinates)
    norm_N, distance_N = work.norms_and_distances(swept.slabs)
    return norm_N, _Done(decision, swept.out_D, distance_N)


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


def _standings(rows: Sequence[Row], norm_N: Floats, verdicts: Sequence[Verdict], done: _Done,
               influence_N: Floats) -> dict[str, Standing]:
    judged = iter(zip(done.distance_N, influence_N, done.decision.verdicts, done.decision.reasons, strict=True))
    standings = {}
    for row, norm, verdict in zip(rows, norm_N, verdicts, strict=True):
        if verdict is Verdict.USED:
            distance, influence, of_gate, reason = next(judged)
            standings[row.site] = Standing(float(norm), float(distance), float(influence), of_gate, reason)
        else:
            standings[row.site] = Standing(float(norm), math.nan, 0.0, verdict, why(verdict))
    return dict(sorted(standings.items()))
