"""What privacy a federation agrees on, and the mechanisms that a site applies to keep it.

Values only: `fedround.privacy.units` says what they protect, `fedround.privacy.accounting` what they cost,
`fedround.rounds.campaign` which mechanism follows from a promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from fedround.spoken import how_many
from fedround.values import LARGEST_WHOLE, ColumnName, Value

NoiseMultiplier = Annotated[float, Field(ge=1e-6, le=1e6)]
QUIETEST = 1e-6
NoiseStd = Annotated[float, Field(ge=QUIETEST, le=1e6)]
"""On counts; of all sites together, too."""
ClipNorm = Annotated[float, Field(ge=1e-9, le=1000)]
MOST_ROWS_OF_A_PERSON = 1000
PersonRows = Annotated[int, Field(ge=1, le=MOST_ROWS_OF_A_PERSON)]
SharedBy = Annotated[int, Field(ge=2, le=1000)]
"""With how many members the noise is shared. The noise that a mechanism says is that of the sum of so many: each adds
1/sqrt(shared_by) of it, and only the sum of at least so many is ever seen (`fedround.secure_sums`). What it costs, if nobody
else can be trusted, `fedround.privacy.units.alone` says."""

# -- what is promised --------------------------------------------------------------------------------------------------


Epsilon = Annotated[float, Field(ge=1e-6, le=100)]


class _Budget(Value):
    """What a promise of privacy says in every unit."""

    epsilon: Epsilon
    delta_dp: Annotated[float, Field(gt=0, lt=0.1)]
    clip_norm: ClipNorm = 1.0
    rounds: Annotated[int, Field(ge=1, le=100_000, description="rounds that the budget must last for")]


class AdaptiveClipping(Value):
    """The clip norm follows a quantile of the gradients' norms (Andrew et al. 2021, arXiv:1905.03871).

    In every step a site also counts, with noise, how many gradients were within the clip norm. The next plan's clip norm is
    this one's times exp(-learning_rate (share - quantile)), where `share` is the median of the sites' shares.
    `clip_norm` of the promise is the first round's. The counts are paid from the same budget: the gradients' noise is
    raised a little (`fedround.privacy.units.joint_noise`).
    """

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    learning_rate: Annotated[float, Field(gt=0, le=5)] = 0.5
    noise_std: Annotated[float, Field(ge=QUIETEST, le=10_000, description="noise of each step's count")] = 10.0


class GradientPrivacy(_Budget):
    """What both promises have in common that hold in every step of training: gradients are clipped to a norm, and noised."""

    mechanism: Literal["dp_sgd", "dp_ftrl"] = "dp_sgd"
    """With "dp_sgd" a site draws its batches (Poisson sampling); "dp_ftrl" is for sites that cannot sample: rows in a fixed
    order, at most once in a round, and noise from a tree (Kairouz et al. 2021, arXiv:2103.00039)."""
    adaptive: AdaptiveClipping | None = None

    @model_validator(mode="after")
    def _check_adaptive(self) -> Self:
        if self.adaptive is not None and self.mechanism != "dp_sgd":
            raise ValueError("adaptive clipping goes with the mechanism 'dp_sgd' only")
        return self

    @property
    def count_noise_std(self) -> float | None:
        """Noise on each step's count of gradients within the clip norm; None: nothing is counted."""
        return None if self.adaptive is None else self.adaptive.noise_std


class RecordPrivacy(GradientPrivacy):
    """Each record's gradient is clipped to `clip_norm`; noise is calibrated by each site to its own rows.

    The promise: over `rounds` rounds of a run, what leaves a site is (epsilon, delta_dp)-differentially private for one
    record of that site whose contribution is replaced by nothing; the number of rows counts as public (PLD accountant of
    dp_accounting).
    """

    unit: Literal["record"] = "record"


