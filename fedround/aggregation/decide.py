"""Decides what an aggregation does with its points, from their inner products alone.

Legend: N admitted updates, P points, M of them whose numbers are read, K rows that the rule sees, S sampled coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedround.aggregation import coordinate
from fedround.aggregation.combine import Combine, as_picks
from fedround.aggregation.coordinate import Form
from fedround.aggregation.gate import admit
from fedround.aggregation.geometry import Geometry
from fedround.aggregation.linear import bulyan_selection, solve
from fedround.aggregation.loudness import calmed, units
from fedround.aggregation.mixing import mix
from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import Coordinates, Floats
from fedround.aggregation.rules import (
    Bulyan,
    Part,
)
from fedround.aggregation.spec import Aggregation, Mixing, NearestNeighbourMixing
from fedround.aggregation.verdict import Verdict

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, eq=False)
class RuleDecision:
    """One weighted sum of the points; or, if there is a form, the form of K combinations of them."""

    weights_KP: Floats
    """K = 1 without a form."""
    form: Form | None
    verdicts: tuple[Verdict, ...]
    """Of the gate, one per update."""
    reasons: tuple[str, ...]
    note: str = ""

    @property
    def sites(self) -> int:
        """N."""
        return len(self.verdicts)

    @property
    def weights_KM(self) -> Floats:
        """Over the M numbers that are read: all points but the origin, which adds nothing."""
        return np.delete(self.weights_KP, self.sites, axis=1)

    def needs(self) -> list[int]:
        """Which points must be read. For a sum: those with a weight. For a form: every update, because its distance to the
        result is measured, too.
        """
        if self.form is not None:
            return list(range(self.sites))
        return [int(m) for m in np.flatnonzero(self.weights_KM[0])]

    def work(self, numbers: Sequence[int], *, measures: bool) -> Combine:
        """What computes the result from these of the numbers."""
        return Combine(self.weights_KM[:, numbers], self.form, measures)

    def influence(self, sample_NS: Coordinates) -> Floats:
        """Each update's share of the result, (N,): its weight; under a form the mean over the sample."""
        weights_KN = self.weights_KP[:, :self.sites]
        if self.form is None:
            own_N: Floats = weights_KN[0]
            return own_N
        share_N: Floats = coordinate.shares(self.form, (weights_KN @ sample_NS).astype(np.float32)) @ weights_KN
        return share_N


@dataclass(frozen=True, eq=False)
class Composition:
    """How the delta is made of the updates: what stays as it was decided if some of them are thought away."""

    sites: tuple[str, ...]
    """Whose updates, in the order of the columns."""
    weights_KN: Floats
    form: Form | None

    def shares(self, x_NC: Coordinates) -> Floats:
        """The weight of each update in each coordinate of the delta, (N, C). x_NC: the updates there.

        They add up to one; to less where the rule clips, or where it adds something of the coordinator's own.
        """
        if self.form is None:
            return np.broadcast_to(self.weights_KN[0][:, None], x_NC.shape)
        picks = as_picks(self.weights_KN)
        y_KC = (self.weights_KN @ x_NC).astype(np.float32) if picks is None else x_NC[picks]
        share_NC: Floats = self.weights_KN.T @ coordinate.shares_of_each(self.form, y_KC)
        return share_NC


def decide(how: Aggregation, geometry: Geometry, laws: Sequence[NoiseLaw | None], coordinates: int, seed: bytes,
           gone: int = 0) -> RuleDecision:
    """Apply gate, mixing and rule. Liars that are already left out reduce the f of the next parts: those left out before any
    arithmetic (`gone`), and those that the gate left out.

    Raises ToleranceError, naming the theorem, if too few rows are left for a part.
    """
    verdicts, reasons, note = (Verdict.USED,) * geometry.sites, ("",) * geometry.sites, ""
    if how.gate is not None:
        calm = calmed(how.gate, geometry, laws)
        admission = admit(_bearing(how.gate, gone), calm.geometry, calm.laws, coordinates)
        verdicts, note, gone = admission.verdicts, admission.note, gone + admission.liars
        reasons = tuple("; ".join(filter(None, (calm.reasons.get(n), said))) for n, said in enumerate(admission.reasons))
        stay = [n for n, verdict in enumerate(verdicts) if verdict is Verdict.USED]
        geometry, laws = calm.geometry.only(stay), [calm.laws[n] for n in stay]
        if not admission.judged and any(map(_needs_a_gate, how.mixing)):
            how = how.model_copy(update={"mixing": tuple(map(_by_distance, how.mixing))})
            note += "; so nearest neighbours are those by distance"
    std_K = None if how.gate is None else units(geometry, laws)
    for mixing in how.mixing:
        geometry, std_K = mix(_bearing(mixing, gone), geometry, seed, std_K), None
    rule = _bearing(how.rule, gone)
    rule.check(len(geometry))
    if isinstance(rule, Bulyan):
        geometry = geometry.only(bulyan_selection(geometry, rule.f))
    if isinstance(rule, coordinate.CoordinateRule):
        return RuleDecision(geometry.combos_KP, coordinate.form_of(rule, geometry.share_K), verdicts, reasons, note)
    return RuleDecision(solve(rule, geometry)[None], None, verdicts, reasons, note)


def is_blind(how: Aggregation) -> bool:
    """Whether the decision depends only on the number of rows and their weights, not on inner products."""
    return how.gate is None and not how.mixing and how.rule.is_blind


def _needs_a_gate(mixing: Mixing) -> bool:
    """Neighbours by inner product are safe only if the gate has judged the norms."""
    return isinstance(mixing, NearestNeighbourMixing) and mixing.near == "inner_product"


def _by_distance(mixing: Mixing) -> Mixing:
    return mixing.model_copy(update={"near": "distance"}) if _needs_a_gate(mixing) else mixing


def _bearing(part: P, fewer: int) -> P:
    """The same part with f reduced by the number of liars that are gone."""
    f = getattr(part, "f", None)
    return part if f is None else part.model_copy(update={"f": max(0, f - fewer)})
