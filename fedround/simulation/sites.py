"""The sites' side of a simulated round: their rows, their jobs, and what each keeps for the next round.

What a site computes and sends is `fedround.rounds.site`; training may be done for many sites at once (`crew`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.hours import Closed, Hours, is_there
from fedround.learning.algorithms import Vectors
from fedround.learning.clusters import chosen, model_of
from fedround.learning.evaluate import Way, scored_rows, scores
from fedround.learning.examples import Examples, joined, shapes
from fedround.learning.guard import UNGUARDED, Countdown
from fedround.learning.parts import Rest
from fedround.learning.persons import Persons
from fedround.learning.recipe import Recipe
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Metrics, Scored, Task, scored_together
from fedround.learning.threads import one_thread
from fedround.privacy.spec import DpSgd, NoPrivacy, PersonPrivacy, Privacy, TrainingMechanism
from fedround.records import Evaluate, Question
from fedround.rounds import site as rounds
from fedround.rounds.campaign import mechanism_for
from fedround.rounds.offer import mechanism_of_all, offer
from fedround.rounds.site import PERSONAL, PRIVATE, Inputs, Kept, Worked
from fedround.simulation.chance import Chance
from fedround.simulation.jobs import Done, Job
from fedround.simulation.spool import Updates
from fedround.spoken import how_many
from fedround.statistics import Release
from fedround.terms import Terms

MOST_SIZES = 64
"""Noise is calibrated for at most so many different numbers of rows: every calibration takes a tenth of a second."""

_NOTHING = Kept()

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Site:
    """What a simulated site has."""

    train: Examples
    validation: Examples | None = None
    weight: float | None = None
    """As a federation file would agree; None: its number of training rows."""
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Of all its rows, before the recipe encodes them: what a question about a column counts in."""
    hours: Hours | None = None
    """When it can be asked, as a federation file would agree; None: always."""
    closed: tuple[Closed, ...] = ()
    """Days on which it is not asked."""

    @property
    def agreed_weight(self) -> float:
        """What it counts."""
        return float(len(self.train)) if self.weight is None else self.weight

    @property
    def is_always_there(self) -> bool:
        """Whether it can be asked at any time."""
        return self.hours is None and self.closed == ()

    def is_there(self, at: datetime) -> bool:
        """Whether it can be asked then."""
        return is_there(self.hours, self.closed, at)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One of the columns. Raises ContractError if it is not there."""
        if name not in self.columns:
            raise ContractError(f"there is no column '{name}'; there are {', '.join(sorted(self.columns)) or 'none'}")
        return self.columns[name]


class Sites:
    """All of them, and what they keep from round to round."""

    def __init__(self, terms: Terms, recipe: Recipe, sites: Mapping[str, Site], begun: Rest, chance: Chance,
                 steps: Callable[[int, str], int] | None = None, *, paid: Mapping[str, int] | None = None,
                 apart: bool = False):
        """begun: what the model has besides what travels, as it begins at every site. steps, apart: as `simulate`. paid: how
        many steps each site pays for and does, where slow ones do fewer (`fedround.rounds.speed`); None: all.
        """
        if not sites:
            raise ContractError("a campaign needs a site at least")
        self.by_name, self.weights = sites, {name: site.agreed_weight for name, site in sites.items()}
        self.notes: list[str] = []
        self._recipe, self._begun, self._chance, self._steps = recipe, begun, chance, steps
        self._kept, self._paid, self._apart = dict[str, Kept](), paid or {}, apart
        self.way = Way()
        self._held_out: Examples | None = None
        self.units = units_of(terms.privacy, sites)
        self.picked = dict[str, int]()
        """Of several models the one that each site chose last."""
        self._privacy, self._clusters = terms.privacy, terms.clusters
        self._noised_for = self._sizes(terms)

    def rest(self, site: str) -> Rest:
        """What the model has at a site besides what travels."""
        return rounds.rest_at(self._begun, self._kept.get(site, _NOTHING))

    @property
    def personal(self) -> dict[str, Tensors]:
        """Each site's personal model, where it has one."""
        return {site: kept.models[PERSONAL] for site, kept in sorted(self._kept.items()) if PERSONAL in kept.models}

    def mechanisms(self, cohort: Iterable[str], terms: Terms) -> dict[str, TrainingMechanism]:
        """What each site applies in a round with these terms. Raises ContractError if no noise keeps them for one."""
        if terms.combine is not None:
            return dict.fromkeys(cohort, mechanism_of_all(terms))
        alike: dict[tuple[int, int | None], TrainingMechanism] = {}
        found = {}
        for site in cohort:
            kind = self.units[site], self._paid.get(site)
            if kind not in alike:
                alike[kind] = self._mechanism(site, terms)
            found[site] = alike[kind]
        return found

    def jobs(self, number: int, cohort: Iterable[str], terms: Terms, served: Vectors, base: Tensors) -> list[Job]:
        """What the cohort trains in a round. Raises ContractError if a site cannot choose among several models."""
        asked = list(cohort)
        if terms.clusters > 1:
            asks = Evaluate(statistics=(self._recipe.task.statistic(terms.evaluation),) * terms.clusters)
            for site, told in self.answers(asks, number, asked, terms, base).items():
                self.picked[site] = chosen(terms.clusters, self._recipe.task, told) or 0
        jobs = []
        for site, mechanism in self.mechanisms(asked, terms).items():
            kept = self._kept.get(site, _NOTHING)
            jobs.append(Job(site, mechanism, rounds.first_row_of(mechanism, number, self.units[site]),
                            self._last_step(number, site), rounds.shift_of(terms, served, kept),
                            rounds.rest_at(self._begun, kept), self._persons(number, site), self.picked.get(site)))
        return jobs

    def own(self, site: str, model: Tensors) -> Tensors:
        """The model at a site, whole; of several, the one that it chose last, or the first."""
        if self._clusters > 1:
            model = model_of(model, self.picked.get(site, 0), self._clusters)
        return {**model, **self.rest(site).whole}

    def answers(self, asks: Question, number: int, cohort: Iterable[str], terms: Terms,
                base: Tensors) -> dict[str, tuple[Release, ...]]:
        """What the cohort says to a question that asks for no training. Raises ContractError if a site cannot answer it."""
        return {site: self._work(asks, number, site, terms, base).releases for site in cohort}

    def public_seed(self, number: int) -> bytes:
        """From which a round's groups are drawn. Live it follows from the keys that members offered."""
        return self._chance.plan(number)

    def summands(self, asks: Question, number: int, cohort: Iterable[str], terms: Terms, base: Tensors) -> Iterator[Float64]:
        """What each of the cohort adds to a secure sum, one after the other. Raises as `answers`."""
        for site in cohort:
            with one_thread():
                summand_S = self._work(asks, number, site, terms, base).summand_S
            if summand_S is None:
                raise ContractError("these terms add nothing up: agree on combine")
            yield summand_S

    def _work(self, asks: Question, number: int, site: str, terms: Terms, base: Tensors) -> Worked:
        try:
            offered = offer(asks, terms, self.units[site], lambda _: True)
            return rounds.work(asks, terms, number, self._chance.plan(number), self._inputs(site, base), offered,
                               self._chance.of(number, site), UNGUARDED)
        except ContractError as error:
            raise ContractError(f"site '{site}': {error}") from None

    def train_personal(self, number: int, cohort: Iterable[str], terms: Terms, base: Tensors) -> None:
        """The cohort's personal models go on, where they are agreed: one after the other, in this process, whatever crew
        trains the shared model. If a model diverges, it is not kept, and the previous one stays.
        """
        if terms.personal is None:
            return
        for site in cohort:
            with one_thread():
                model = rounds.personal_after(terms, self._inputs(site, base), self._chance.of(number, site),
                                              Countdown(self._last_step(number, site)))
            if model is not None and all(np.isfinite(array).all() for array in model.values()):
                self._keep(site, self._kept.get(site, _NOTHING).vectors, {PERSONAL: model})

    def send(self, number: int, terms: Terms, jobs: Sequence[Job], done: Sequence[Done],
             updates: Updates) -> list[bytes | None]:
        """Every site's file; None where numbers travel as they are.

        What arrives takes the place of what was trained, and each site keeps what its next round goes on with.
        """
        if terms.compression is None and not terms.training.algorithm.keeps and not self._begun.private:
            return [None] * len(jobs)
        packed, seed = list[bytes | None](), self._chance.plan(number)
        for place, (job, one) in enumerate(zip(jobs, done, strict=True)):
            sent = rounds.send(terms.compression, updates.read(place, place + 1)[0], self._kept.get(job.site, _NOTHING),
                               self._chance.of(number, job.site), seed)
            if sent.packed is not None:
                updates.put([place], sent.arrives_D[None])
            models = {PRIVATE: one.private} if one.private else {}
            self._keep(job.site, rounds.vectors_after(terms, job.shift_D, sent), models)
            packed.append(sent.packed)
        return packed

    def declared(self, terms: Terms, job: Job, done: Done) -> rounds.Declared:
        """What a site says of its update besides the numbers."""
        return rounds.declare(job.mechanism, terms.training, self.units[job.site], done.steps, done.within_clip)

    def scored(self, model: Tensors) -> dict[str, Scored]:
        """The model's scores of the rows that each site holds out. A row is scored by itself, so where all sites have one
        model their rows share passes.
        """
        held = {name: rows for name, site in self.by_name.items() if (rows := site.validation) is not None}
        if self._begun.private or self._clusters > 1 or len({shapes(rows.inputs) for rows in held.values()}) != 1:
            return {name: scores(self._recipe, self.own(name, model), rows, self.way) for name, rows in held.items()}
        if self._held_out is None:
            self._held_out = joined([*held.values()])
        found, counts_N = scored_rows(self._recipe, {**model, **self._begun.whole}, self._held_out, self.way)
        rows_before, counted_before = (np.cumsum([0, *some]) for some in ([len(rows) for rows in held.values()], counts_N))
        return {name: found.at(slice(*counted_before[[begin, end]]))
                for name, (begin, end) in zip(held, itertools.pairwise(rows_before), strict=True)}

    def _inputs(self, site: str, base: Tensors) -> Inputs:
        own = self.by_name[site]
        return Inputs(self._recipe, base, self._begun, {}, self._kept.get(site, _NOTHING), own.train, own.validation,
                      own.column)

    def _persons(self, number: int, site: str) -> Persons | None:
        if not isinstance(self._privacy, PersonPrivacy):
            return None
        own = self.by_name[site]
        return rounds.persons_at(self._privacy, own.train, own.column, self._chance.of(number, site))

    def _keep(self, site: str, vectors: Vectors, models: Mapping[str, Tensors]) -> None:
        self._kept[site] = Kept(vectors, {**self._kept.get(site, _NOTHING).models, **models})

    def _last_step(self, number: int, site: str) -> int | None:
        return None if self._steps is None else self._steps(number, site)

    def _mechanism(self, site: str, terms: Terms) -> TrainingMechanism:
        rows, training = self.units[site], terms.training
        if isinstance(training, LocalTraining) and site in self._paid:
            training = training.model_copy(update={"covered": self._paid[site]})
        try:
            found = mechanism_for(terms.privacy, training, terms.evaluation, self._noised_for[rows], terms.groups,
                                  terms.drift, apart=self._apart)
        except ContractError as error:
            raise ContractError(f"site '{site}' with {how_many(rows, 'row')}: {error}") from None
        if isinstance(found, DpSgd) and isinstance(terms.training, LocalTraining):
            return found.model_copy(update={"sampling_rate": terms.training.sampling_rate(rows)})
        return found

    def _sizes(self, terms: Terms) -> dict[int, int]:
        """The number of rows that a site calibrates its noise for: its own, or the next smaller of a few values, which needs
        more noise.
        """
        sizes = sorted(set(self.units.values()))
        if isinstance(terms.privacy, NoPrivacy) or terms.combine is not None or len(sizes) <= MOST_SIZES:
            return {size: size for size in sizes}
        kept = [sizes[place * len(sizes) // MOST_SIZES] for place in range(MOST_SIZES)]
        self.notes.append(f"sites of {len(sizes)} different sizes: noise is calibrated for {MOST_SIZES} of them, and each "
                          "takes that of the next smaller one, which is a little more than it needs")
        return {size: kept[int(np.searchsorted(kept, size, side="right")) - 1] for size in sizes}


def units_of(privacy: Privacy, sites: Mapping[str, Site]) -> dict[str, int]:
    """How many each site's batches are drawn from: training rows, or persons who have some."""
    found = {}
    for name, site in sites.items():
        try:
            found[name] = rounds.units_at(privacy, site.train, site.column)
        except ContractError as error:
            raise ContractError(f"site '{name}': {error}") from None
    return found


def judged(recipe: Recipe, model: Tensors, sites: Sites) -> Metrics | None:
    """The model on all rows that sites hold out, together; None if they tell nothing.

    Where a part of the model is private, each site's rows are judged with the site's own; of several models, the one that
    the site chose last.
    """
    told = sites.scored(model)
    return metrics_or_none(recipe.task, scored_together([*told.values()])) if told else None


def judged_at_sites(recipe: Recipe, model: Tensors, sites: Sites) -> dict[str, Metrics]:
    """The same, each site's rows by themselves; without sites whose rows tell nothing."""
    return _telling(recipe.task, sites.scored(model))


def personal_judged(recipe: Recipe, sites: Sites) -> dict[str, Metrics]:
    """Each personal model on the rows that its site holds out; without sites whose rows tell nothing."""
    told = {name: scores(recipe, {**model, **sites.rest(name).frozen}, rows) for name, model in sites.personal.items()
            if (rows := sites.by_name[name].validation) is not None}
    return _telling(recipe.task, told)


def metrics_or_none(task: Task, told: Scored) -> Metrics | None:
    """None for rows of one label only, and for a model that has diverged."""
    try:
        return task.metrics(told)
    except ContractError:
        return None


def _telling(task: Task, told: Mapping[str, Scored]) -> dict[str, Metrics]:
    return {name: found for name, one in told.items() if (found := metrics_or_none(task, one)) is not None}