class PersonPrivacy(GradientPrivacy):
    """The mean gradient of each person's rows is clipped to `clip_norm`; noise is calibrated by each site to its own persons.

    The promise: over `rounds` rounds of a run, what leaves a site is (epsilon, delta_dp)-differentially private for one
    person of that site, all of whose rows, however many, are replaced by nothing; the number of persons counts as public.
    Rows without a person are used for nothing. A person with rows at several sites pays at each.

    A step draws persons. At most `rows_per_person` rows of each are used, always the same ones; a table of counts is moved by
    one person by so much at most, and is charged for it.
    """

    unit: Literal["person"] = "person"
    person: ColumnName
    """The column that says whose row it is. A site's policy names it, too."""
    rows_per_person: PersonRows

    @model_validator(mode="after")
    def _check_mechanism(self) -> Self:
        if self.mechanism != "dp_sgd":
            raise ValueError("the unit 'person' goes with the mechanism 'dp_sgd' only: 'dp_ftrl' takes rows in their order, "
                             "and a person's rows lie in many batches")
        return self


class SitePrivacy(_Budget):
    """Training is not noised; a site's whole update is clipped to `clip_norm`, and Gaussian noise is added once.

    The promise: over `rounds` rounds of a run, what leaves a site is (epsilon, delta_dp)-differentially private for that
    site's whole contribution replaced by nothing. Nothing else leaves: no counts of scores and no number of rows, since
    noise that hides a whole histogram leaves nothing to read in it.
    """

    unit: Literal["site"] = "site"


class NoPrivacy(Value):
    """No noise. A site's policy must allow this by name. It is for comparisons, and for data that are public anyway."""

    unit: Literal["none"] = "none"


Promise = RecordPrivacy | PersonPrivacy | SitePrivacy
"""With noise."""

Privacy = Annotated[Promise | NoPrivacy, Field(discriminator="unit")]

Unit = Literal["record", "person", "site", "label"]
"""The unit that an epsilon protects: one record of a site, all rows of one person there, all that the site contributes, or
one record's label, exchanged for another. Epsilons of different units are never compared or added."""


# -- what is done for it -----------------------------------------------------------------------------------------------


class DpSgd(Value):
    """The mechanism a site applied: `steps` Poisson-sampled Gaussian steps."""

    kind: Literal["dp_sgd"] = "dp_sgd"
    noise_multiplier: NoiseMultiplier
    """Of the gradients alone; what counting adds to the cost stands in `count_noise_std`."""
    clip_norm: ClipNorm
    sampling_rate: Annotated[float, Field(ge=1e-12, le=1)]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    count_noise_std: NoiseStd | None = None
    """Noise on a count, in every step, of the drawn gradients that were within the clip norm (`AdaptiveClipping`); None:
    nothing is counted."""
    rows_per_person: PersonRows | None = None
    """What is drawn and clipped is the mean gradient of so many rows of one person at most; None: each row's gradient."""
    shared_by: SharedBy | None = None
    """None: the noise is the site's own."""


class DpFtrl(Value):
    """`steps` batches of `batch_size` rows in a fixed order, no row in two of them; prefix sums noised by a binary tree."""

    kind: Literal["dp_ftrl"] = "dp_ftrl"
    noise_multiplier: NoiseMultiplier
    """Standard deviation of a node's noise, in clip norms."""
    clip_norm: ClipNorm
    batch_size: Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    rows: Annotated[int, Field(ge=1, le=LARGEST_WHOLE)] | None = None
    """How many rows the rounds go round by round through: a record is in some rounds only (`fedround.privacy.participation`).
    None: it may be in every round."""

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        if self.rows is not None and self.steps * self.batch_size > self.rows:
            raise ValueError(f"{self.steps} batches of {how_many(self.batch_size, 'row')} are more than the {self.rows} rows "
                             "that there are")
        return self


class GaussianUpdate(Value):
    """The mechanism on a whole update: clipped to `clip_norm`, then Gaussian noise on every coordinate, once."""

    kind: Literal["gaussian_update"] = "gaussian_update"
    noise_multiplier: NoiseMultiplier
    clip_norm: ClipNorm


