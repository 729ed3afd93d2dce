"""What masked numbers and shares say: nothing, to whoever has fewer than the threshold."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from fedround.secure_sums import shamir
from fedround.secure_sums.dealing import opened
from fedround.secure_sums.derived import hashed
from fedround.secure_sums.keys import cohort as names_it
from fedround.secure_sums.keys import self_seed, slot_secret
from fedround.secure_sums.masking import Mask, apply, self_key
from tests.fedround.secure_sums.cohorts import CONTEXT, EPOCH, NAMES, Cohort, values


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_fewer_shares_than_the_threshold_fit_every_secret_equally_well(threshold: int, monkeypatch: pytest.MonkeyPatch):
    """All polynomials modulo a small prime: for every set of threshold - 1 places and every values of the shares there, each
    secret has exactly one polynomial; with a threshold of them, one secret has."""
    prime, places = 7, (1, 2, 3, 4)
    monkeypatch.setattr(shamir, "PRIME", prime)
    every = [(secret, [shamir.share(secret, rest, place) for place in places])
             for secret in range(prime) for rest in product(range(prime), repeat=threshold - 1)]
    for seen in combinations(range(4), threshold - 1):
        fits: dict[tuple[int, ...], list[int]] = {}
        for secret, shares in every:
            fits.setdefault(tuple(shares[i] for i in seen), []).append(secret)
        assert len(fits) == prime ** (threshold - 1)
        assert all(sorted(secrets) == list(range(prime)) for secrets in fits.values())
    for seen in combinations(range(4), threshold):
        by = shamir.weights([places[i] for i in seen])
        assert all(sum(w * shares[i] for w, i in zip(by, seen, strict=True)) % prime == secret for secret, shares in every)


def test_what_is_dealt_lies_on_polynomials_of_the_degree_and_no_two_secrets_share_one():
    """The shares that are really dealt: any threshold of them make the secret, and one fewer with any other value at 0 is as
    good a polynomial."""
    cohort = Cohort(5, 3, slots=2)
    coefficients = set()
    for dealer in cohort.names:
        held = [opened(cohort.secret(name), EPOCH, name, cohort.roster, dealer, cohort.dealt[dealer], 3, range(2))
                for name in sorted(cohort.names)]
        for slot, kind in product(range(2), ("self seed", "slot key")):
            shares = [int.from_bytes(one[slot][kind], "little") for one in held]
            real = (self_seed if kind == "self seed" else slot_secret)(cohort.secret(dealer), EPOCH, slot)
            for chosen in combinations(range(5), 3):
                by = shamir.weights([place + 1 for place in chosen])
                assert sum(w * shares[i] for w, i in zip(by, chosen, strict=True)) % shamir.PRIME == real
            wrong = shamir.weights([1, 2])
            assert (wrong[0] * shares[0] + wrong[1] * shares[1]) % shamir.PRIME != real
            coefficients.add((shares[1] - shares[0]) % shamir.PRIME)
    assert len(coefficients) == 5 * 2 * 2


def _chi_square(data: bytes) -> float:
    """Of the bytes against the uniform law, in standard deviations of it."""
    seen = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    return ((np.square(seen - expected) / expected).sum() - 255) / np.sqrt(2 * 255)


@pytest.mark.parametrize("number", [0, 1, 2**32 - 1])
def test_masked_bytes_are_uniform_whatever_is_masked(number: int):
    cohort = Cohort(3, 2, slots=1)
    masked_D = cohort.mask("lund", np.full(50_000, number, np.uint32))
    for place in range(4):
        assert abs(_chi_square(masked_D.view(np.uint8)[place::4].tobytes())) < 6
    assert abs(_chi_square((masked_D - np.roll(masked_D, 1)).tobytes())) < 6
    assert _chi_square(np.full(50_000, number, np.uint32).tobytes()) > 1000      # what is masked is not


def test_what_is_masked_moves_masked_numbers_by_just_that():
    """So their law is the masks' law, moved in the ring, which the uniform law is not changed by."""
    cohort, values_ND = Cohort(3, 2, slots=1), values(2, 100)
    assert (cohort.mask("oslo", values_ND[0]) - cohort.mask("oslo", values_ND[1]) == values_ND[0] - values_ND[1]).all()


