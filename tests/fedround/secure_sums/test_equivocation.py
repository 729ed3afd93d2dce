"""A coordinator that tells every member something else, exhaustively: which sums can it learn?

In two steps. First, what follows from secrets: with these seeds and those slot keys known, which combinations of the honest
members' numbers are free of masks? By linear algebra, for every case. Then, which secrets follow from lies: every choice of
survivors shown to every honest member, within the rules that members keep (`check_survivors`), counted as votes.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, product

import numpy as np
import pytest

from fedround.errors import ToleranceError
from fedround.secure_sums import shamir
from fedround.secure_sums.bounds import fewest_honest
from fedround.secure_sums.keys import cohort as names_it
from fedround.secure_sums.keys import private_key
from fedround.secure_sums.masking import Mask, apply, pair_mask, self_key
from fedround.secure_sums.revealing import check_survivors
from fedround.secure_sums.spec import SecureSum
from tests.fedround.secure_sums.cohorts import CONTEXT, EPOCH, Cohort, values

NEITHER, SEED, KEY = range(3)


def learnt(known: tuple[int, ...], plans: tuple[int, ...]) -> list[set[int]]:
    """The honest members in each combination of vectors that no unknown mask is in.

    known: for each honest member, which of its secrets is known. plans: for which plan it masked; masks of a pair that masked
    for two plans are two masks.
    """
    count, columns = len(known), []
    for i in range(count):
        if known[i] != SEED:
            columns.append([int(j == i) for j in range(count)])
        for j in range(i):
            if KEY not in (known[i], known[j]):
                ends = [[int(k == j) - int(k == i) for k in range(count)]] if plans[i] == plans[j] else [
                    [int(k == i) for k in range(count)], [int(k == j) for k in range(count)]]
                columns += ends
    if not columns:
        return [{i} for i in range(count)]
    _, sizes, free = np.linalg.svd(np.array(columns, dtype=float))
    rank = int((sizes > 1e-9).sum())
    return [{i for i in range(count) if abs(row[i]) > 1e-9} for row in free[rank:]] if rank < count - 1 else [
        _of_equal_parts(row) for row in free[rank:]]


def _of_equal_parts(row) -> set[int]:
    size = np.abs(row).max()
    assert np.all((np.abs(row) < 1e-9) | (np.abs(row - np.sign(row.sum()) * size) < 1e-9)), "a plain sum, nobody weighs more"
    return {i for i in range(len(row)) if abs(row[i]) > 1e-9}


@pytest.mark.parametrize(("honest", "plans"), [(2, 2), (3, 2), (4, 2), (5, 1)])
def test_one_sum_at_most_is_free_of_masks_and_it_is_over_all_whose_keys_are_not_known(honest: int, plans: int):
    """Of each member one secret at most is known (2t > n + c). A sum over B is learnt if and only if B has masked for one
    plan, all its seeds are known, and the keys of all other honest members."""
    for known in product(range(3), repeat=honest):
        for chosen in product(range(plans), repeat=honest):
            seeds = {i for i in range(honest) if known[i] == SEED}
            keys = {i for i in range(honest) if known[i] == KEY}
            whole = bool(seeds) and seeds | keys == set(range(honest)) and len({chosen[i] for i in seeds}) == 1
            assert learnt(known, chosen) == ([seeds] if whole else [])


def test_with_both_secrets_of_a_member_its_numbers_are_open():
    """What the condition 2t > n + c is for: a known key takes the masks with others away, and a known seed the rest."""
    assert learnt((SEED, KEY), (0, 0)) == [{0}]
    columns = np.array([[0, 1]])                               # the masks of member 0 are known, all of them
    assert np.linalg.matrix_rank(columns) == 1


def lies(spec: SecureSum, members: int, plans: tuple[int, ...]) -> np.ndarray:
    """How many honest members can be made to reveal of each honest member its seed (H), and its key (H): every choice of
    survivors, or none, shown to each of them. More than are needed count as those that are. Colluders are the last members,
    and say whatever is asked; as survivors they cost nothing.
    """
    honest, enough = members - spec.colluders, spec.threshold - spec.colluders
    least_honest = spec.least(members) - spec.colluders
    reached = np.zeros((1, 2 * honest), np.int8)
    for me in range(honest):
        others = [i for i in range(honest) if i != me and plans[i] == plans[me]]    # other answers name another plan
        sizes = range(max(0, least_honest - 1), len(others) + 1)
        shown = [{*some, me} for size in sizes for some in combinations(others, size)]
        steps = np.array([[0] * (2 * honest)] + [
            [int(i in some) for i in range(honest)] + [int(i not in some) for i in range(honest)] for some in shown], np.int8)
        after = np.minimum(reached[:, None] + steps[None], enough).reshape(-1, 2 * honest)
        reached = np.unique(after, axis=0)
    return reached


def outcomes(spec: SecureSum, members: int, plans: tuple[int, ...]) -> tuple[set[int], bool]:
    """The sizes of the sums that can be learnt, in honest members; and whether both secrets of one can be."""
    honest, enough = members - spec.colluders, spec.threshold - spec.colluders
    known = np.unique(lies(spec, members, plans) == enough, axis=0)
    sizes = set()
    for row in known:
        seeds, keys = set(np.flatnonzero(row[:honest])), set(np.flatnonzero(row[honest:]))
        if seeds and seeds | keys == set(range(honest)) and len({plans[i] for i in seeds}) == 1:
            sizes.add(len(seeds - keys))
    return sizes, bool((known[:, :honest] & known[:, honest:]).any())


def every(members: int):
    """All that a federation may write down for so many members, whether it holds or not."""
    for threshold in range(2, members + 1):
        for dropouts in range(members - threshold + 1):
            for colluders in range(min(threshold, members - dropouts - 1)):
                yield SecureSum(threshold=threshold, dropouts=dropouts, colluders=colluders)


def holds(spec: SecureSum, members: int) -> bool:
    try:
        spec.check(members)
    except ToleranceError:
        return False
    return True


def _look(members: int) -> tuple[int, int]:
    """Every setting: what holds keeps its bound, whatever is told to whom; what does not hold is broken by some lie. Without
    dropouts nobody reveals a key, and 2t > n + c asks for more than is needed."""
    kept = broken = 0
    for spec in every(members):
        least = spec.shared_by(members)
        if least < 2 or (members > 6 and not holds(spec, members)):
            continue
        sizes, both = outcomes(spec, members, (0,) * members)
        if holds(spec, members):
            assert not both, spec
            assert min(sizes) >= least, spec
            kept += 1
        elif spec.dropouts > 0:
            assert both or min(sizes) < least, f"{spec} is refused, and nothing is wrong with it"
            broken += 1
    return kept, broken


@pytest.mark.parametrize("members", [3, 4, 5])
def test_every_lie_about_survivors_keeps_the_bound_just_where_the_conditions_hold(members: int):
    kept, broken = _look(members)
    assert kept >= 2
    assert broken >= (members > 3)


@pytest.mark.parametrize("members", [6, 7])
def test_every_lie_among_more_members(members: int):
    kept, broken = _look(members)
    assert kept > 8
    assert broken > 8 or members == 7


def countersigned(spec: SecureSum, members: int) -> tuple[set[int], bool]:
    """As `outcomes`, if members sign the survivors first, one list each, and reveal only for a list with a threshold of
    signatures: whatever list is shown to whom.
    """
    honest, enough = members - spec.colluders, spec.threshold - spec.colluders
    least_honest = max(1, spec.least(members) - spec.colluders)
    lists = [frozenset(some) for size in range(least_honest, honest + 1) for some in combinations(range(honest), size)]
    sizes, both = set(), False
    for shown in product(*([one for one in lists if me in one] for me in range(honest))):
        seeds, keys = set(), set()
        for one in set(shown):
            if shown.count(one) >= enough:
                seeds |= one
                keys |= set(range(honest)) - one
        both |= bool(seeds & keys)
        if seeds and seeds | keys == set(range(honest)):
            sizes.add(len(seeds - keys))
    return sizes, both


@pytest.mark.parametrize("members", [3, 4, 5])
def test_every_lie_where_members_sign_first(members: int):
    """What signatures make hold is kept by them against every lie; some lie breaks it without them."""
    kept, only_signed = 0, []
    for spec in every(members):
        if spec.shared_by(members) < 2:
            continue
        signed = spec.model_copy(update={"consistency": "signed"})
        sizes, both = countersigned(spec, members)
        if not holds(signed, members):
            assert both or spec.dropouts == 0, f"{signed} is refused, and nothing is wrong with it"
            continue
        assert not both
        assert min(sizes) >= spec.shared_by(members) == fewest_honest(signed, members, spec.colluders)
        kept += 1
        if not holds(spec, members):
            sizes, both = outcomes(spec, members, (0,) * members)
            assert not both
            assert min(sizes) < spec.shared_by(members)
            only_signed.append((spec.threshold, spec.dropouts, spec.colluders))
    assert kept >= 2
    assert only_signed == ([(3, 2, 0)] if members == 5 else [])


LIES = {"lund": ("lund", "turku", "bergen"), "aarhus": ("aarhus", "turku", "bergen"), "oslo": ("oslo", "turku", "bergen"),
        "turku": ("oslo", "turku", "bergen"), "bergen": ("lund", "turku", "bergen")}
"""Whom a coordinator names to whom as survivors, with five members of whom two may be missing."""


def test_the_sum_of_two_comes_out_of_real_messages_without_signatures_and_no_list_has_enough_of_them():
    """Each member is told nothing that it would refuse; the sum of three was promised."""
    spec, cohort, values_ND = SecureSum(threshold=3, dropouts=2, colluders=0), Cohort(5, 3), values(5)
    pooled: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for place, name in enumerate(sorted(cohort.names), start=1):
        check_survivors(spec, 5, name, cohort.roster, LIES[name], cohort.dropped(LIES[name]))
        for dealer, share in zip(sorted(cohort.names), cohort.reveal(name, LIES[name]).shares, strict=True):
            pooled[dealer, "seed" if dealer in LIES[name] else "key"][place] = int.from_bytes(share, "little")

    def secret(dealer: str, kind: str) -> int:
        three = dict(list(pooled[dealer, kind].items())[:3])
        return sum(by * value for by, value in zip(shamir.weights([*three]), three.values(), strict=True)) % shamir.PRIME

    two, who = ("turku", "bergen"), names_it(EPOCH, cohort.roster)
    sum_D = sum((cohort.mask(name, values_ND[cohort.names.index(name)]) for name in two), np.zeros(5, np.uint32))
    masks = [Mask(self_key(secret(name, "seed"), name, who, 0, CONTEXT), added=False) for name in two]
    masks += [pair_mask(private_key(secret(gone, "key")), gone, name, cohort.roster, who, 0, CONTEXT)
              for gone in ("lund", "aarhus", "oslo") for name in two]
    apply(masks, sum_D)
    assert (sum_D == values_ND[cohort.names.index("turku")] + values_ND[cohort.names.index("bergen")]).all()
    with pytest.raises(ToleranceError, match="leave 3 honest ones out of the sum.*consistency"):
        spec.check(5)
    spec.model_copy(update={"consistency": "signed"}).check(5)
    assert max([*LIES.values()].count(one) for one in LIES.values()) < spec.threshold


@pytest.mark.parametrize("members", [4, 5])
def test_every_lie_about_plans_and_survivors(members: int):
    """Some members are shown another plan for the slot: nobody counts them in, and nothing more is learnt."""
    looked = 0
    for spec in filter(lambda one: holds(one, members), every(members)):
        honest = members - spec.colluders
        for others in product(range(2), repeat=honest - 1):
            sizes, both = outcomes(spec, members, (0, *others))
            assert not both
            assert all(size >= spec.shared_by(members) for size in sizes)
            looked += 1
    assert looked > 30