class RowSum(Value):
    """The mechanism on a sum over rows: one Gaussian noise on all its numbers, once.

    How far one row can move the sum, all numbers together, is public: what is summed says it (`fedround.learning.trees`).
    """

    kind: Literal["row_sum"] = "row_sum"
    noise_multiplier: NoiseMultiplier
    """Standard deviation of the noise on each number, in units of what one row can move; or one person."""
    rows_per_person: PersonRows | None = None
    """What adds up are the means of so many rows of one person at most, and one person moves them as far as one row would;
    None: nobody looked whose they are."""
    shared_by: SharedBy | None = None
    """As in `DpSgd`."""


class GaussianCounts(Value):
    """The mechanism on a sum over records, in units in which the longest contribution of one record has length 1 (L2): every
    number got Gaussian noise. In a histogram one record changes one count by one; other sums are divided by their sensitivity
    (`fedround.statistics.base.NoisedSum`).
    """

    kind: Literal["gaussian_counts"] = "gaussian_counts"
    noise_std: NoiseStd
    rows_per_person: PersonRows | None = None
    """So many rows of one person are counted at most; None: nobody looked whose they are."""
    shared_by: SharedBy | None = None
    """As in `DpSgd`."""


class RandomisedLabels(Value):
    """The mechanism on labels of two kinds: each is told right with chance e^epsilon / (1 + e^epsilon), and otherwise the
    other one is told. No delta. Whose labels they are is told besides: whoever reads them knows these records by name, and no
    epsilon is about that.
    """

    kind: Literal["randomised_labels"] = "randomised_labels"
    epsilon: Annotated[float, Field(ge=0.01, le=20)]


class NoMechanism(Value):
    """Nothing was noised."""

    kind: Literal["none"] = "none"


AnyMechanism = TypeVar("AnyMechanism", bound=Value)

PerRecord = DpSgd | DpFtrl
"""Mechanisms that bound and hide what single records do in training."""


def kind_for(privacy: Privacy) -> str:
    """The kind of mechanism by which an update keeps this promise."""
    match privacy:
        case NoPrivacy():
            return "none"
        case SitePrivacy():
            return "gaussian_update"
        case RecordPrivacy() | PersonPrivacy():
            return privacy.mechanism


def cap(privacy: Privacy) -> int | None:
    """How many rows of one person may be used; None: persons are not told apart."""
    return privacy.rows_per_person if isinstance(privacy, PersonPrivacy) else None


def of_persons(counted: Iterable[Mechanism], privacy: Privacy) -> tuple[Mechanism, ...]:
    """What tables of counts are charged as under this promise."""
    return tuple(capped(one, cap(privacy)) if isinstance(one, GaussianCounts) else one for one in counted)


def capped(counted: GaussianCounts | NoMechanism, rows: int | None) -> GaussianCounts | NoMechanism:
    """The same, if so many rows of one person are counted at most; None: persons are not told apart."""
    if rows is None or isinstance(counted, NoMechanism):
        return counted
    return counted.model_copy(update={"rows_per_person": rows})


def shared(mechanism: AnyMechanism, by: int | None) -> AnyMechanism:
    """The same with noise that so many members share; None: the site's own."""
    return mechanism.model_copy(update={"shared_by": by}) if by is not None and hasattr(mechanism, "shared_by") else mechanism


TrainingMechanism = Annotated[DpSgd | DpFtrl | GaussianUpdate | RowSum | NoMechanism, Field(discriminator="kind")]

Mechanism = Annotated[DpSgd | DpFtrl | GaussianUpdate | RowSum | GaussianCounts | RandomisedLabels | NoMechanism,
                      Field(discriminator="kind")]
"""A ledger holds these, not epsilons. Events of a ledger stay readable: a later version may add kinds, and keys with a
default that says what was done before; it never takes a kind or a key away, nor gives one another meaning
(tests/fedround/privacy/test_recorded_ledger.py reads the bytes of every version)."""
