"""Small cohorts for the tests of aggregation: rows in memory, and every aggregation that there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from fedround.aggregation import rules, spec
from fedround.aggregation.engine import Aggregate, ArrayNumbers, Row, aggregate
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.spec import Aggregation

F = 2
N = 13                          # enough for the hungriest theorem: Bulyan's 4f+3

SETTINGS = {"f": F, "radius": 1.0}
RULES = [kind(**{name: value for name, value in SETTINGS.items() if name in kind.model_fields})
         for kind in get_args(get_args(rules.Rule)[0])]
"""One of every kind that can be agreed on."""

_nearest = spec.NearestNeighbourMixing(f=F)
ROBUST: dict[str, Aggregation] = {str(how): how for how in (
    *(Aggregation(rule=rule) for rule in RULES
      if not isinstance(rule, rules.WeightedMean | rules.CenteredClipping | rules.FLTrust)),
    _nearest >> rules.TrimmedMean(f=F), _nearest >> rules.CoordinateMedian(), _nearest >> rules.Krum(f=F),
    _nearest >> rules.GeometricMedian(), _nearest >> rules.SpectralFilter(f=F),
    spec.ArcClipping(f=F) >> _nearest >> rules.TrimmedMean(f=F))}
"""Those that promise something about F liars among N."""

EVERY: dict[str, Aggregation] = {str(how): how for how in (
    *(Aggregation(rule=rule) for rule in RULES), *ROBUST.values(), spec.Bucketing(size=2) >> rules.GeometricMedian(),
    spec.StaticClipping(norm=2.0) >> rules.WeightedMean(),
    spec.Gate(f=F) >> spec.NearestNeighbourMixing(f=F, near="inner_product") >> rules.TrimmedMean(f=F),
    spec.Gate(f=F) >> rules.SpectralFilter(f=F))}

COORDINATEWISE = [str(Aggregation(rule=rule)) for rule in (
    rules.CoordinateMedian(), rules.TrimmedMean(f=F), rules.WeightedMedian(), rules.WeightedTrimmedMean(f=F))]


def rows_of(x_ND: np.ndarray, weights: Sequence[float] | None = None, law: NoiseLaw | None = None) -> list[Row]:
    """Sites 'site-00', 'site-01', …"""
    return [Row(f"site-{n:02d}", 1.0 if weights is None else float(weights[n]), ArrayNumbers(x_D), law)
            for n, x_D in enumerate(np.ascontiguousarray(x_ND, dtype=np.float32))]


def result(how: Aggregation, x_ND: np.ndarray, weights: Sequence[float] | None = None, **options: object) -> Aggregate:
    """With a coordinator's own update along the ones, for the rule that needs it."""
    size = x_ND.shape[1]
    root = ArrayNumbers(np.ones(size, np.float32)) if isinstance(how.rule, rules.FLTrust) else None
    return aggregate(rows_of(x_ND, weights), how, size, seed=b"a plan", root=root, **options)      # type: ignore[arg-type]


def cohort(seed: int, rows: int = N, size: int = 40) -> np.ndarray:
    """Honest rows around a common direction."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(rows, size)) + 0.5).astype(np.float32)


def bearing_one_less(how: Aggregation) -> Aggregation:
    """The same for one liar less: what a cohort gets from which one liar is gone."""
    parts = how.model_dump()
    for part in (parts["gate"], *parts["mixing"], parts["rule"]):
        if part and "f" in part:
            part["f"] -= 1
    return Aggregation.model_validate(parts)
