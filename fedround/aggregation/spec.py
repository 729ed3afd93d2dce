"""How updates become one delta, as a value that a plan can name: gate, then mixing, then one rule.

::

    NearestNeighbourMixing(f=2) >> TrimmedMean(f=2)
    Gate(f=2) >> NearestNeighbourMixing(f=2) >> TrimmedMean(f=2)
    Bucketing(size=2) >> GeometricMedian()

In TOML: `rule = {name = "trimmed_mean", f = 2}`, `mixing = [{name = "nearest_neighbour_mixing", f = 2}]`,
`gate = {f = 2}`. `f` is how many sites may lie. What the parts compute stands beside their code; here stand their
names, their bounds, and the condition of each theorem, which is checked before any round begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self, TypeAlias, overload

from pydantic import Field, model_validator

from fedround.errors import ToleranceError
from fedround.values import Value

Liars: TypeAlias = Annotated[int, Field(ge=0, le=499, description="how many sites may lie")]

Radius = Annotated[float, Field(gt=0, le=1e9, description="a length that updates are clipped to")]

MAX_SUBSETS = 200_000
"""Rules that try every subset of honest sites refuse cohorts that have more of them."""


class Part(Value):
    """One part of an aggregation. `gate >> mixing >> … >> rule` makes an `Aggregation`."""

    def fewest_rows(self) -> int:
        """The smallest cohort for which the part's theorem holds."""
        return 1

    def check(self, rows: int) -> None:
        """Raises ToleranceError, naming the theorem, if it does not hold for a cohort of this size."""
        if rows < self.fewest_rows():
            raise ToleranceError(
                f"{getattr(self, 'name', 'gate')} with f={getattr(self, 'f', 0)} needs at least {self.fewest_rows()} "
                f"updates ({self._theorem}), and may get {rows}: agree on a smaller f, or wait for more sites")

    def check_weights(self, weights: Sequence[float]) -> None:
        """Raises ToleranceError, naming the theorem, if it does not hold for sites of these weights."""

    _theorem: ClassVar[str] = "one update"


class _Chained:
    """The left operand of `>>`."""

    def _chain(self) -> Prelude:
        raise NotImplementedError

    @overload
    def __rshift__(self, then: Mixing) -> Prelude: ...

    @overload
    def __rshift__(self, then: Rule) -> Aggregation: ...

    def __rshift__(self, then: Mixing | Rule) -> Prelude | Aggregation:
        chain = self._chain()
        if isinstance(then, _Mixing):
            return Prelude(chain.gate, (*chain.mixing, then))
        return Aggregation(gate=chain.gate, mixing=chain.mixing, rule=then)


class _Mixing(Part, _Chained):
    """A part that changes the rows before the rule sees them."""

    def _chain(self) -> Prelude:
        return Prelude(mixing=(self,))     # type: ignore[arg-type]


class _Majority(Part):
    """A part that bears f liars among at least 2f+1 rows."""

    f: Liars
    _theorem: ClassVar[str] = "N >= 2f+1: nobody can tell a majority of liars from the honest"

    def fewest_rows(self) -> int:
        """As `Part`."""
        return 2 * self.f + 1


# -- rules -------------------------------------------------------------------------------------------------------------


class WeightedMean(Part):
    """The mean with the weights of the federation file. One liar moves it as far as it likes."""

    name: Literal["weighted_mean"] = "weighted_mean"


class CoordinateMedian(Part):
    """The median of every coordinate (Yin et al. 2018, arXiv:1803.01498)."""

    name: Literal["coordinate_median"] = "coordinate_median"


class TrimmedMean(_Majority):
    """The mean of every coordinate without its f smallest and f largest values (Yin et al. 2018, arXiv:1803.01498)."""

    name: Literal["trimmed_mean"] = "trimmed_mean"
    _theorem: ClassVar[str] = "Yin et al. 2018: N >= 2f+1"


class WeightedMedian(Part):
    """The weighted median of every coordinate: the value that has at most half of the weight below it and at most half above;
    between two such values, their mean. It is within the honest values if less than half of the weight lies.
    """

    name: Literal["weighted_median"] = "weighted_median"


