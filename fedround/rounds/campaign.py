"""What a campaign means for one site, before it runs: the mechanism that the site will apply, and what it will have spent
after each round.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedround.drift.spec import DriftWatch
from fedround.errors import ContractError
from fedround.learning.foreign.spec import Foreign
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.trees.spec import Trees
from fedround.privacy.accounting import epsilon
from fedround.privacy.calibration import calibrate, sampling_rate, smallest_noise
from fedround.privacy.entries import without_clip_norm
from fedround.privacy.participation import times_paid
from fedround.privacy.quick import epsilon_at_most
from fedround.privacy.spec import (
    QUIETEST,
    DpFtrl,
    DpSgd,
    GaussianCounts,
    GaussianUpdate,
    Mechanism,
    NoMechanism,
    NoPrivacy,
    PersonPrivacy,
    Privacy,
    Promise,
    RandomisedLabels,
    RecordPrivacy,
    RowSum,
    SitePrivacy,
    TrainingMechanism,
    Unit,
    cap,
    capped,
    kind_for,
    of_persons,
)
from fedround.privacy.tree import depth
from fedround.spoken import how_many
from fedround.statistics import Groups, LocalEvaluation
from fedround.terms import Terms


def mechanism_for(privacy: Privacy, training: Training, evaluation: LocalEvaluation,
                  rows: int, groups: Groups | None = None, drift: DriftWatch | None = None, *,
                  apart: bool = False) -> TrainingMechanism:
    """The mechanism of a site with this many training rows for every round, with the smallest noise that keeps the promise.

    groups, drift: what else the campaign will count. apart: no row is ever both trained on and held out. Then no row pays for
    both (parallel composition), and both the training and the counts of held-out rows may spend the whole promise, less what
    is counted of all rows for drift. Under the unit `person` that changes nothing: a person may have rows on both sides.
    rows: under the unit `person`, how many persons have training rows.

    It is the same in all rounds of a campaign: apart from the clip norm, it depends on nothing that changes between them.
    Raises ContractError if no noise can keep it, or the rows are too few for it.
    """
    if isinstance(privacy, NoPrivacy):
        return NoMechanism()
    if isinstance(training, Trees | Foreign):
        return _of_one_release(privacy, evaluation, groups, drift, apart=apart)
    # Noise multipliers are relative to the clip norm, which adaptive clipping changes every round: calibrated once for all.
    noise = _noise(privacy.model_copy(update={"clip_norm": 1.0}), training.batch_size, training.paid, evaluation, rows,
                   groups, drift, apart=apart)
    if isinstance(privacy, SitePrivacy):
        return GaussianUpdate(noise_multiplier=noise, clip_norm=privacy.clip_norm)
    if privacy.mechanism == "dp_ftrl" and isinstance(training, LocalTraining):
        return DpFtrl(noise_multiplier=noise, clip_norm=privacy.clip_norm, steps=training.paid, rows=rows,
                      batch_size=_fixed_batch(training.batch_size, training.paid, rows))
    return DpSgd(noise_multiplier=noise, clip_norm=privacy.clip_norm, sampling_rate=training.sampling_rate(rows),
                 steps=training.paid, count_noise_std=privacy.count_noise_std, rows_per_person=cap(privacy))


def _of_one_release(privacy: Promise, evaluation: LocalEvaluation, groups: Groups | None,
              drift: DriftWatch | None, *, apart: bool) -> TrainingMechanism:
    if isinstance(privacy, SitePrivacy):
        noise = _noise(privacy, 1, 1, evaluation, 1, groups, drift, apart=apart)
        return GaussianUpdate(noise_multiplier=noise, clip_norm=privacy.clip_norm)
    return RowSum(noise_multiplier=_noise_of_sum(privacy, evaluation, groups, drift, apart=apart),
                  rows_per_person=cap(privacy))


def mechanism_kind(terms: Terms) -> str:
    """The kind of mechanism by which an update keeps the terms' promise."""
    sums_rows = isinstance(terms.training, Trees) and isinstance(terms.privacy, RecordPrivacy | PersonPrivacy)
    return "row_sum" if sums_rows else kind_for(terms.privacy)


LOUDER = (1.0, 1.03, 1.08, 1.15, 1.25, 1.4, 1.6, 2.0, 3.0)
"""Factors of the noise that a site tries, the smallest first, if its rows have changed in the middle of a run."""

LITTLE, MUCH = 4.0, 1.5 * LOUDER[-1]
"""How many times less noise than the promise calls for surely is too little, how many times more too much."""

JUDGED_RATE, JUDGED_EPSILON = 1e-3, 0.1
"""Below these the quick bound on epsilon is too far above the cost to say what is too little."""


