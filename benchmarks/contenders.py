"""The aggregations that the breakdown table compares: values of `fedround.aggregation.spec`, by short names."""

from __future__ import annotations

from collections.abc import Callable

from fedround.aggregation.rules import (
    Bulyan,
    CenteredClipping,
    CoordinateMedian,
    DivideAndConquer,
    FLTrust,
    GeometricMedian,
    Krum,
    Meamed,
    MinimumDiameter,
    MinimumSpectrum,
    MultiKrum,
    NearestToPivot,
    NormClipping,
    SpectralFilter,
    TrimmedMean,
    WeightedMean,
)
from fedround.aggregation.spec import Aggregation, ArcClipping, Bucketing, Gate, NearestNeighbourMixing

Contender = Callable[[int, int, float], Aggregation]
"""From the liars to bear, the number of sites and the norm of an honest row (where a radius must be named) to a value."""

DEFAULT = "gate+nnm+trimmed"

CONTENDERS: dict[str, Contender] = {
    DEFAULT: lambda f, _, __: Gate(f=f) >> NearestNeighbourMixing(f=f, near="inner_product") >> TrimmedMean(f=f),
    "gate+nnm by distance+trimmed": lambda f, _, __: Gate(f=f) >> NearestNeighbourMixing(f=f) >> TrimmedMean(f=f),
    "gate+spectral": lambda f, _, __: Gate(f=f) >> SpectralFilter(f=f),
    "gate+mean": lambda f, _, __: Gate(f=f) >> WeightedMean(),
    "spectral": lambda f, _, __: Aggregation(rule=SpectralFilter(f=f)),
    "nnm+trimmed": lambda f, _, __: NearestNeighbourMixing(f=f) >> TrimmedMean(f=f),
    "arc+nnm+trimmed": lambda f, _, __: ArcClipping(f=f) >> NearestNeighbourMixing(f=f) >> TrimmedMean(f=f),
    "nnm+geometric": lambda f, _, __: NearestNeighbourMixing(f=f) >> GeometricMedian(),
    "nnm+clipping": lambda f, _, norm: NearestNeighbourMixing(f=f) >> CenteredClipping(radius=norm),
    "nnm+krum": lambda f, _, __: NearestNeighbourMixing(f=f) >> Krum(f=f),
    "dnc": lambda f, _, __: Aggregation(rule=DivideAndConquer(f=f)),
    "smea": lambda f, _, __: Aggregation(rule=MinimumSpectrum(f=f)),
    "mda": lambda f, _, __: Aggregation(rule=MinimumDiameter(f=f)),
    "monna": lambda f, _, __: Aggregation(rule=NearestToPivot(f=f)),
    "multi-krum": lambda f, _, __: Aggregation(rule=MultiKrum(f=f)),
    "geometric": lambda *_: Aggregation(rule=GeometricMedian()),
    "clipping": lambda _, __, norm: Aggregation(rule=CenteredClipping(radius=norm)),
    "norm-clipping": lambda *_: Aggregation(rule=NormClipping()),
    "median": lambda *_: Aggregation(rule=CoordinateMedian()),
    "trimmed": lambda f, _, __: Aggregation(rule=TrimmedMean(f=f)),
    "meamed": lambda f, _, __: Aggregation(rule=Meamed(f=f)),
    "bucket2+geometric": lambda *_: Bucketing(size=2) >> GeometricMedian(),
    "krum": lambda f, _, __: Aggregation(rule=Krum(f=f)),
    # The largest f that Bulyan's theorem still allows once liars were screened out.
    "bulyan": lambda f, sites, __: Aggregation(rule=Bulyan(f=min(f, (sites - f - 3) // 4))),
    "fltrust": lambda *_: Aggregation(rule=FLTrust()),
    "mean": lambda *_: Aggregation(rule=WeightedMean()),
}
