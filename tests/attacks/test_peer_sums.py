"""What was found wrong in others' secure aggregation, each as a test that ours is right.

Found by reading and running Flower 1.42, OpenFL 1.9, Fed-BioMed (2026-07), FedML (2024-05) and APPFL. Each test names what
happens there, and shows with the naive way in a few lines that the test would find it.
"""

from __future__ import annotations

import numpy as np
import pytest

from fedround.errors import ContractError
from fedround.secure_sums.dealing import KINDS, opened
from fedround.secure_sums.masking import Mask, apply
from fedround.secure_sums.revealing import check_survivors, reveal, unmask
from fedround.secure_sums.spec import SecureSum
from tests.fedround.secure_sums.cohorts import EPOCH, Cohort, values

FOUR, SPEC = Cohort(4, 3), SecureSum(threshold=3, dropouts=1, colluders=0)
ALL, VICTIM = FOUR.names, FOUR.names[3]
SIZE = 4000


def uniform(numbers_D) -> bool:
    """Whether the highest bytes of these numbers could be uniform (chi-square, with room)."""
    seen = np.bincount(np.asarray(numbers_D, np.uint32) >> 24, minlength=256)
    expected = len(numbers_D) / 256
    return bool((np.square(seen - expected) / expected).sum() < 255 + 8 * np.sqrt(2 * 255))


def test_attack_a_member_that_is_said_to_be_in_the_sum_and_missing():
    """Flower asks each node for the seed shares of `active` and the key shares of `dead`, and answers for both lists as they
    come: a node that is in both is open, and the server has its update."""
    held = {name: opened(FOUR.secret(name), EPOCH, name, FOUR.roster, VICTIM, FOUR.dealt[VICTIM], 3, (0,))[0]
            for name in ALL[:3]}

    def naive(mine: dict, active: list[str], dead: list[str]) -> list[bytes]:
        return [mine[kind] for kind, asked in (("self seed", active), ("slot key", dead)) if VICTIM in asked]

    assert all(len(naive(mine, ALL, [VICTIM])) == 2 for mine in held.values())          # both secrets, from all
    for name in ALL[:3]:
        for act in (lambda me: check_survivors(SPEC, 4, me, FOUR.roster, ALL, [VICTIM]),
                    lambda me: reveal(FOUR.secret(me), EPOCH, me, FOUR.roster, FOUR.dealt, 0, ALL, [VICTIM], 3)):
            with pytest.raises(ContractError, match="whoever is in both"):
                act(name)
    with pytest.raises(ContractError, match="whoever is in both"):
        unmask(np.zeros(5, np.uint32), EPOCH, FOUR.roster, FOUR.dealt, 0, b"", ALL, [VICTIM], {}, 3)


def test_attack_a_mask_that_can_be_guessed():
    """Flower folds a seed of 256 bits to 32 by XOR, and asks numpy's RandomState: four billion tries find the mask of any
    vector of which a little is known. Seeds with two words swapped give the same mask there."""
    seed = bytes(range(32))
    swapped = seed[4:8] + seed[:4] + seed[8:]

    def naive(seed: bytes) -> list[int]:
        folded = np.bitwise_xor.reduce(np.frombuffer(seed, "<u4"))
        return np.random.RandomState(folded).randint(0, 2**32 - 1, 4, dtype=np.int64).tolist()

    assert naive(seed) == naive(swapped)
    ours = []
    for key in (seed, swapped):
        numbers_D = np.zeros(4, np.uint32)
        apply([Mask(key, added=True)], numbers_D)
        ours.append(numbers_D.tolist())
    assert ours[0] != ours[1]
    # Every bit of the seed counts: 256 seeds that differ in one bit each, 256 streams.
    streams = set()
    for bit in range(256):
        numbers_D = np.zeros(4, np.uint32)
        apply([Mask((int.from_bytes(seed, "big") ^ 1 << bit).to_bytes(32, "big"), added=True)], numbers_D)
        streams.add(numbers_D.tobytes())
    assert len(streams) == 256


