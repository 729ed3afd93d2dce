"""A site's half of a round.

`work` carries out what was offered and charged (`fedround.rounds.offer`): the base model's statistics, training, packing, and
what the site keeps for its next round.

D coordinates of what travels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.codec import Tensors
from fedround.compression import wire
from fedround.compression.spec import Compression, is_unbiased
from fedround.errors import ContractError
from fedround.learning.algorithms import Vectors
from fedround.learning.clusters import chosen, model_of
from fedround.learning.device import DeviceName
from fedround.learning.evaluate import scored_rows
from fedround.learning.examples import TARGET, Examples
from fedround.learning.foreign.site import Elsewhere
from fedround.learning.guard import Guard
from fedround.learning.learn import check_learner, learn
from fedround.learning.lesson import Lesson
from fedround.learning.parts import Rest
from fedround.learning.personal import personalise
from fedround.learning.persons import Persons, count, persons_of
from fedround.learning.recipe import Recipe
from fedround.learning.replaced import replaced
from fedround.learning.spec import LocalTraining, Training
from fedround.learning.tasks import Scored
from fedround.learning.train import asked_of
from fedround.learning.trees.site import summand as sums_of_leaves
from fedround.learning.trees.spec import Trees
from fedround.learning.union.site import clipped_gradients
from fedround.learning.union.spec import UnionStep
from fedround.privacy.noise import NoiseSource
from fedround.privacy.spec import DpFtrl, DpSgd, PersonPrivacy, Privacy, RowSum, TrainingMechanism, cap
from fedround.records import Question, Train
from fedround.rounds.campaign import first_row
from fedround.rounds.offer import Offer
from fedround.rounds.summed import layout
from fedround.spoken import how_many
from fedround.statistics import Release, release
from fedround.terms import Terms

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Column = Callable[[str], npt.NDArray[Any]]
"""A column's values, (N,), by its name."""

RESIDUAL, PRIVATE, PERSONAL = "residual", "private", "personal"


# -- what it is done with ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Kept:
    """What a site keeps from one round of a run to the next. None of it is ever sent; what is not there begins anew."""

    vectors: Vectors = field(default_factory=dict)
    """(D,) each: the algorithm's (`LocalAlgorithm.keeps`), and the "residual" that compression left over."""
    models: Mapping[str, Tensors] = field(default_factory=dict)
    """The "private" part of the model, and the "personal" model beside it."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a site works on in one round; read once, before."""

    recipe: Recipe
    base: Tensors
    begun: Rest
    """What the model has besides what travels, as it begins at every site."""
    served: Vectors
    """What the server remembers and the plan names."""
    kept: Kept
    train: Examples
    validation: Examples | None
    column: Column
    """A column of all rows, those to train on first, as `Evidence.column`."""
    device: DeviceName = "cpu"
    """Where gradients are computed."""
    elsewhere: Elsewhere | None = None
    """Where a foreign client runs; None: nowhere."""

    @property
    def rest(self) -> Rest:
        """What the model has at this site besides what travels."""
        return rest_at(self.begun, self.kept)


class Draws(Protocol):
    """Where a site's randomness comes from: its secret, the plan and the rows. The same calls, the same draws; no two
    releases share any, and each depends on all that its release depends on.
    """

    def statistic(self, place: int, private: Tensors) -> NoiseSource:
        """Noise on the plan's statistic at this place, which may depend on the private part."""

    def training(self, shift_D: Float32 | None, private: Tensors) -> NoiseSource:
        """Batches and noise of the training."""

    def compression(self) -> NoiseSource:
        """How the update is rounded."""

    def personal(self) -> NoiseSource:
        """Batches of the personal model."""

    def persons(self) -> bytes:
        """A key by which each person's rows are chosen: the same in every round."""


# -- the work ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """What a site says of its update besides the numbers: enough to know the law of the noise in them."""

    mechanism: TrainingMechanism
    rows: int | None
    steps: int | None
    within_clip: float | None


