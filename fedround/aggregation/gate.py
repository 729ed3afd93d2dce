"""The gate: finds updates that cannot be honest, given the noise that every site declared.

Legend: K rows (one per site), D coordinates. u = s + n is a site's upload, its signal and its noise.

Differential privacy hides liars: honest updates lie sigma sqrt(2 D) apart, far more than their signals differ, and a rule of
distances lets colluders shift a model by as much. But the noise has a known law, and honest noises have nothing in
common. With |s_i| <= S_i and n_i ~ N(0, sigma_i^2 I_D), independent between sites, at k `sigmas`:

* the norm: |n|^2 / sigma^2 is chi-squared with D degrees of freedom (Laurent and Massart 2000, lemma 1), so that
  sigma sqrt(D - k sqrt(2D)) - S <= |u| <= sigma sqrt(D + k sqrt(2D) + k^2) + S. The lower side is an audit: a site that
  forgot its noise is too short. It works only if the noise is larger than the largest allowed signal (`audible`).
* every pair: <u_i, u_j> - <s_i, s_j> = <s_i, n_j> + <n_i, s_j> + <n_i, n_j> is sub-gamma with variance at most
  v = sigma_i^2 S_j^2 + sigma_j^2 S_i^2 + sigma_i^2 sigma_j^2 D and scale c = sigma_i sigma_j, so that
  |<u_i, u_j>| <= S_i S_j + k sqrt(v) + c k^2 / 2 (Boucheron, Lugosi and Massart 2013, section 2.4).

Each side of each bound fails for honest sites with probability at most exp(-k^2/2), and in practice about as often as a
normal variable exceeds k sigmas. The pair bound assumes that a site's signal is independent of both noises. This is true for
one step. Over several steps, a site's later gradients depend on its own earlier noise; with a moving average, on the noise
of all sites. This changes <s_i, n_j> by a second-order term, which in practice the slack in S_i S_j exceeds by far (measured
in the tests).

Colluders can still have about (k sqrt(D))^(1/2) sigma in common, instead of sigma sqrt(2D). The rule after the gate must
bear this, and a single liar of honest length. A site that declares more noise than others has wider bounds, but counts less:
`loudness` scales it down first. S_i is the declared bound, or what the cohort shows, if that is less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedround.aggregation.cover import disjoint_conflicts, in_every_cover, is_coverable, without
from fedround.aggregation.geometry import Geometry
from fedround.aggregation.loudness import observed
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import Floats
from fedround.aggregation.spec import Gate
from fedround.aggregation.verdict import Verdict

T = TypeVar("T")


@dataclass(frozen=True)
class Admission:
    """Which rows the gate lets through, and why not the others; one entry per row."""

    verdicts: tuple[Verdict, ...]
    reasons: tuple[str, ...]
    """What the gate finds wrong with a row, even if it lets the row through; empty if nothing."""
    liars: int
    """How many liars are surely among the rows left out. The rest of the aggregation must bear that many fewer."""
    judged: bool = False
    """Whether every row that is let through has the length that its law allows. If not, what follows must not rely on it:
    nearest neighbours by inner product become nearest neighbours by distance."""
    note: str = ""
    """Why the gate did less than it was asked to; empty if it did all."""


def admit(gate: Gate, geometry: Geometry, laws: Sequence[NoiseLaw | None], coordinates: int) -> Admission:
    """Judge every row by the laws that the sites declared.

    The gate leaves out rows that surely lie: rows that are too short (NOISE) or too long (GATE) for their law; rows without
    a law where others have one (NOISE); and rows that must be liars, because otherwise more than f liars would be needed to
    explain which pairs break their bound (GATE). Each pair that still breaks its bound has at least one liar, and it is not
    known which. So both rows of the pair are left out (GATE). Pairs are taken worst first, without a row in common.

    So where u rows surely lie and m pairs go, N-u-2m rows remain, of which at most f-u-m lie: never a larger share than
    before. To exclude an honest site this way costs the attackers one liar. Of an odd group of colluders one remains, and it
    is among those f-u-m.

    At most f sites lie, and honest sites keep their law. So if more than f rows do not fit their law, or no f rows explain
    the pairs, the laws are wrong (because of other training code, for example). That test then leaves no row out, and `note`
    says so. Liars alone cannot cause this.

    laws: one per row, None where a site declared none. coordinates: D.
    Raises ToleranceError, naming the theorem, if the cohort is too small.
    """
    gate.check(len(geometry))
    if all(law is None for law in laws):
        return _nobody(geometry, {}, "no site declared the law of its noise: nobody was judged")
    declared = {row: law for row, law in enumerate(laws) if law is not None}
    seen = observed(gate, geometry, declared, coordinates)
    unfit = _unfit(gate, geometry, seen, coordinates)
    left_out = {row: verdict for row, (verdict, _) in unfit.items()}
    reasons = {row: reason for row, (_, reason) in unfit.items()}
    if len(unfit) > gate.f:
        return _nobody(geometry, reasons, f"{len(unfit)} of {len(geometry)} updates do not fit their declared noise, and "
                                          f"at most {gate.f} may lie: the declared laws are wrong, and nobody was left out")

    fit = {row: law for row, law in seen.items() if row not in unfit}
    notes, may_lie = [], gate.f - len(unfit)
    excess_KK = _excess(gate, geometry, fit, coordinates)
    if not is_coverable(excess_KK > 0, may_lie):
        notes.append(f"to explain which updates go together, more than {may_lie} would have to lie: the declared laws are "
                     "wrong, and nobody was left out for that")
        excess_KK = np.zeros_like(excess_KK)
    surely = in_every_cover(excess_KK > 0, may_lie)
    pairs = disjoint_conflicts(np.where(without(excess_KK > 0, surely), excess_KK, 0))
    for row in surely:
        left_out[row] = Verdict.GATE
        reasons[row] = (f"goes with or against {np.count_nonzero(excess_KK[row])} others more than independent noise can, "
                        "and without it too few may lie to explain that")
    for row in itertools.chain(*pairs):
        left_out[row] = Verdict.GATE
        reasons[row] = "goes with or against another more than independent noise can: one of the two lies, both are left out"

    inaudible = sum(not audible(law, coordinates, gate.sigmas) for row, law in declared.items() if row in fit)
    if inaudible:
        notes.append(f"the noise of {inaudible} of {len(geometry)} updates is soft beside what their signal may be: whether "
                     "it is there was not audited")
    return Admission(_in_order(geometry, left_out, Verdict.USED), _in_order(geometry, reasons, ""),
                     liars=len(unfit) + len(surely) + len(pairs), judged=True, note="; ".join(notes))


def norm_bounds(law: NoiseLaw, coordinates: int, sigmas: float) -> tuple[float, float]:
    """How short and how long an honest upload may be."""
    spread = sigmas * math.sqrt(2 * coordinates)
    shortest = law.std * math.sqrt(max(0.0, coordinates - spread))
    longest = law.std * math.sqrt(coordinates + spread + sigmas ** 2)
    return max(0.0, shortest - law.signal_bound), longest + law.signal_bound


def fits_its_law(norm: float, law: NoiseLaw | None, gate: Gate | None, coordinates: int) -> bool:
    """Whether an upload of this norm may be judged as part of an average. An average hides what is wrong with a single
    upload.
    """
    if gate is None or law is None:
        return True
    shortest, longest = norm_bounds(law, coordinates, gate.sigmas)
    return shortest <= norm <= longest


def chance(gate: Gate, rows: int) -> float:
    """How likely the gate finds fault with an honest site in a round of so many sites, at most: two sides of its norm bound
    and of the bound of each of its pairs, exp(-k^2/2) each.
    """
    return min(1.0, 2 * rows * math.exp(-gate.sigmas ** 2 / 2))


def pair_bounds(laws: Sequence[NoiseLaw], coordinates: int, sigmas: float) -> Floats:
    """How large the inner product of two honest uploads may be, up to its sign, (K, K)."""
    signal_K = np.array([law.signal_bound for law in laws])
    std_K = np.array([law.std for law in laws])
    cross_KK = np.outer(std_K, signal_K)
    scale_KK = np.outer(std_K, std_K)
    variance_KK = cross_KK ** 2 + cross_KK.T ** 2 + scale_KK ** 2 * coordinates
    bounds_KK: Floats = np.outer(signal_K, signal_K) + sigmas * np.sqrt(variance_KK) + scale_KK * sigmas ** 2 / 2
    return bounds_KK


def audible(law: NoiseLaw, coordinates: int, sigmas: float) -> bool:
    """Whether an upload without its noise would always be too short: |u| <= S alone fails the lower bound."""
    return norm_bounds(law, coordinates, sigmas)[0] > law.signal_bound


def _unfit(gate: Gate, geometry: Geometry, laws: Mapping[int, NoiseLaw], coordinates: int) -> dict[int, tuple[Verdict, str]]:
    """Rows without a law, too short or too long for theirs: what they are to be called, and why."""
    unfit = {}
    for row, norm in enumerate(geometry.norms_K()):
        if row not in laws:
            unfit[row] = Verdict.NOISE, "declares no law of its noise"
            continue
        shortest, longest = norm_bounds(laws[row], coordinates, gate.sigmas)
        if norm < shortest:
            unfit[row] = Verdict.NOISE, f"too short for its declared noise: {norm:.3g}, at least {shortest:.3g} expected"
        elif norm > longest:
            unfit[row] = Verdict.GATE, f"too long for its declared noise: {norm:.3g}, at most {longest:.3g} expected"
    return unfit


def _excess(gate: Gate, geometry: Geometry, fit: dict[int, NoiseLaw], coordinates: int) -> Floats:
    """How many times its bound a pair's inner product is, (K, K); 0 for pairs within it, and for rows not in `fit`."""
    excess_KK = np.zeros((len(geometry), len(geometry)))
    rows = np.array(list(fit), dtype=int)
    products_KK = geometry.inner_products(geometry.origin_P)[np.ix_(rows, rows)]
    excess_KK[np.ix_(rows, rows)] = np.abs(products_KK) / pair_bounds(list(fit.values()), coordinates, gate.sigmas)
    np.fill_diagonal(excess_KK, 0)
    return np.where(excess_KK > 1, excess_KK, 0)


def _nobody(geometry: Geometry, reasons: Mapping[int, str], note: str) -> Admission:
    return Admission(_in_order(geometry, {}, Verdict.USED), _in_order(geometry, reasons, ""), liars=0, note=note)


def _in_order(geometry: Geometry, found: Mapping[int, T], otherwise: T) -> tuple[T, ...]:
    return tuple(found.get(row, otherwise) for row in range(len(geometry)))
