"""Whom a round asks: the members that the reputation policy leaves in, that are there, and that the selection draws."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fedround.agreement import Agreement
from fedround.records import Exclusion
from fedround.rounds.earlier import Earlier, standings
from fedround.rounds.reputation import exclusions, first_judged
from fedround.selection import Chance, selected


def first_that_counts(agreed: Agreement, number: int) -> int:
    """The oldest round that matters for round `number`: to the reputation policy, to a selection, or to a rule of
    training.
    """
    looks_back = max((one.looks_back for one in (agreed.selection, agreed.training.rule) if one is not None), default=0)
    return min(first_judged(agreed.reputation, number), max(1, number - looks_back))


def whom(agreed: Agreement, weights: Mapping[str, float], wanted: Collection[str], number: int, past: Sequence[Earlier],
         chance: Chance | None) -> tuple[tuple[str, ...], tuple[Exclusion, ...]]:
    """Whom round `number` asks, in the order of the members, and whom the reputation policy leaves out.

    weights: the agreed ones, of all members. wanted: those who can be asked. past: the rounds from `first_that_counts` to
    `number` - 1, in order. chance: of the selection; None: the question trains nothing, and asks all of `wanted`.
    Raises ContractError if the policy leaves fewer than the quorum.
    """
    excluded = exclusions(agreed, [*weights], number, past)
    out, there = {exclusion.site for exclusion in excluded}, set(wanted)
    left = tuple(name for name in weights if name not in out)
    asked = tuple(name for name in left if name in there)
    if agreed.selection is None or chance is None:
        return asked, excluded
    return selected(agreed.selection, asked, weights, standings(past, left), chance), excluded