@dataclass(frozen=True, eq=False)
class Sent:
    """An update as it travels."""

    arrives_D: Float32
    """What its reader decodes."""
    packed: bytes | None
    """The compressed file; None: the numbers travel as they are."""
    residual_D: Float32 | None
    """What compression left over, for the next round."""


@dataclass(frozen=True, eq=False)
class Worked:
    """What a site's work gave."""

    releases: tuple[Release, ...]
    declared: Declared | None
    payload: bytes | None
    """The update's file."""
    keeps: Kept
    """What the next round goes on with."""
    summand_S: Float64 | None = None
    """With a secure sum: all that leaves, noised by the site's share (`fedround.rounds.summed`); the rest above is empty."""


def work(asks: Question, terms: Terms, number: int, seed: bytes, inputs: Inputs, offered: Offer, draws: Draws,
         guard: Guard) -> Worked:
    """Carry out a question as it was offered.

    number: the round. seed: what everybody knows of it (the plan's digest), where a sketch has its places from.
    Promised: what is released satisfies what an accountant says of `offered.mechanisms`, if the draws are secret and fresh.
    Raises Cancelled if the guard says so; ContractError if the recipe cannot be trained as the terms say.
    """
    rest, of_each = inputs.rest, _of_each_model(terms, inputs)
    evidence = [_Evidence(of_one, terms.privacy, draws) for of_one in of_each]
    if terms.combine is not None:
        return Worked((), None, None, Kept(), _summand(asks, terms, inputs, offered, draws, evidence[0]))
    releases = tuple(release(statistic, evidence[place % len(evidence)], draws.statistic(place, rest.private),
                             rows_per_person=cap(terms.privacy)) for place, statistic in enumerate(offered.statistics))
    if not isinstance(asks, Train) or offered.training is None:
        return Worked(releases, None, None, Kept())
    inputs = of_each[chosen(terms.clusters, inputs.recipe.task, releases) or 0]
    mechanism, training, shift_D = offered.training, terms.training, shift_of(terms, inputs.served, inputs.kept)
    persons = persons_at(terms.privacy, inputs.train, inputs.column, draws)
    lesson = Lesson(inputs.base, inputs.train, rest, persons, first_row_of(mechanism, number, len(inputs.train)), shift_D,
                    device=inputs.device)
    trained = learn(inputs.recipe, lesson, training, mechanism, draws.training(shift_D, rest.private), guard,
                    elsewhere=inputs.elsewhere)
    as_it_is = terms.compression is None and not training.algorithm.keeps
    sent = None if as_it_is else send(terms.compression, codec.flatten(trained.delta), inputs.kept, draws, seed)
    payload = codec.encode(trained.delta) if sent is None or sent.packed is None else sent.packed
    models = {} if not trained.private else {PRIVATE: trained.private}
    if (personal := personal_after(terms, inputs, draws, guard)) is not None:
        models[PERSONAL] = personal
    said = declare(mechanism, training, lesson.units, trained.steps, trained.within_clip)
    return Worked(releases, said, payload, Kept({} if sent is None else vectors_after(terms, shift_D, sent), models))


def _summand(asks: Question, terms: Terms, inputs: Inputs, offered: Offer, draws: Draws, evidence: _Evidence) -> Float64:
    """What a site adds to a secure sum, (S,)."""
    size = codec.coordinates(terms.sent(codec.schema_of(inputs.base)))
    parts, private, found = layout(asks, terms, size, offered.mechanisms), inputs.rest.private, list[Float64]()
    if offered.training is not None:
        found.append(_learnt(terms, inputs, offered.training, parts[0].cells, draws))
    for place, (statistic, part) in enumerate(zip(offered.statistics, parts[len(found):], strict=True)):
        found.append(statistic.in_cells(part.cells).noised(evidence, draws.statistic(place, private)).ravel())
    return np.concatenate(found)