def test_a_mask_has_every_number_of_the_ring():
    """Flower's `randint(0, 2**32 - 1)` never draws the last one; so masked numbers are not quite uniform. Ours are bits."""
    numbers_D = np.zeros(SIZE, np.uint32)
    apply([Mask(bytes(32), added=True)], numbers_D)
    ones = np.unpackbits(numbers_D.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 6 / (2 * np.sqrt(32 * SIZE))
    assert uniform(numbers_D)


def test_attack_differences_within_a_vector():
    """OpenFL adds one number to a whole vector: all differences between its numbers are in the clear."""
    values_D = np.arange(SIZE, dtype=np.uint32)
    naive_D = values_D + np.uint32(3141592653)
    assert set(np.diff(naive_D)) == {1}
    assert not uniform(np.diff(naive_D))
    assert uniform(np.diff(FOUR.mask("lund", values_D)))


def test_attack_the_same_mask_for_several_values():
    """Fed-BioMed's mask depends on the round alone: of two values in a round, the difference is in the clear. Here a slot is
    for one vector with all that leaves, and every place, slot and plan has its own."""
    one_D, other_D = values(2, SIZE)
    naive_D = FOUR.mask("lund", one_D) - FOUR.mask("lund", other_D)                     # the same slot and plan
    assert (naive_D == one_D - other_D).all()
    for again in ((1, b"p" * 32), (0, b"q" * 32)):
        difference_D = FOUR.mask("lund", one_D) - FOUR.mask("lund", other_D, *again)
        assert not (difference_D == one_D - other_D).any()
    zeros_D = FOUR.mask("lund", np.zeros(SIZE, np.uint32))
    assert len(np.unique(zeros_D)) > SIZE - 10


def test_attack_shares_that_are_relayed_in_the_clear():
    """FedML's LightSecAgg hands every encoded mask to the server, which passes it on. Here nothing of what is dealt holds a
    share; it opens for its member alone."""
    for dealer in ALL:
        body = FOUR.dealt[dealer].to_bytes()
        for name in ALL:
            for mine in opened(FOUR.secret(name), EPOCH, name, FOUR.roster, dealer, FOUR.dealt[dealer], 3, range(2)):
                for kind in KINDS:
                    assert mine[kind] not in body
                    assert mine[kind][::-1] not in body


def test_attack_masks_that_are_small_and_sums_that_are_not_exact():
    """APPFL adds float masks of N(0, 1): beside a number of a million they hide nothing, and the sum is off in its last
    bits, as with any float masks (FATE's)."""
    generator = np.random.default_rng(0)
    mask_D, values_D = generator.normal(size=SIZE), np.full(SIZE, 1e6)
    assert np.abs(values_D + mask_D - 1e6).max() < 10                                   # which number it was is plain
    assert ((values_D + mask_D) + (0.1 - mask_D) != values_D + 0.1).any()               # the sum is not the sum
    masked_D = FOUR.mask("lund", np.full(SIZE, 1_000_000, np.uint32))
    assert uniform(masked_D)
    total_D = masked_D + sum((FOUR.mask(name, np.full(SIZE, 1, np.uint32)) for name in ALL[1:]), np.zeros(SIZE, np.uint32))
    found = FOUR.unmask(total_D, ALL, {name: FOUR.reveal(name, ALL) for name in ALL})
    assert set(found.total_D) == {1_000_003}


def test_a_member_that_is_lost_before_it_dealt_is_not_missed():
    """Flower raises KeyError if a node is gone between its keys and its shares. Here a roster is made of those who offered
    keys, and one that then deals nothing is left out of the next."""
    three = Cohort(3, 2)
    total_D = sum((three.mask(name, values(3)[i]) for i, name in enumerate(three.names)), np.zeros(5, np.uint32))
    reveals = {name: three.reveal(name, three.names) for name in three.names[:2]}
    assert (three.unmask(total_D, three.names, reveals).total_D == values(3).sum(axis=0, dtype=np.uint32)).all()
    check_survivors(SPEC, 4, "lund", three.roster, three.names, [])
    with pytest.raises(ContractError, match="of every member of the roster"):
        reveal(three.secret("lund"), EPOCH, "lund", three.roster, {name: three.dealt[name] for name in three.names[:2]}, 0,
               three.names, [], 2)
