"""The rules that make one delta of many updates, as values: their names, their bounds, and the condition of each theorem.

What they compute stands beside their code (`linear`, `coordinate`, `spectral`). `spec` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from fedround.errors import ToleranceError
from fedround.values import Value

Liars: TypeAlias = Annotated[int, Field(ge=0, le=499, description="how many sites may lie")]

Radius = Annotated[float, Field(gt=0, le=1e9, description="a length that updates are clipped to")]

MAX_SUBSETS = 200_000
"""Rules that try every subset of honest sites refuse cohorts that have more of them."""


class Part(Value):
    """One part of an aggregation. `gate >> mixing >> … >> rule` makes an `Aggregation`."""

    uses_weights: ClassVar[bool] = False
    """Whether the sites' weights count."""
    is_blind: ClassVar[bool] = False
    """Whether it depends on the number of rows and their weights only, coordinate by coordinate, and on no inner product."""
    begins_with_last: ClassVar[bool] = False
    """Whether it begins with the last round's aggregate."""
    needs_root: ClassVar[bool] = False
    """Whether it compares updates with one that the coordinator trains on rows of its own."""

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


class Majority(Part):
    """A part that bears f liars among at least 2f+1 rows."""

    f: Liars
    _theorem: ClassVar[str] = "N >= 2f+1: nobody can tell a majority of liars from the honest"

    def fewest_rows(self) -> int:
        """As `Part`."""
        return 2 * self.f + 1


class WeightedMean(Part):
    """The mean with the weights of the federation file. One liar moves it as far as it likes."""

    uses_weights: ClassVar[bool] = True
    is_blind: ClassVar[bool] = True
    name: Literal["weighted_mean"] = "weighted_mean"


class CoordinateMedian(Part):
    """The median of every coordinate (Yin et al. 2018, arXiv:1803.01498)."""

    is_blind: ClassVar[bool] = True
    name: Literal["coordinate_median"] = "coordinate_median"


class TrimmedMean(Majority):
    """The mean of every coordinate without its f smallest and f largest values (Yin et al. 2018, arXiv:1803.01498)."""

    is_blind: ClassVar[bool] = True
    name: Literal["trimmed_mean"] = "trimmed_mean"
    _theorem: ClassVar[str] = "Yin et al. 2018: N >= 2f+1"


class WeightedMedian(Part):
    """The weighted median of every coordinate: the value that has at most half of the weight below it and at most half above;
    between two such values, their mean. It is within the honest values if less than half of the weight lies.
    """

    uses_weights: ClassVar[bool] = True
    is_blind: ClassVar[bool] = True
    name: Literal["weighted_median"] = "weighted_median"


class WeightedTrimmedMean(Majority):
    """The weighted mean of every coordinate without its smallest and its largest values: from each end as much weight is cut
    off as the f heaviest sites have, the last value in part. With equal weights it is `TrimmedMean`.

    Whoever f liars are, all that they weigh may lie at one end. So it is within the honest values if the f heaviest weigh
    less than half; `check_weights` stops where they do not.
    """

    uses_weights: ClassVar[bool] = True
    is_blind: ClassVar[bool] = True
    name: Literal["weighted_trimmed_mean"] = "weighted_trimmed_mean"
    _theorem: ClassVar[str] = "Yin et al. 2018, in weights: N >= 2f+1"

    def check_weights(self, weights: Sequence[float]) -> None:
        """As `Part`."""
        heavy, total = math.fsum(sorted(weights)[len(weights) - self.f:]), math.fsum(weights)
        if 2 * heavy >= total:
            raise ToleranceError(f"weighted_trimmed_mean with f={self.f}: the {self.f} heaviest of {len(weights)} sites have "
                                 f"{heavy / total:.0%} of the weight, and less than half may lie: agree on a smaller f, on "
                                 "smaller differences between the weights, or wait for more sites")


class Meamed(Majority):
    """The mean of the N-f values of every coordinate that are nearest to its median (Xie et al. 2018, arXiv:1802.10116)."""

    is_blind: ClassVar[bool] = True
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

    uses_weights: ClassVar[bool] = True
    name: Literal["geometric_median"] = "geometric_median"


class CenteredClipping(Part):
    """Steps from the last round's result towards every update, each at most `radius` long (Karimireddy et al. 2021,
    arXiv:2012.10333).
    """

    uses_weights: ClassVar[bool] = True
    begins_with_last: ClassVar[bool] = True
    name: Literal["centered_clipping"] = "centered_clipping"
    radius: Radius
    steps: Annotated[int, Field(ge=1, le=100)] = 3


class NormClipping(Part):
    """The weighted mean of updates scaled down to at most the median norm. A liar moves it by one such norm at most."""

    uses_weights: ClassVar[bool] = True
    name: Literal["norm_clipping"] = "norm_clipping"


class MinimumDiameter(Majority):
    """MDA: the mean of the N-f updates with the smallest largest distance (El Mhamdi et al. 2021, arXiv:2008.00742)."""

    name: Literal["minimum_diameter"] = "minimum_diameter"
    _theorem: ClassVar[str] = "El Mhamdi et al. 2021: N >= 2f+1"


class MinimumSpectrum(Majority):
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


class NearestToPivot(Majority):
    """MoNNA: the mean of the N-f updates nearest to a pivot, here the update with the smallest median distance to the
    others (Farhadkhani et al. 2023, arXiv:2210.00528; there the pivot is a peer's own update, which a coordinator lacks).
    """

    name: Literal["nearest_to_pivot"] = "nearest_to_pivot"
    _theorem: ClassVar[str] = "Farhadkhani et al. 2023: N >= 2f+1"


class SpectralFilter(Majority):
    """CAF: weights are taken from the updates that stick out along the covariance's first eigenvector until 2f of N are
    gone; the mean with the smallest spectrum on the way (Allouah et al. 2025, arXiv:2505.01874). Exact eigenvectors.
    """

    name: Literal["spectral_filter"] = "spectral_filter"
    _theorem: ClassVar[str] = "Allouah et al. 2025: N >= 2f+1"


class DivideAndConquer(Majority):
    """DnC: the mean without the f updates that stick out most along the first singular vector (Shejwalkar and
    Houmansadr 2021), on all coordinates instead of a sample of them.
    """

    name: Literal["divide_and_conquer"] = "divide_and_conquer"
    _theorem: ClassVar[str] = "Shejwalkar and Houmansadr 2021: N >= 2f+1"


class FLTrust(Part):
    """Updates scaled to the norm of the coordinator's own and weighted by the cosine to it, never below 0 (Cao et al. 2021,
    arXiv:2012.13995). Needs a root set: rows that the coordinator itself may train on.
    """

    needs_root: ClassVar[bool] = True
    name: Literal["fltrust"] = "fltrust"


Rule = Annotated[
    WeightedMean | CoordinateMedian | TrimmedMean | WeightedMedian | WeightedTrimmedMean | Meamed | Krum | MultiKrum | Bulyan
    | GeometricMedian | CenteredClipping | NormClipping | MinimumDiameter | MinimumSpectrum | NearestToPivot | SpectralFilter
    | DivideAndConquer | FLTrust,
    Field(discriminator="name")]
