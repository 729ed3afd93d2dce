"""A sum for each group of members: each is its members' sum, and nothing else is free of masks."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from fedround.errors import ToleranceError
from fedround.secure_sums.bounds import fewest_honest
from fedround.secure_sums.groups import drawn, groups_of
from fedround.secure_sums.revealing import rebuilt
from fedround.secure_sums.spec import SecureSum, SumGroups
from tests.fedround.secure_sums.cohorts import CONTEXT, EPOCH, Cohort, values
from tests.fedround.secure_sums.test_equivocation import KEY, SEED, learnt

SEVEN = Cohort(7, 5)
THREE = SumGroups(count=3, liars=1)


def test_each_group_has_its_sum_for_every_pattern_of_dropouts():
    values_ND, groups = values(7), groups_of(EPOCH, SEVEN.roster, 0, THREE)
    of = dict(zip(SEVEN.names, values_ND, strict=True))
    masked = {name: SEVEN.mask(name, of[name], group=group) for group in groups for name in group}
    for missing in (0, 1, 2):
        for gone in combinations(SEVEN.names, missing):
            survivors = [name for name in SEVEN.names if name not in gone]
            found = rebuilt(EPOCH, SEVEN.roster, SEVEN.dealt, 0, survivors, gone, {
                name: SEVEN.reveal(name, survivors) for name in survivors}, SEVEN.threshold)
            for group in groups:
                inside = [name for name in group if name in survivors]
                sent_D = sum((masked[name] for name in inside), np.zeros(5, np.uint32))
                want_D = sum((of[name] for name in inside), np.zeros(5, np.uint32))
                assert (found.unmask(sent_D, SEVEN.roster, 0, CONTEXT, group) == want_D).all()
            everybody_D = sum((masked[name] for name in survivors), np.zeros(5, np.uint32))
            if missing == 0:
                assert (found.unmask(everybody_D, SEVEN.roster, 0, CONTEXT, SEVEN.names) == values_ND.sum(
                    axis=0, dtype=np.uint32)).all(), "the sum of all groups is the sum of all"


def test_groups_are_of_one_size_drawn_anew_for_every_slot_and_the_same_for_all():
    names = [f"site-{number:02d}" for number in range(41)]
    groups = drawn(b"seed", names, 5)
    assert sorted(name for group in groups for name in group) == names
    assert sorted(map(len, groups)) == [8, 8, 8, 8, 9]
    assert drawn(b"seed", names[::-1], 5) == groups != drawn(b"other", names, 5)
    assert groups_of(EPOCH, SEVEN.roster, 0, THREE) != groups_of(EPOCH, SEVEN.roster, 1, THREE)
    assert groups_of(EPOCH, SEVEN.roster, 0, None) == (tuple(sorted(SEVEN.names)),)


def test_a_pair_is_together_in_one_of_as_many_slots_as_there_are_groups():
    """Nobody is next to a liar for long: 2,000 draws, within five standard deviations."""
    names = [f"site-{number:02d}" for number in range(40)]
    together = sum(any({names[0], names[1]} <= set(group) for group in drawn(f"{turn}".encode(), names, 5))
                   for turn in range(2000))
    chance = 7 / 39
    assert abs(together - 2000 * chance) < 5 * (2000 * chance * (1 - chance)) ** 0.5


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (2, 3)])
def test_in_each_group_one_sum_at_most_is_free_of_masks_and_none_crosses_groups(sizes: tuple[int, ...]):
    """By linear algebra, whatever one secret of each is known. Where no mask joins two groups, each stands for itself."""
    places = [place for place, size in enumerate(sizes) for _ in range(size)]
    for known in product(range(3), repeat=len(places)):
        want = []
        for place in range(len(sizes)):
            group = [i for i in range(len(places)) if places[i] == place]
            want += [{group[i] for i in found} for found in learnt(tuple(known[i] for i in group), (0,) * len(group))]
        for found in want:
            assert {known[i] for i in found} == {SEED}
            group = [i for i in range(len(places)) if places[i] == places[min(found)]]
            assert found == {i for i in group if known[i] != KEY}
        assert learnt_together(known, places) == len(want)


def learnt_together(known: tuple[int, ...], places: list[int]) -> int:
    """How many combinations of all members' numbers are free of unknown masks: the dimension of their space."""
    count, columns = len(known), []
    for i in range(count):
        if known[i] != SEED:
            columns.append([int(j == i) for j in range(count)])
        columns += [[int(k == j) - int(k == i) for k in range(count)] for j in range(i)
                    if places[i] == places[j] and KEY not in (known[i], known[j])]
    return count - (np.linalg.matrix_rank(np.array(columns, dtype=float)) if columns else 0)


def grouped(threshold: int, dropouts: int, colluders: int, count: int, liars: int) -> SecureSum:
    return SecureSum(threshold=threshold, dropouts=dropouts, colluders=colluders, groups=SumGroups(count=count, liars=liars))


def test_all_who_are_missing_and_all_who_collude_may_be_in_one_group():
    for one, members, shared_by in ((grouped(38, 2, 1, 5, 2), 40, 5), (grouped(39, 1, 2, 5, 2), 40, 5),
                                    (grouped(95, 5, 4, 5, 2), 100, 11), (grouped(9, 0, 1, 3, 1), 9, 2)):
        one.check(members)
        assert one.shared_by(members) == fewest_honest(one, members, one.colluders) == shared_by
        assert one.least(members) == members - one.dropouts
    assert fewest_honest(grouped(38, 2, 1, 5, 2), 40, 4) == 2


def test_attack_groups_that_the_coordinator_or_a_member_has_ground_are_no_smaller_than_promised():
    """Epochs are tried, as a coordinator may that asks for keys again, and keys of one's own, as a member may that offers
    last, until all who collude and drop out sit in one group: it still has as many honest members as its noise is shared by,
    and liars spoil no more groups than there are liars.
    """
    one = SecureSum(threshold=9, dropouts=1, colluders=1, groups=SumGroups(count=2 + 1, liars=1))
    names = [f"site-{number:02d}" for number in range(12)]
    bad, found = {names[0], names[1]}, 0
    one.check(len(names))
    for turn in range(300):
        for who, seed in (("coordinator", f"epoch {turn}"), ("member", f"key {turn}")):
            groups = drawn(f"{who} {seed}".encode(), names, 3)
            fewest = min(len(group) - len(bad & {*group}) for group in groups)
            found += any(bad <= {*group} for group in groups)
            assert fewest >= one.shared_by(len(names)) == 2
            assert sum(bool({names[0]} & {*group}) for group in groups) == 1
    assert found > 20, "it can be had, so the promise is for it"
    grown = Cohort(7, 5)
    assert groups_of(b"another epoch", grown.roster, 0, THREE) != groups_of(EPOCH, grown.roster, 0, THREE)


@pytest.mark.parametrize(("members", "one", "words"), [
    (40, grouped(38, 2, 5, 5, 2), "of a group of 8, in which all of them may be"),
    (40, grouped(38, 2, 1, 5, 3), "at most 2"), (40, grouped(38, 2, 1, 4, 2), "at most 1"),
    (8, grouped(8, 0, 1, 3, 1), "fewer groups"),
    (40, grouped(40, 0, 0, 40, 1), "of a group of 1, in which all of them may be")])
def test_what_does_not_hold(members: int, one: SecureSum, words: str):
    with pytest.raises(ToleranceError, match=words):
        one.check(members)
