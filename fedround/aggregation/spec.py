"""How updates become one delta, as a value that a plan can name: gate, then mixing, then one rule.

::

    NearestNeighbourMixing(f=2) >> TrimmedMean(f=2)
    Gate(f=2) >> NearestNeighbourMixing(f=2) >> TrimmedMean(f=2)
    Bucketing(size=2) >> GeometricMedian()

In TOML: `rule = {name = "trimmed_mean", f = 2}`, `mixing = [{name = "nearest_neighbour_mixing", f = 2}]`,
`gate = {f = 2}`. `f` is how many sites may lie. What the parts compute stands beside their code; here and in `rules` stand
their names, their bounds, and the condition of each theorem, which is checked before any round begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self, overload

from pydantic import Field, model_validator

from fedround.aggregation.rules import (
    Bulyan,
    Krum,
    Majority,
    Part,
    Radius,
    Rule,
    SpectralFilter,
    TrimmedMean,
    WeightedMean,
)
from fedround.aggregation.weighing import Agnostic, Fairness, QFair, Quality
from fedround.errors import ToleranceError
from fedround.values import Value


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


# -- before a rule -----------------------------------------------------------------------------------------------------


class NearestNeighbourMixing(_Mixing, Majority):
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


class ArcClipping(_Mixing, Majority):
    """ARC: the k = floor(2 f (N-f) / N) longest updates are scaled down to the norm of the next longest (Allouah et al.
    2025, arXiv:2405.14432).
    """

    name: Literal["adaptive_clipping"] = "adaptive_clipping"
    _theorem: ClassVar[str] = "Allouah et al. 2025: N >= 2f+1"


Mixing = Annotated[NearestNeighbourMixing | Bucketing | StaticClipping | ArcClipping, Field(discriminator="name")]


class Gate(Majority, _Chained):
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

    def check_weights(self, weights: Sequence[float], quorum: int, oldest: float = 1.0) -> None:
        """Raises ToleranceError if a part's theorem does not hold for every cohort of so many of these sites.

        The worst one is that of the heaviest, who lie, with the lightest, who are honest. oldest: what an honest site's
        answer counts of its weight at least; a liar's may count all of it.
        """
        ordered = sorted(weights)
        for part in self.parts:
            f = min(getattr(part, "f", 0), quorum)
            honest = [weight * oldest for weight in ordered[:quorum - f]]
            part.check_weights([*honest, *ordered[len(ordered) - f:]])

    @property
    def parts(self) -> tuple[Part, ...]:
        """Gate, mixing and rule, in the order in which they work."""
        return tuple(part for part in (self.gate, *self.mixing, self.rule) if part is not None)

    @property
    def bears(self) -> int | None:
        """How many sites may lie: the smallest f of the parts that count liars; None if no part counts them."""
        return min((part.f for part in self.parts if isinstance(part, Majority | Krum | Bulyan)), default=None)

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
    return how.rule.uses_weights and not any(isinstance(mixing, Bucketing) for mixing in how.mixing)


def in_words(part: Part | QFair | Agnostic | Quality) -> str:
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
