"""What simulated members add up where a federation agrees on `combine`: every site's numbers on the ring of a live secure
sum, added there. Without masks, which cancel in a live sum: so the sum is the same, bit for bit.

A member that is not asked in a round counts as one that dropped out of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedround import codec
from fedround.agreement import Agreement
from fedround.codec import Tensors, schema_of
from fedround.errors import ContractError, QuorumError, ToleranceError
from fedround.privacy.spec import Mechanism
from fedround.records import Question
from fedround.rounds import summed
from fedround.rounds.offer import offer
from fedround.rounds.summed import Read, UInt32, in_ring, layout, out_of, read
from fedround.secure_sums.groups import drawn
from fedround.simulation.sites import Sites
from fedround.terms import Terms, Together


@dataclass(frozen=True, eq=False)
class SumMade:
    """What came of a sum."""

    read: Read
    mechanisms: tuple[Mechanism, ...]
    """What each site was charged for."""
    total_GS: UInt32
    """What the ring holds when all of a group are added up; G = 1 without groups."""
    sent_bytes: int
    """By all sites; a live one also sends keys and shares, once for many rounds, and what takes its masks off."""


def terms_of(agreement: Agreement, units: Mapping[str, int]) -> Terms:
    """The terms of a round among sites with so many training rows, or persons.

    Raises ContractError if no secure sum of so many members can be promised.
    """
    terms = agreement.terms()
    if terms.combine is None:
        return terms
    try:
        terms.combine.check(len(units))
    except ToleranceError as error:
        raise ContractError(f"combine: {error}") from None
    return terms.model_copy(update={"together": Together(members=len(units), rows=max(1, sum(units.values())))})


def added_up(sites: Sites, asks: Question, number: int, cohort: Sequence[str], terms: Terms, base: Tensors) -> SumMade:
    """What the cohort's sum says in answer to a question. Raises QuorumError if they are fewer than a secure sum needs;
    ToleranceError or ContractError as `rounds.summed.layout`.
    """
    if terms.combine is not None and len(cohort) < (least := terms.combine.least(terms.union.members)):
        raise QuorumError(f"{len(cohort)} of {terms.union.members} members are left, and a secure sum with "
                          f"{terms.combine.dropouts} dropouts has at least {least}: nothing can be read")
    mechanisms = offer(asks, terms, 1, lambda _: True).mechanisms
    size = codec.coordinates(terms.sent(schema_of(base)))
    parts = layout(asks, terms, size, mechanisms)
    how = None if terms.combine is None else terms.combine.groups
    groups = drawn(sites.public_seed(number), [*sites.units], 1 if how is None else how.count)
    group_of = {site: place for place, group in enumerate(groups) for site in group}
    total_GS = np.zeros((len(groups), sum(part.length for part in parts)), np.uint32)
    for site, summand_S in zip(cohort, sites.summands(asks, number, cohort, terms, base), strict=True):
        total_GS[group_of[site]] += in_ring(parts, summand_S)
    inside = [[site for site in group if site in cohort] for group in groups]
    found = read(asks, terms, [summed.Added(out_of(parts, total_S), len(some), math.fsum(sites.units[one] for one in some))
                               for total_S, some in zip(total_GS, inside, strict=True)], mechanisms)
    return SumMade(found, mechanisms, total_GS, total_GS[0].nbytes * len(cohort))
