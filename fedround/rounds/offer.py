"""What a site will release in answer to a plan, and what it costs: fixed before any work, and charged."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fedround.drift.spec import DriftWatch
from fedround.privacy.entries import Lot, Rows, Use, without_clip_norm
from fedround.privacy.participation import times_left, times_paid
from fedround.privacy.spec import Mechanism, NoMechanism, NoPrivacy, Privacy, TrainingMechanism, of_persons, shared
from fedround.records import Question, Train
from fedround.rounds.campaign import mechanism_for
from fedround.statistics import Groups, Statistic
from fedround.terms import Terms


@dataclass(frozen=True)
class Offer:
    """What a site will release in answer to a plan."""

    training: TrainingMechanism | None
    """None: no update is asked for."""
    statistics: tuple[Statistic, ...]
    privacy: Privacy
    """What is promised."""
    shared_by: int | None = None
    """How many members share the noise; None: it is the site's own."""

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """What the ledger is charged; in this order an answer says what was applied (`Answer.mechanisms`)."""
        trained = () if self.training is None else (self.training,)
        return (*trained, *self.counted(statistic.mechanism for statistic in self.statistics))

    def counted(self, mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
        """What counts are charged as under this promise."""
        return tuple(shared(one, self.shared_by) for one in of_persons(mechanisms, self.privacy))

    @property
    def rows(self) -> tuple[Rows, ...]:
        """Which rows each of them is used on, where those to train on and those held out have none in common."""
        return (*(() if self.training is None else ("train",)), *(statistic.rows for statistic in self.statistics))

    def louder(self, factor: float) -> Offer:
        """The same with more noise in training. Noise that is shared is everybody's: no site has more of it by itself."""
        if self.training is None or isinstance(self.training, NoMechanism) or self.shared_by is not None:
            return self
        noise = math.ceil(1000 * factor * self.training.noise_multiplier) / 1000
        return replace(self, training=self.training.model_copy(update={"noise_multiplier": noise}))

    def campaign(self, rows: Sequence[Rows], done: int = 0,
                 groups: Groups | None = None, drift: DriftWatch | None = None) -> tuple[Lot, ...]:
        """All that the campaign that begins with this offer may use. The agreement fixes it before anything leaves.

        It is `privacy.rounds` times the offer, less the rounds of the run's earlier campaigns, plus one more score count, of
        the last model. A question that makes no model is a campaign of its own. rows: which each mechanism is used on;
        empty: all. groups: what promotions of the campaign's models will ask for. drift: what is still to be counted for it.
        """
        privacy = self.privacy
        rounds = 1 if self.training is None or isinstance(privacy, NoPrivacy) else max(1, privacy.rounds - done)
        final = {"validation"} if self.training is not None else set()
        sets = Counter[Use]()
        for place, (mechanism, where) in enumerate(zip(self.mechanisms, self.rows, strict=True)):
            times = times_paid(mechanism, rounds) if done == 0 else times_left(mechanism, rounds)
            sets[without_clip_norm(mechanism), rows[place] if rows else "all"] += times + (where in final)
        if self.training is not None and groups is not None:
            for mechanism in self.counted(groups.mechanisms):
                sets[mechanism, "validation" if rows else "all"] += groups.promotions
        if drift is not None and self.training is not None and not isinstance(privacy, NoPrivacy):
            for mechanism in self.counted(drift.once):
                sets[mechanism, "all"] += drift.times(privacy.rounds) - drift.times(min(done, privacy.rounds))
        return tuple(Lot(mechanism=mechanism, rows=where, times=times) for (mechanism, where), times in sets.items() if times)


def offer(asks: Question, terms: Terms, rows: int, may_leave: Callable[[Statistic], bool], *, apart: bool = False) -> Offer:
    """What a site with so many training rows, or persons with training rows, will release. rows, apart: as `mechanism_for`.

    With a secure sum the noise is that of all members' rows together, and the same at each of them, whatever it has itself.
    may_leave: what the site's policy lets out. Raises ContractError if no noise keeps what the terms promise.
    """
    mechanism = None
    if isinstance(asks, Train):
        mechanism = mechanism_of_all(terms) if terms.combine is not None else mechanism_for(
            terms.privacy, terms.training, terms.evaluation, rows, terms.groups, terms.drift, apart=apart)
    statistics = tuple(statistic for statistic in asks.statistics if may_leave(statistic))
    return Offer(mechanism, statistics, terms.privacy, terms.shared_by)


def mechanism_of_all(terms: Terms) -> TrainingMechanism:
    """What every member applies in training for a secure sum, whatever rows it has. Raises as `offer`."""
    return shared(mechanism_for(terms.privacy, terms.training, terms.evaluation, terms.union.rows, terms.groups, terms.drift),
                  terms.shared_by)