class WeightedTrimmedMean(_Majority):
    """The weighted mean of every coordinate without its smallest and its largest values: from each end as much weight is cut
    off as the f heaviest sites have, the last value in part. With equal weights it is `TrimmedMean`.

    Whoever f liars are, all that they weigh may lie at one end. So it is within the honest values if the f heaviest weigh
    less than half; `check_weights` stops where they do not.
    """

    name: Literal["weighted_trimmed_mean"] = "weighted_trimmed_mean"
    _theorem: ClassVar[str] = "Yin et al. 2018, in weights: N >= 2f+1"

    def check_weights(self, weights: Sequence[float]) -> None:
        """As `Part`."""
        heavy, total = math.fsum(sorted(weights)[len(weights) - self.f:]), math.fsum(weights)
        if 2 * heavy >= total:
            raise ToleranceError(f"weighted_trimmed_mean with f={self.f}: the {self.f} heaviest of {len(weights)} sites have "
                                 f"{heavy / total:.0%} of the weight, and less than half may lie: agree on a smaller f, on "
                                 "smaller differences between the weights, or wait for more sites")


class Meamed(_Majority):
    """The mean of the N-f values of every coordinate that are nearest to its median (Xie et al. 2018, arXiv:1802.10116)."""

    name: Literal["meamed"] = "meamed"
    _theorem: ClassVar[str] = "Xie et al. 2018: N >= 2f+1"


class Krum(Part):
    """The one update with the nearest N-f-2 neighbours (Blanchard et al. 2017, arXiv:1703.02757)."""

    name: Literal["krum"] = "krum"
    f: Liars
    _theorem: ClassVar[str] = "Blanchard et al. 2017: N >= 2f+3"

    def fewest_rows(self) -> int:
        """As `Part`."""
        return 2 * self.f + 3


class MultiKrum(Krum):
    """The mean of the N-f updates with the best Krum scores (Blanchard et al. 2017, arXiv:1703.02757)."""

    name: Literal["multi_krum"] = "multi_krum"          # type: ignore[assignment]


class Bulyan(Part):
    """N-2f updates chosen by Krum one after the other, then per coordinate the mean of those nearest to their median
    (El Mhamdi et al. 2018, arXiv:1802.07927).
    """

    name: Literal["bulyan"] = "bulyan"
    f: Liars
    _theorem: ClassVar[str] = "El Mhamdi et al. 2018: N >= 4f+3"

    def fewest_rows(self) -> int:
        """As `Part`."""
        return 4 * self.f + 3


class GeometricMedian(Part):
    """The point with the smallest weighted sum of distances to all updates, converged (RFA: Pillutla et al. 2022,
    arXiv:1912.13445). It tolerates liars with less than half of the weight.
    """

    name: Literal["geometric_median"] = "geometric_median"


class CenteredClipping(Part):
    """Steps from the last round's result towards every update, each at most `radius` long (Karimireddy et al. 2021,
    arXiv:2012.10333).
    """

    name: Literal["centered_clipping"] = "centered_clipping"
    radius: Radius
    steps: Annotated[int, Field(ge=1, le=100)] = 3


class NormClipping(Part):
    """The weighted mean of updates scaled down to at most the median norm. A liar moves it by one such norm at most."""

    name: Literal["norm_clipping"] = "norm_clipping"


class MinimumDiameter(_Majority):
    """MDA: the mean of the N-f updates with the smallest largest distance (El Mhamdi et al. 2021, arXiv:2008.00742)."""

    name: Literal["minimum_diameter"] = "minimum_diameter"
    _theorem: ClassVar[str] = "El Mhamdi et al. 2021: N >= 2f+1"