def test_every_use_of_masks_is_another_stream():
    """Other slots, contexts, members, rosters and epochs: nothing in common, not even differences."""
    zeros_D = np.zeros(64, np.uint32)
    found = []
    for cohort in (Cohort(3, 2), Cohort(4, 3), Cohort(3, 2, slots=3), Cohort(3, 2, epoch=b"f" * 32)):
        found += [cohort.mask(name, zeros_D, slot, context) for name in cohort.names for slot in (0, 1)
                  for context in (CONTEXT, b"q" * 32)]
    assert len({one.tobytes() for one in found}) == len(found)
    assert len({bytes(one[:4]) for one in found}) == len(found)
    assert len({(a - b).tobytes() for a, b in combinations(found, 2)}) == len(found) * (len(found) - 1) // 2


def test_one_member_missing_from_a_sum_leaves_noise():
    """Without anybody's reveals, and with all reveals but for another set of survivors, what is left is uniform."""
    cohort, size = Cohort(4, 3, slots=1), 50_000
    masked_ND = [cohort.mask(name, np.full(size, 7, np.uint32)) for name in cohort.names]
    assert abs(_chi_square(sum(masked_ND).tobytes())) < 6
    reveals = {name: cohort.reveal(name, cohort.names) for name in cohort.names}
    assert set(cohort.unmask(sum(masked_ND), cohort.names, reveals).total_D) == {28}
    assert abs(_chi_square(cohort.unmask(sum(masked_ND[:3]), cohort.names, reveals).total_D.tobytes())) < 6
    assert abs(_chi_square(cohort.unmask(sum(masked_ND), cohort.names, reveals, context=b"q" * 32).total_D.tobytes())) < 6


def test_a_late_vector_stays_under_its_own_mask():
    """A member was thought to have dropped out, its slot key was rebuilt, and then its vector comes after all: all masks with
    others fall off, and what is left is uniform, whatever is in it. With both secrets it would be open, which is why nobody
    tells both."""
    cohort, size, late = Cohort(4, 3, slots=1), 50_000, "turku"
    survivors = [name for name in cohort.names if name != late]
    plain_D, masked_D = np.full(size, 5, np.uint32), cohort.mask(late, np.full(size, 5, np.uint32))
    reveals = {name: cohort.reveal(name, survivors) for name in survivors}
    place = sorted(cohort.names).index(late)
    by = shamir.weights([sorted(cohort.names).index(name) + 1 for name in survivors])
    key = sum(w * int.from_bytes(reveals[name].shares[place], "little") for w, name in zip(by, survivors, strict=True))
    assert key % shamir.PRIME == slot_secret(cohort.secret(late), EPOCH, 0)
    from fedround.secure_sums.keys import private_key
    from fedround.secure_sums.masking import pair_mask
    who = names_it(EPOCH, cohort.roster)
    private = private_key(key % shamir.PRIME)
    masks = [pair_mask(private, late, name, cohort.roster, who, 0, CONTEXT) for name in survivors]
    left_D = masked_D.copy()
    apply([Mask(one.key, not one.added) for one in masks], left_D)
    assert abs(_chi_square(left_D.tobytes())) < 6
    apply([Mask(self_key(self_seed(cohort.secret(late), EPOCH, 0), late, who, 0, CONTEXT), added=False)], left_D)
    assert (left_D == plain_D).all()


def test_words_of_uses_and_parts_are_told_apart():
    assert hashed("roster", b"ab", b"c") != hashed("roster", b"a", b"bc")
    assert hashed("roster", b"a") != hashed("self seed", b"a")
    assert len({hashed("roster", part) for part in ("a", b"a", 97, "aa")}) == 3       # a text is its bytes
    assert len(set(NAMES)) == 7