def misfit(terms: Terms, declared: Mechanism) -> str | None:
    """Why no site that keeps this promise declares so little or so much noise; None if one may.

    Sites take the smallest noise that keeps the promise (`mechanism_for`), or up to `LOUDER[-1]` times as much. Too little:
    `LITTLE` times as much would still cost more than is promised, even without any counts. Too much: `MUCH` times less would
    still keep the promise, with all that the campaign counts. Judged by a bound that takes milliseconds
    (`fedround.privacy.quick`): the exact cost of what a liar declares can take minutes.
    """
    privacy = terms.privacy
    if isinstance(privacy, NoPrivacy) or isinstance(declared, NoMechanism | GaussianCounts | RandomisedLabels):
        return None

    def with_noise(times: float) -> list[tuple[Mechanism, int]]:
        noise = min(max(declared.noise_multiplier * times, QUIETEST), 1 / QUIETEST)
        return [(without_clip_norm(declared.model_copy(update={"noise_multiplier": noise})),
                 times_paid(declared, privacy.rounds))]

    seldom = isinstance(declared, DpSgd) and declared.sampling_rate < JUDGED_RATE
    others = [(one, times) for one, times in Counter(beside(privacy, terms.evaluation, terms.groups, terms.drift)).items()]
    said = f"declares noise of {declared.noise_multiplier:g} clip norms: too"
    promise = f"epsilon {privacy.epsilon:g} for {how_many(privacy.rounds, 'round')}"
    if (not seldom and privacy.epsilon >= JUDGED_EPSILON
            and epsilon_at_most(with_noise(LITTLE), privacy.delta_dp, privacy.unit) > privacy.epsilon):
        return f"{said} little, {LITTLE:g} times as much would not keep {promise}"
    if epsilon_at_most([*with_noise(1 / MUCH), *others], privacy.delta_dp, privacy.unit) < privacy.epsilon:
        return f"{said} much, {MUCH:g} times less would keep {promise}"
    return None


@functools.lru_cache(maxsize=256)
def _noise(privacy: Promise, batch_size: int, steps: int, evaluation: LocalEvaluation,
           rows: int, groups: Groups | None, drift: DriftWatch | None, *, apart: bool) -> float:
    if isinstance(privacy, SitePrivacy):
        return smallest_noise(privacy, lambda noise: GaussianUpdate(noise_multiplier=noise, clip_norm=1.0), (),
                              lambda mu2: math.sqrt(privacy.rounds / mu2))
    others = _beside_training(privacy, evaluation, groups, drift, apart=apart)
    if privacy.mechanism == "dp_ftrl":
        fixed = DpFtrl(noise_multiplier=1.0, clip_norm=1.0, batch_size=_fixed_batch(batch_size, steps, rows), steps=steps,
                       rows=rows)
        times = times_paid(fixed, privacy.rounds)
        return smallest_noise(privacy, lambda noise: fixed.model_copy(update={"noise_multiplier": noise}), others,
                              lambda mu2: math.sqrt(times * depth(steps) / mu2), times)
    return calibrate(privacy, sampling_rate(batch_size, rows), steps, others)


@functools.lru_cache(maxsize=256)
def _noise_of_sum(privacy: Promise, evaluation: LocalEvaluation, groups: Groups | None, drift: DriftWatch | None, *,
                  apart: bool) -> float:
    return smallest_noise(privacy, lambda noise: RowSum(noise_multiplier=noise, rows_per_person=cap(privacy)),
                          _beside_training(privacy, evaluation, groups, drift, apart=apart),
                          lambda mu2: math.sqrt(privacy.rounds / mu2))


def _beside_training(privacy: Promise, evaluation: LocalEvaluation, groups: Groups | None, drift: DriftWatch | None, *,
                     apart: bool) -> tuple[Mechanism, ...]:
    """What the rows that are trained on pay besides. Raises ContractError if the counts alone spend all there is."""
    others = beside(privacy, evaluation, groups, drift)
    if not apart or privacy.unit != "record":
        return others
    if epsilon(others, privacy.delta_dp) > privacy.epsilon:
        raise ContractError(f"the counts of evaluations, groups and drift alone spend more than epsilon {privacy.epsilon}: "
                            "raise their noise_std")
    return watched(privacy, drift)