class MinimumSpectrum(_Majority):
    """SMEA: the mean of the N-f updates whose covariance has the smallest largest eigenvalue (Allouah et al. 2023,
    arXiv:2302.04787). Tries every subset: small cohorts only.
    """

    name: Literal["minimum_spectrum"] = "minimum_spectrum"
    _theorem: ClassVar[str] = "Allouah et al. 2023: N >= 2f+1"

    def check(self, rows: int) -> None:
        """As `Part`; and that the subsets can be tried."""
        super().check(rows)
        if (subsets := math.comb(rows, self.f)) > MAX_SUBSETS:
            raise ToleranceError(f"minimum_spectrum with f={self.f} would try {subsets} subsets of {rows} updates, and "
                                 f"{MAX_SUBSETS} are the most: take 'spectral_filter', which needs no subsets")


class NearestToPivot(_Majority):
    """MoNNA: the mean of the N-f updates nearest to a pivot, here the update with the smallest median distance to the
    others (Farhadkhani et al. 2023, arXiv:2210.00528; there the pivot is a peer's own update, which a coordinator lacks).
    """

    name: Literal["nearest_to_pivot"] = "nearest_to_pivot"
    _theorem: ClassVar[str] = "Farhadkhani et al. 2023: N >= 2f+1"


class SpectralFilter(_Majority):
    """CAF: weights are taken from the updates that stick out along the covariance's first eigenvector until 2f of N are
    gone; the mean with the smallest spectrum on the way (Allouah et al. 2025, arXiv:2505.01874). Exact eigenvectors.
    """

    name: Literal["spectral_filter"] = "spectral_filter"
    _theorem: ClassVar[str] = "Allouah et al. 2025: N >= 2f+1"


class DivideAndConquer(_Majority):
    """DnC: the mean without the f updates that stick out most along the first singular vector (Shejwalkar and
    Houmansadr 2021), on all coordinates instead of a sample of them.
    """

    name: Literal["divide_and_conquer"] = "divide_and_conquer"
    _theorem: ClassVar[str] = "Shejwalkar and Houmansadr 2021: N >= 2f+1"


class FLTrust(Part):
    """Updates scaled to the norm of the coordinator's own and weighted by the cosine to it, never below 0 (Cao et al. 2021,
    arXiv:2012.13995). Needs a root set: rows that the coordinator itself may train on.
    """

    name: Literal["fltrust"] = "fltrust"


Rule = Annotated[
    WeightedMean | CoordinateMedian | TrimmedMean | WeightedMedian | WeightedTrimmedMean | Meamed | Krum | MultiKrum | Bulyan
    | GeometricMedian | CenteredClipping | NormClipping | MinimumDiameter | MinimumSpectrum | NearestToPivot | SpectralFilter
    | DivideAndConquer | FLTrust,
    Field(discriminator="name")]


# -- before a rule -----------------------------------------------------------------------------------------------------


class NearestNeighbourMixing(_Mixing, _Majority):
    """NNM: every update is replaced by the weighted mean of its N-f nearest, itself among them (Allouah et al. 2023,
    arXiv:2302.01772; there all weights are the same).

    near: by distance, as published, or by inner product in units of the other's noise: as if all updates were equally long.
    Where updates are mostly noise, a liar with a shorter update is nearer to everybody than the honest are to each other.
    Inner products do not see that. They need a gate before them: it bounds the norms, and without it a long liar could be
    everybody's neighbour.
    """

    name: Literal["nearest_neighbour_mixing"] = "nearest_neighbour_mixing"
    near: Literal["distance", "inner_product"] = "distance"
    _theorem: ClassVar[str] = "Allouah et al. 2023: N >= 2f+1"


class Bucketing(_Mixing):
    """The means of buckets of `size` updates, dealt in an order drawn from the plan's digest (Karimireddy et al. 2022,
    arXiv:2006.09365). One liar spoils a bucket: the rule behind it must bear f liars among N/size.
    """

    name: Literal["bucketing"] = "bucketing"
    size: Annotated[int, Field(ge=1, le=100)]


class StaticClipping(_Mixing):
    """Updates scaled down to at most `norm`."""

    name: Literal["static_clipping"] = "static_clipping"
    norm: Radius


class ArcClipping(_Mixing, _Majority):
    """ARC: the k = floor(2 f (N-f) / N) longest updates are scaled down to the norm of the next longest (Allouah et al.
    2025, arXiv:2405.14432).
    """

    name: Literal["adaptive_clipping"] = "adaptive_clipping"
    _theorem: ClassVar[str] = "Allouah et al. 2025: N >= 2f+1"


