"""A region, and the mandate of its coordinator: what the federation file says, and what does not go with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

from pydantic import Field

from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.secure_sums.spec import SecureSum
from fedround.values import MAX_NUMBER, Name, PublicKey, Value


class Region(Value):
    """Members whose updates, or masked answers, one regional coordinator admits and adds up.

    The entry is the mandate: it stands in the signed federation file, and the federation log says from when on and until
    when. What the regional coordinator may do with it: sign partial sums of its members' updates. It cannot plan, commit,
    weigh, or speak for a member.
    """

    name: Name
    key: PublicKey
    """The regional coordinator's, with which it signs partial sums."""
    members: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    until: Annotated[int, Field(ge=1, le=MAX_NUMBER)] | None = None
    """The last round of any run for which the mandate holds; None: as long as the federation file says so."""

    def asked(self, cohort: Collection[Name]) -> tuple[Name, ...]:
        """Its members in this cohort, in the order in which they are added up: that of their names."""
        return tuple(sorted(set(self.members) & set(cohort)))


def objection_to_regions(regions: Sequence[Region], aggregation: Aggregation | None, combine: SecureSum | None,
                         beside: Sequence[str]) -> str | None:
    """Why the rest of an agreement does not go with regions; None if it does, or there are none.

    aggregation: as it was agreed; None: nothing was said. beside: names of other settings that were agreed on, of those that
    need every update at one place.
    """
    if not regions:
        return None
    if len({region.name for region in regions}) < len(regions):
        return "regions: two have the same name"
    if beside:
        return f"regions: {beside[0]} needs every update at one place, and the coordinator reads partial sums: leave it out"
    if combine is not None and combine.groups is not None:
        return ("regions: the groups of a secure sum are dealt anew for every sum, across regions, and a regional "
                "coordinator adds up its members alone: agree on [combine] without groups, or on no regions")
    if combine is None and aggregation != Aggregation(rule=WeightedMean()):
        return ("regions: the coordinator reads partial sums, and a rule, gate, mixing, history or fairness looks at every "
                "update: agree on aggregation.rule.name = 'weighted_mean' and nothing beside it, or on no regions")
    return None


def lapsed(regions: Sequence[Region], number: int) -> str | None:
    """Which mandate does not hold for the round of this number, in words; None: all do."""
    for region in regions:
        if region.until is not None and number > region.until:
            return (f"the mandate of region '{region.name}' ended with round {region.until}, and this is round {number}: "
                    f"renew it with 'fedround region mandate'")
    return None


def check_members(regions: Sequence[Region], sites: Collection[Name], reserved: Collection[Name]) -> None:
    """Raises ValueError unless every member is in exactly one region, and no region has another's name."""
    names, listed = {region.name for region in regions}, [name for region in regions for name in region.members]
    if taken := sorted(names & {*sites, *reserved}):
        raise ValueError(f"regions: '{taken[0]}' is a member's or the coordinator's name: a region needs another")
    for name in sorted({*listed, *sites}):
        if name not in sites:
            raise ValueError(f"regions: '{name}' is no member of the federation: take it out of its region")
        if (count := listed.count(name)) == 0:
            raise ValueError(f"regions: '{name}' is in none, and every member is in exactly one: give its region a mandate "
                             "with it, 'fedround region mandate'")
        if count > 1:
            raise ValueError(f"regions: '{name}' is in {count} regions; every member is in exactly one")