def _learnt(terms: Terms, inputs: Inputs, mechanism: TrainingMechanism, cells: int, draws: Draws) -> Float64:
    """The learner's part of it, (D,)."""
    training, noise = terms.training, draws.training(None, inputs.rest.private)
    check_learner(inputs.recipe, training)
    persons = persons_at(terms.privacy, inputs.train, inputs.column, draws)
    match training, mechanism:
        case UnionStep(), DpSgd():
            lesson = Lesson(inputs.base, inputs.train, inputs.rest, persons, device=inputs.device)
            return clipped_gradients(inputs.recipe, lesson, training, mechanism, cells, noise)
        case Trees(), RowSum():
            return sums_of_leaves(training, inputs.recipe.task, inputs.base, inputs.train, cells, noise, persons)
        case _:
            raise ContractError(f"no secure sum adds up {training.in_words} with {mechanism.kind}")


def _of_each_model(terms: Terms, inputs: Inputs) -> list[Inputs]:
    """The same with each of the models that sites choose from."""
    return [replace(inputs, base=model_of(inputs.base, cluster, terms.clusters)) for cluster in range(terms.clusters)]


# -- its parts, for training many sites at once ------------------------------------------------------------------------


def rest_at(begun: Rest, kept: Kept) -> Rest:
    """What the model has at a site besides what travels: the private part as it was kept, or as it begins."""
    return Rest(kept.models[PRIVATE], begun.frozen) if PRIVATE in kept.models else begun


def shift_of(terms: Terms, served: Vectors, kept: Kept) -> Float32 | None:
    """What the algorithm adds to every gradient of this round."""
    return terms.training.algorithm.shift(served, kept.vectors)


def units_at(privacy: Privacy, train: Examples, column: Column) -> int:
    """How many the batches are drawn from: training rows, or persons who have some."""
    return len(train) if not isinstance(privacy, PersonPrivacy) else count(column(privacy.person)[:len(train)])


def persons_at(privacy: Privacy, train: Examples, column: Column, draws: Draws) -> Persons | None:
    """Whose training rows are whose; None where persons are not told apart."""
    if not isinstance(privacy, PersonPrivacy):
        return None
    return persons_of(column(privacy.person)[:len(train)], train.counts_N, privacy.rows_per_person, draws.persons())


def first_row_of(mechanism: TrainingMechanism, number: int, rows: int) -> int:
    """Where a round begins in rows that are taken in their order."""
    return first_row(mechanism, number, rows) if isinstance(mechanism, DpFtrl) else 0


def declare(mechanism: TrainingMechanism, training: Training, rows: int, steps: int,
            within_clip: float | None) -> Declared:
    """What is said of an update: the number of rows, or of persons, only where it is needed to know the noise."""
    all_of_them = isinstance(mechanism, RowSum) or (isinstance(mechanism, DpSgd) and mechanism.sampling_rate == 1)
    asked = asked_of(mechanism, training)
    return Declared(mechanism, rows if all_of_them else None, steps if steps < asked else None, within_clip)


def personal_after(terms: Terms, inputs: Inputs, draws: Draws, guard: Guard) -> Tensors | None:
    """The site's own model after the round; it begins at the base model. None: none is agreed."""
    if terms.personal is None or not isinstance(terms.training, LocalTraining):
        return None
    lesson = Lesson(inputs.kept.models.get(PERSONAL, inputs.base), inputs.train, inputs.rest, towards=inputs.base,
                    device=inputs.device)
    return personalise(inputs.recipe, lesson, terms.training, draws.personal(), guard, pull=terms.personal.pull)[0]


