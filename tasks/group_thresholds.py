"""Thresholds of their own for groups, chosen on the public test set, and what they change there. No site is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedround.errors import ContractError
from fedround.fairness_of_groups import COMPARES, Measure
from fedround.learning.tasks import check_numbers
from fedround.statistics import Thresholds
from infra.history import read_commit
from tasks.coordinator import Coordinator
from tasks.evaluate import public_scores
from validation.encoding import columns
from validation.group_gaps import shares
from validation.group_thresholds import Equalised, equalised

if TYPE_CHECKING:
    from validation.group_cells import Float64


@dataclass(frozen=True)
class Effect:
    """Decisions on the public test set."""

    accuracy: float
    selected: float
    """The share that gets a yes."""
    gaps: dict[Measure, float]
    """Between the groups of the attribute."""


@dataclass(frozen=True)
class Mitigation:
    """What the thresholds are, and decisions with one threshold for all and with them."""

    own: Thresholds
    before: Effect
    after: Effect


def mitigation(coordinator: Coordinator, run: str, number: int, column: str, measure: Equalised) -> Mitigation:
    """Thresholds for the groups of a watched attribute with which they have the same rate on the public test set.

    Raises ContractError if the attribute is not watched, there is no public test set, or it lacks the attribute;
    DivergedError if the model says no numbers.
    """
    groups = coordinator.federation.groups
    of = next((one.of for one in groups.watched if one.of.column == column), None) if groups is not None else None
    if groups is None or of is None:
        raise ContractError(f"the federation does not watch '{column}': name it in [groups] of the federation file")
    scored = public_scores(coordinator, read_commit(coordinator.store, run, number, coordinator.key).commit)
    if scored is None:
        raise ContractError("thresholds are chosen on public rows, and the coordinator has no public test set, or not the "
                            "whole model")
    check_numbers(scored)
    path = coordinator.folder / (coordinator.settings.test_set or "")
    value_N = columns([path], [column]).get(column)
    if value_N is None or len(value_N) != len(scored):
        raise ContractError(f"the public test set has no column '{column}', or rows that do not count")
    group_N, count = of.group(value_N), len(of.labels)
    at = equalised(scored["score"], scored["truth"], group_N, count, groups.threshold, measure)

    def effect(limit_N: float | Float64) -> Effect:
        yes_N = (scored["score"] >= limit_N).astype(np.int64)
        cells = np.bincount(np.ravel_multi_index((group_N, scored["truth"], yes_N), (count, 2, 2)), minlength=4 * count)
        large_G = np.bincount(group_N, minlength=count) >= groups.smallest
        rates = shares(cells.reshape(count, 2, 2)[large_G].astype(np.float64))
        gaps = {name: max(float(np.ptp(rates[rated])) for rated in compared) for name, compared in COMPARES.items()}
        return Effect(float((yes_N == scored["truth"]).mean()), float(yes_N.mean()), gaps)

    return Mitigation(Thresholds(of=of, at=at), effect(groups.threshold), effect(np.array(at)[group_N]))
