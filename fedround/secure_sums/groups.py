"""Groups of members, each with a sum of its own: what a rule can look at where nobody sees one member's numbers.

Pairs mask within a group. Keys, shares and reveals are those of all members, so one list of survivors is behind all sums of
a slot. Who is in which group is drawn anew for every slot, from a public seed that follows from all members' keys.
"""

from __future__ import annotations

from collections.abc import Collection

from fedround.secure_sums.derived import hashed
from fedround.secure_sums.keys import Roster, cohort
from fedround.secure_sums.spec import SumGroups


def drawn(seed: bytes, names: Collection[str], count: int) -> tuple[tuple[str, ...], ...]:
    """The names in so many groups, none of which has more than one member more than another."""
    order = sorted(names, key=lambda name: hashed("group", seed, name))
    return tuple(tuple(sorted(order[place::count])) for place in range(count))


def groups_of(epoch: bytes, roster: Roster, slot: int, how: SumGroups | None) -> tuple[tuple[str, ...], ...]:
    """A slot's groups; all members are one, where none are agreed on."""
    if how is None:
        return (tuple(sorted(roster)),)
    return drawn(hashed("groups", cohort(epoch, roster), slot), roster, how.count)
