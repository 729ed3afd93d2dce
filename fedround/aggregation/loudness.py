"""Limits on each site's noise and signal length, taken from the cohort, whatever a site declares.

Legend: K rows (one per site), D coordinates, sigma_k the declared noise, w_k the agreed weight.

A declaration must never make a site count more. Declared noise widens a site's bounds at the gate, and a declared signal
bound (clip norm times learning rate times steps) is far above what sites really learn in a round. Here the cohort limits
both:

* loudness. A site brings w_k sigma_k of noise into a weighted mean. Sites whose noise was calibrated to one epsilon bring
  about the same. What is more than `loudest` times the median is scaled down, update and law alike. At most f of K rows
  lie, so the median lies between two honest values.
  In mixing, inner products are measured in units of sigma_k, so a site that declares little noise is near to everybody. Less
  than the median is measured as the median (`units`): for what it declares, nobody is nearer than the middle site.
* signal. |u_k|^2 - sigma_k^2 D is |s_k|^2, up to sigma_k^2 sqrt(2 D). Of the 2f+3 most precise rows at most f lie. So the
  (f+3)-th smallest value is at most the largest honest one, and at least the third smallest honest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedround.aggregation.geometry import Geometry
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import Floats
from fedround.aggregation.spec import Gate


@dataclass(frozen=True, eq=False)
class Calmed:
    """The cohort after rows that are too loud were scaled down."""

    geometry: Geometry
    laws: tuple[NoiseLaw | None, ...]
    reasons: Mapping[int, str]
    """Of the rows that were scaled down."""


def calmed(gate: Gate, geometry: Geometry, laws: Sequence[NoiseLaw | None]) -> Calmed:
    """Rows whose noise counts more than `gate.loudest` times the median, scaled down to that. Rows without a law stay."""
    known = {row: geometry.share_K[row] * law.std for row, law in enumerate(laws) if law is not None}
    if not known:
        return Calmed(geometry, tuple(laws), {})
    most = gate.loudest * float(np.median(list(known.values())))
    factor_K = np.ones(len(geometry))
    for row, loud in known.items():
        factor_K[row] = min(1.0, most / loud)
    scaled = tuple(law if law is None or factor == 1 else NoiseLaw(law.signal_bound * factor, law.variance * factor ** 2)
                   for law, factor in zip(laws, factor_K.tolist(), strict=True))
    reasons = {row: f"its noise (declared louder, or not averaged over rounds yet) counts {gate.loudest * loud / most:.3g} "
                    f"times as much as the middle site's: scaled down to {gate.loudest:g}"
               for row, loud in known.items() if factor_K[row] < 1}
    return Calmed(geometry.scaled(factor_K) if reasons else geometry, scaled, reasons)


def units(geometry: Geometry, laws: Sequence[NoiseLaw | None]) -> Floats | None:
    """The noise that mixing measures inner products in, (K,); None unless every row has a law.

    Each row's own, but never so little that it counts less than the median. A liar that declared almost no noise would be
    everybody's nearest neighbour; so would one that declared more rows than it was agreed to have, which need less noise.
    """
    std_K = np.array([law.std for law in laws if law is not None])
    if len(std_K) < len(laws):
        return None
    loud_K = geometry.share_K * std_K
    units_K: Floats = np.maximum(loud_K, float(np.median(loud_K))) / geometry.share_K
    return units_K


def observed(gate: Gate, geometry: Geometry, laws: Mapping[int, NoiseLaw], coordinates: int) -> dict[int, NoiseLaw]:
    """The laws with signal bounds of at most `gate.slack` times what the cohort shows; a bound is never above the declared
    one.

    With fewer than 2f+3 laws the declared bounds stay.
    """
    fewest = 2 * gate.f + 3
    if len(laws) < fewest:
        return dict(laws)
    square_K = np.square(geometry.norms_K())
    precise = sorted(laws, key=lambda row: laws[row].variance)[:fewest]
    energies = sorted(float(square_K[row]) - laws[row].variance * coordinates for row in precise)
    unseen = math.sqrt(2 * coordinates) * float(np.mean([laws[row].variance for row in precise]))
    seen = gate.slack * math.sqrt(max(energies[gate.f + 2], unseen))
    return {row: NoiseLaw(min(seen, law.signal_bound), law.variance) for row, law in laws.items()}