def send(how: Compression | None, delta_D: Float32, kept: Kept, draws: Draws, seed: bytes) -> Sent:
    """Pack a delta that may leave.

    If the compression keeps numbers back, they are added to the next round's delta of the run (error feedback). So over the
    rounds, what arrived plus what waits equals what was computed. The delta is already noised here, so packing costs no
    privacy.
    """
    if how is None:
        return Sent(delta_D, None, None)
    vector_D = delta_D if is_unbiased(how) or RESIDUAL not in kept.vectors else delta_D + kept.vectors[RESIDUAL]
    packed = wire.compress(vector_D, how, draws.compression().random, seed)
    arrives_D = wire.expanded(packed, how, len(vector_D), seed)
    return Sent(arrives_D, packed, None if is_unbiased(how) else vector_D - arrives_D)


def vectors_after(terms: Terms, shift_D: Float32 | None, sent: Sent) -> Vectors:
    """The vectors that a site keeps after it has sent this."""
    residual = {} if sent.residual_D is None else {RESIDUAL: sent.residual_D}
    return {**terms.training.at_site(shift_D, sent.arrives_D), **residual}


class _Evidence:
    """What statistics are computed from. Where persons are protected, of each person no more rows than are agreed."""

    def __init__(self, inputs: Inputs, privacy: Privacy, draws: Draws):
        self._inputs, self._draws, self._promised = inputs, draws, privacy
        self._privacy = privacy if isinstance(privacy, PersonPrivacy) else None

    def column(self, name: str) -> npt.NDArray[Any]:
        """As `Evidence`."""
        value_N = self._inputs.column(name)
        if self._privacy is None:
            return value_N
        return value_N[self._used(self._inputs.column(self._privacy.person), np.ones(len(value_N), bool),
                                  self._privacy.rows_per_person)]

    def encoded(self) -> tuple[Float64, npt.NDArray[np.int64]]:
        """As `Evidence`."""
        train, used_N = self._inputs.train, self._inputs.train.counts_N
        if self._privacy is not None:
            used_N = self._used(self._inputs.column(self._privacy.person)[:len(train)], used_N, self._privacy.rows_per_person)
        return train.table_NF[used_N].astype(np.float64), train.targets[TARGET][used_N]

    def scores(self) -> Mapping[str, npt.NDArray[Any]]:
        """As `Evidence`."""
        told, _ = self._scored
        return told.numbers

    def summands(self) -> Float64:
        """As `Evidence`."""
        told, _ = self._scored
        return self._inputs.recipe.task.summands(told)

    def held_out(self, name: str) -> npt.NDArray[Any]:
        """As `Evidence`."""
        _, counts_N = self._scored
        value_N = self._inputs.column(name)
        if len(value_N) != len(self._inputs.train) + len(counts_N):
            raise ContractError(f"column '{name}' has {how_many(len(value_N), 'value')}, and there are "
                                f"{how_many(len(self._inputs.train), 'row')} to train on and {len(counts_N)} held out")
        return value_N[len(self._inputs.train):][counts_N]

    def replaced(self, public_KP: Float64, places: Sequence[int], key: bytes) -> _Evidence:
        """As `Evidence`."""
        changed = replaced(self._held_out, public_KP, places, key)
        return _Evidence(replace(self._inputs, validation=changed), self._promised, self._draws)

    @property
    def _held_out(self) -> Examples:
        if self._inputs.validation is None:
            raise ContractError("the site holds out no rows, and the question asks how good the model is on them")
        return self._inputs.validation

    @functools.cached_property
    def _scored(self) -> tuple[Scored, npt.NDArray[np.bool_]]:
        told, counts_N = scored_rows(self._inputs.recipe, {**self._inputs.base, **self._inputs.rest.whole}, self._held_out)
        if self._privacy is None:
            return told, counts_N
        used_N = self._used(self._inputs.column(self._privacy.person)[len(self._inputs.train):], counts_N,
                            self._privacy.rows_per_person)
        return told.at(used_N[counts_N]), used_N

    def _used(self, person_N: npt.NDArray[Any], counts_N: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.bool_]:
        """Which rows may be counted."""
        return persons_of(person_N, counts_N, most, self._draws.persons()).used(len(person_N))