Mixing = Annotated[NearestNeighbourMixing | Bucketing | StaticClipping | ArcClipping, Field(discriminator="name")]


class Gate(_Majority, _Chained):
    """Leaves out up to f updates whose norms and inner products cannot come from the noise that the sites declared.

    It is used if updates declare the law of their noise. If none does, it lets all updates through and says so. The liars
    that it surely left out count against the f of what follows. Before it judges, updates whose declared noise counts too
    much are scaled down, and signal bounds are lowered to what the cohort shows (`fedround.aggregation.loudness`).
    """

    _theorem: ClassVar[str] = "the gate trusts a majority: N >= 2f+1"
    sigmas: Annotated[float, Field(ge=3, le=10, description="how far from its law an honest site may fall")] = 4.0
    loudest: Annotated[float, Field(ge=1, le=100, description="how many times the median a site's noise may count")] = 1.5
    slack: Annotated[float, Field(ge=1, le=100, description="how many times what the cohort shows a signal may be")] = 1.25

    def _chain(self) -> Prelude:
        return Prelude(gate=self)


# -- how much a site counts --------------------------------------------------------------------------------------------

Cap = Annotated[float, Field(gt=1, le=100, description="how far a weight may leave the agreed one, as a ratio")]


class QFair(Value):
    """q-FFL: a site counts its agreed weight times (its loss / the median loss)^q (Li et al. 2020, arXiv:1905.10497).

    The model is fitted more to sites that it fits badly. Here the losses change only the weights. The rule and the server's
    optimizer decide how long the step is. Losses are read in the noised counts of scores that sites send anyway, so they
    cost no privacy. A site can lie about its loss: it then counts at most `cap` times what was agreed. A minority of liars
    cannot control the median.
    """

    name: Literal["q_ffl"] = "q_ffl"
    q: Annotated[float, Field(gt=0, le=10)]
    cap: Cap


class Agnostic(Value):
    """Agnostic federated learning: weights climb along the sites' losses, round after round, to the mixture of sites that the
    model fits worst (Mohri et al. 2019, arXiv:1902.00146), among the mixtures in which no site counts more than `cap` times,
    or less than 1/cap of, what was agreed.

    rate: how far a share of the whole moves for a loss of 1. What holds for `QFair`'s losses and liars holds here.
    """

    name: Literal["afl"] = "afl"
    rate: Annotated[float, Field(gt=0, le=10)]
    cap: Cap


Fairness = Annotated[QFair | Agnostic, Field(discriminator="name")]