def _fixed_batch(batch_size: int, steps: int, rows: int) -> int:
    """As many rows as the plan asks for, or as few as make all batches of a round differ."""
    if rows < steps:
        raise ContractError(f"{how_many(rows, 'row')} cannot fill {steps} batches without using one twice: ask for fewer "
                            "steps")
    return min(batch_size, rows // steps)


def first_row(mechanism: DpFtrl, round_number: int, rows: int) -> int:
    """The first row of a site's round, chosen so that over time all rows are used equally often."""
    return (round_number - 1) * mechanism.steps * mechanism.batch_size % rows


def counts_leave(privacy: Privacy) -> bool:
    """Whether sites count their scores. Under the unit `site` they do not: hiding a whole histogram takes noise as large as
    the counts, and nothing could be read.
    """
    return not isinstance(privacy, SitePrivacy)


def counts_of(privacy: Privacy, evaluation: LocalEvaluation) -> tuple[Mechanism, ...]:
    """What an evaluation releases: the scores of each model that sites choose from."""
    if not counts_leave(privacy):
        return ()
    counted = NoMechanism() if evaluation.noise_std == 0 else GaussianCounts(noise_std=evaluation.noise_std)
    return (capped(counted, cap(privacy)),) * evaluation.clusters


def groups_of(privacy: Privacy, groups: Groups | None) -> tuple[Mechanism, ...]:
    """What a campaign's promotions release, if groups are watched."""
    return () if groups is None or not counts_leave(privacy) else of_persons(groups.mechanisms, privacy) * groups.promotions


def watched(privacy: Privacy, drift: DriftWatch | None) -> tuple[Mechanism, ...]:
    """All that a campaign counts of all rows, for drift."""
    return () if drift is None or isinstance(privacy, NoPrivacy) else of_persons(drift.releases(privacy.rounds), privacy)


def beside(privacy: Promise, evaluation: LocalEvaluation, groups: Groups | None = None,
           drift: DriftWatch | None = None) -> tuple[Mechanism, ...]:
    """All that a campaign releases besides its updates: the counts of every round's base model and of the final one, those
    of watched groups, and those for drift.

    Raises ContractError if they leave without noise, which no promise allows.
    """
    counts, by_group = counts_of(privacy, evaluation), groups_of(privacy, groups)
    if NoMechanism() in counts:
        raise ContractError("evaluation.noise_std is 0, so the score counts leave unprotected: raise it above 0")
    if NoMechanism() in by_group:
        raise ContractError("a noise_std of groups.watched is 0, so counts of groups leave unprotected: raise it above 0")
    return counts * (privacy.rounds + 1) + by_group + watched(privacy, drift)


@dataclass(frozen=True)
class SpentAfter:
    """What a site will have spent after a round."""

    round: int
    total: float
    """Epsilon in the campaign's unit: of the record that pays most."""
    evaluation: float
    """What the score counts alone cost; the rest is the training's and the groups' (epsilons do not add up)."""
    drift: float = 0.0
    """What the counts for drift alone cost."""


def dearest_record(trained: Sequence[Mechanism], held_out: Sequence[Mechanism], of_all: Sequence[Mechanism], delta_dp: float,
                   unit: Unit, *, apart: bool = False) -> float:
    """Epsilon of the record that pays most; of the unit `site`, all of it together.

    trained: what rows to train on are used for. held_out: what is counted of rows held out. of_all: what is counted of both.
    apart: as `mechanism_for`; otherwise a row may be on both sides, and pays for everything. So may a person's rows.
    """
    if not apart or unit != "record":
        return epsilon([*trained, *held_out, *of_all], delta_dp, unit)
    return max(epsilon([*side, *of_all], delta_dp, unit) for side in (trained, held_out))


def course(privacy: Promise, mechanism: Mechanism, evaluation: LocalEvaluation,
           rounds: Iterable[int] | None = None, groups: Groups | None = None,
           drift: DriftWatch | None = None, *, apart: bool = False) -> Iterator[SpentAfter]:
    """Epsilon after each of `rounds` (None: after every one); the last evaluation and the promotions included in the last.
    apart: as `mechanism_for`.
    """
    counts = counts_of(privacy, evaluation)
    for number in range(1, privacy.rounds + 1) if rounds is None else rounds:
        evaluations = [*counts] * (number + (number == privacy.rounds))
        promoted = groups_of(privacy, groups) if number == privacy.rounds else ()
        counted = () if drift is None else of_persons(drift.releases(number), privacy)
        trained = [mechanism] * times_paid(mechanism, number)
        total = dearest_record(trained, [*evaluations, *promoted], counted, privacy.delta_dp, privacy.unit, apart=apart)
        yield SpentAfter(number, total, *(epsilon(part, privacy.delta_dp, privacy.unit) for part in (evaluations, counted)))


def across_units(privacy: Promise, mechanism: Mechanism, evaluation: LocalEvaluation,
                 groups: Groups | None = None, drift: DriftWatch | None = None, *, apart: bool = False) -> dict[Unit, float]:
    """Epsilon of the whole campaign for one record, one person, and the site as a whole (infinite if nothing bounds it).
    apart: as `mechanism_for`.
    """
    units: tuple[Unit, ...] = ("record", "person", "site")
    uses = whole(privacy, mechanism, evaluation, groups, drift)
    return {unit: dearest_record(*uses, privacy.delta_dp, unit, apart=apart) for unit in units}


def whole(privacy: Promise, mechanism: Mechanism, evaluation: LocalEvaluation,
          groups: Groups | None = None,
          drift: DriftWatch | None = None) -> tuple[Sequence[Mechanism], Sequence[Mechanism], Sequence[Mechanism]]:
    """All that a campaign uses: rows to train on, rows held out, and both."""
    return ([mechanism] * times_paid(mechanism, privacy.rounds),
            [*counts_of(privacy, evaluation) * (privacy.rounds + 1), *groups_of(privacy, groups)], watched(privacy, drift))