class Aggregation(Value):
    """A whole aggregation: what the federation file agrees on, and what every plan names.

    history: beta of the coordinator's moving average of each site's uploads, on which gate, mixing and rule work
    (Karimireddy et al. 2021): 0 is none. It is post-processing and costs no privacy.
    fairness: what the sites' weights follow instead of staying as agreed; with rules that use weights only.
    """

    gate: Gate | None = None
    mixing: tuple[Mixing, ...] = ()
    rule: Rule
    history: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fairness: Fairness | None = None

    @model_validator(mode="after")
    def _check_parts_fit(self) -> Self:
        if self.gate is None and any(getattr(mixing, "near", "") == "inner_product" for mixing in self.mixing):
            raise ValueError("nearest_neighbour_mixing with near = 'inner_product' needs a gate before it, which bounds the "
                             "norms: without one a long liar could be everybody's neighbour")
        if self.fairness is not None and not uses_weights(self):
            parts = " >> ".join(map(in_words, (*self.mixing, self.rule)))
            raise ValueError(f"fairness weighs the sites, and {parts} counts every site the same: agree on weighted_mean, "
                             "weighted_median, weighted_trimmed_mean, norm_clipping, geometric_median or centered_clipping "
                             "without bucketing before it, or on nearest_neighbour_mixing")
        return self

    def check(self, rows: int) -> None:
        """Raises ToleranceError if a part's theorem does not hold when `rows` updates are admitted."""
        if self.gate is not None:
            self.gate.check(rows)
        for mixing in self.mixing:
            mixing.check(rows)
            if isinstance(mixing, Bucketing):
                rows = math.ceil(rows / mixing.size)
        self.rule.check(rows)

    def check_weights(self, weights: Sequence[float], quorum: int) -> None:
        """Raises ToleranceError if a part's theorem does not hold for every cohort of so many of these sites.

        The worst one is that of the heaviest with the lightest.
        """
        ordered = sorted(weights)
        for part in self.parts:
            f = min(getattr(part, "f", 0), quorum)
            part.check_weights([*ordered[:quorum - f], *ordered[len(ordered) - f:]])

    @property
    def parts(self) -> tuple[Part, ...]:
        """Gate, mixing and rule, in the order in which they work."""
        return tuple(part for part in (self.gate, *self.mixing, self.rule) if part is not None)

    @property
    def bears(self) -> int | None:
        """How many sites may lie: the smallest f of the parts that count liars; None if no part counts them."""
        return min((part.f for part in self.parts if isinstance(part, _Majority | Krum | Bulyan)), default=None)

    def fewest_used(self, quorum: int) -> int:
        """How many updates of a quorum surely remain: at the gate each liar can cause the exclusion of at most one honest
        site (`gate`).
        """
        return max(1, quorum - 2 * (self.bears or 0))

    def check_gone(self, gone: int, rows: int) -> None:
        """Raises ToleranceError if more rows of a cohort than may lie cannot be honest, or all of them cannot."""
        most = rows - 1 if self.bears is None else self.bears
        if gone > most:
            raise ToleranceError(f"{gone} of {rows} updates are not finite, or far longer or shorter than all others, and at "
                                 f"most {most} may lie: look for what went wrong at these sites, or agree on a larger f")

    def __str__(self) -> str:
        history = f", on a moving average with beta {self.history:g}" if self.history else ""
        fairness = "" if self.fairness is None else f", weighted by {in_words(self.fairness)}"
        return " >> ".join(map(in_words, self.parts)) + history + fairness


def uses_weights(how: Aggregation) -> bool:
    """Whether the weights of the sites count: nearest-neighbour mixing and some rules know them, bucketing forgets them."""
    if any(isinstance(mixing, NearestNeighbourMixing) for mixing in how.mixing):
        return True
    counting = isinstance(how.rule, WeightedMean | WeightedMedian | WeightedTrimmedMean | NormClipping | GeometricMedian
                          | CenteredClipping)
    return counting and not any(isinstance(mixing, Bucketing) for mixing in how.mixing)


def in_words(part: Part | QFair | Agnostic) -> str:
    """`trimmed_mean(f=2)`."""
    settings = ", ".join(f"{key}={value}" for key, value in part.model_dump(exclude={"name"}).items())
    return f"{getattr(part, 'name', 'gate')}({settings})" if settings else str(getattr(part, "name", "gate"))


def default_aggregation(cohort: int, *, noise_is_declared: bool, rounds: int) -> Aggregation:
    """The aggregation of a federation that does not name one: gate, nearest-neighbour mixing and trimmed mean if the noise
    is declared, the spectral filter if it is not; against f = floor((cohort-1)/4) liars.

    cohort: the fewest updates that a round may have, its quorum. rounds: how long a run is to be; long runs get a longer
    memory. With fewer than five sites f is 0, and the weighted mean remains.
    """
    f = (cohort - 1) // 4
    if f == 0:
        return Aggregation(rule=WeightedMean())
    if not noise_is_declared:
        return Aggregation(rule=SpectralFilter(f=f))
    robust = Gate(f=f) >> NearestNeighbourMixing(f=f, near="inner_product") >> TrimmedMean(f=f)
    return robust.model_copy(update={"history": 0.9 if rounds >= 50 else 0.5})


@dataclass(frozen=True)
class Prelude(_Chained):
    """Gate and mixing without a rule yet: the intermediate value of `>>`."""

    gate: Gate | None = None
    mixing: tuple[Mixing, ...] = ()

    def _chain(self) -> Prelude:
        return self
