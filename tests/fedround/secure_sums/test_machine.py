"""Members that keep their rules, and a coordinator that does what it likes: real messages, in any order.

The coordinator shows plans and survivors to whom it likes, keeps vectors back, asks again, and pools with one member all that
it is told. Whatever it does, of no honest member both secrets come together, one sum at most of a slot comes out of it, over
as many honest members as was promised, and it is the right one.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fedround.errors import FedroundError
from fedround.secure_sums import shamir
from fedround.secure_sums.dealing import opened
from fedround.secure_sums.keys import cohort as names_it
from fedround.secure_sums.keys import private_key
from fedround.secure_sums.masking import Mask, apply, pair_mask, self_key
from fedround.secure_sums.revealing import check_survivors
from fedround.secure_sums.spec import SecureSum
from tests.fedround.secure_sums.cohorts import EPOCH, Cohort, values

SPEC, MEMBERS, SIZE = SecureSum(threshold=4, dropouts=1, colluders=1), 5, 8
COHORT = Cohort(MEMBERS, SPEC.threshold, slots=2)
COLLUDER, HONEST = COHORT.names[-1], COHORT.names[:-1]
PLACES = sorted(COHORT.names)
PLANS = (b"p" * 32, b"q" * 32)
VALUES_ND = values(MEMBERS, SIZE)
SPEC.check(MEMBERS)
WHO = names_it(EPOCH, COHORT.roster)


class Member:
    """What a site does, and remembers for ever: for which plan it used a slot, and which survivors it helped there."""

    def __init__(self, name: str):
        self.name, self.plans, self.helped = name, {}, {}

    def mask(self, slot: int, plan: bytes):
        if self.plans.setdefault(slot, plan) != plan:
            return None
        return COHORT.mask(self.name, VALUES_ND[COHORT.names.index(self.name)], slot, plan)

    def reveal(self, slot: int, survivors: tuple[str, ...], plans: dict[str, bytes]):
        """plans: for which plan each survivor's signed answer is; they are relayed to it."""
        if slot not in self.plans or self.helped.get(slot, survivors) != survivors:
            return None
        if any(plans[name] != self.plans[slot] for name in survivors):
            return None
        try:
            check_survivors(SPEC, MEMBERS, self.name, COHORT.roster, survivors, COHORT.dropped(survivors))
        except FedroundError:
            return None
        self.helped[slot] = survivors
        return COHORT.reveal(self.name, survivors, slot)


class Coordinator(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.members = {name: Member(name) for name in HONEST}
        self.vectors: dict[tuple[str, int], tuple[bytes, np.ndarray]] = {}
        self.shares: dict[tuple[str, int, str], dict[int, int]] = defaultdict(dict)     # of whom, slot, kind: by place
        self.sums: dict[int, set[frozenset[str]]] = defaultdict(set)
        for dealer in HONEST:                                       # what the colluder was dealt
            mine = opened(COHORT.secret(COLLUDER), EPOCH, COLLUDER, COHORT.roster, dealer, COHORT.dealt[dealer],
                          SPEC.threshold, range(2))
            for slot, kinds in enumerate(mine):
                for kind, value in kinds.items():
                    self.shares[dealer, slot, kind][PLACES.index(COLLUDER)] = int.from_bytes(value, "little")

    @rule(name=st.sampled_from(HONEST), slot=st.integers(0, 1), plan=st.sampled_from(PLANS))
    def ask_for_numbers(self, name, slot, plan):
        masked_D = self.members[name].mask(slot, plan)
        if masked_D is not None:
            before = self.vectors.setdefault((name, slot), (plan, masked_D))
            assert before[1].tobytes() == masked_D.tobytes(), "a retry repeats the bytes"

    @rule(slot=st.integers(0, 1), plan=st.sampled_from(PLANS))
    def ask_all_for_numbers(self, slot, plan):
        for name in HONEST:
            self.ask_for_numbers(name, slot, plan)

    @rule(name=st.sampled_from(HONEST), slot=st.integers(0, 1), gone=st.sets(st.sampled_from(COHORT.names), max_size=2))
    def ask_for_shares(self, name, slot, gone):
        survivors = tuple(one for one in COHORT.names if one not in gone)
        plans = {one: said[0] for (one, where), said in self.vectors.items() if where == slot}
        asked = self.members[name].plans.get(slot)
        if asked is None or not all(one in plans or one == COLLUDER for one in survivors):
            return                                                  # nobody's signature can be forged
        said = self.members[name].reveal(slot, survivors, plans | {COLLUDER: asked})
        if said is not None:
            for dealer, value in zip(PLACES, said.shares, strict=True):
                kind = "self seed" if dealer in survivors else "slot key"
                self.shares[dealer, slot, kind][PLACES.index(name)] = int.from_bytes(value, "little")

    @rule(slot=st.integers(0, 1), gone=st.lists(st.sampled_from(COHORT.names), min_size=4, max_size=4))
    def ask_each_about_others(self, slot, gone):
        for name, one in zip(HONEST, gone, strict=True):
            self.ask_for_shares(name, slot, {one} - {name})

    @rule(slot=st.integers(0, 1))
    def ask_all_for_shares(self, slot):
        for name in HONEST:
            self.ask_for_shares(name, slot, set())

    def secret(self, name: str, slot: int, kind: str) -> int | None:
        held = dict(list(self.shares[name, slot, kind].items())[:SPEC.threshold])
        if len(held) < SPEC.threshold:
            return None
        by = shamir.weights([place + 1 for place in held])
        return sum(w * value for w, value in zip(by, held.values(), strict=True)) % shamir.PRIME

    @invariant()
    def nobody_is_open_and_one_sum_at_most_comes_out(self):
        if not hasattr(self, "shares"):
            return
        for slot in range(2):
            seeds = {name: self.secret(name, slot, "self seed") for name in HONEST}
            keys = {name: self.secret(name, slot, "slot key") for name in HONEST}
            assert not any(seeds[name] is not None and keys[name] is not None for name in HONEST)
            inside = [name for name in HONEST if seeds[name] is not None]
            if not inside or any(seeds[name] is None and keys[name] is None for name in HONEST):
                continue
            self.sums[slot].add(frozenset(inside))
            assert len(self.sums[slot]) == 1
            assert len(inside) >= SPEC.shared_by(MEMBERS)
            plan = self.vectors[inside[0], slot][0]
            total_D = sum((self.vectors[name, slot][1] for name in inside), np.zeros(SIZE, np.uint32))
            masks = [Mask(self_key(seeds[name], name, WHO, slot, plan), added=False) for name in inside]
            for gone in [one for one in COHORT.names if one not in inside]:         # the colluder gives its key
                own = private_key(keys[gone]) if gone != COLLUDER else private_key(_colluders_key(slot))
                masks += [pair_mask(own, gone, name, COHORT.roster, WHO, slot, plan) for name in inside]
            apply(masks, total_D)
            want_D = sum((VALUES_ND[COHORT.names.index(name)] for name in inside), np.zeros(SIZE, np.uint32))
            assert (total_D == want_D).all()
            _Seen.sums += 1


class _Seen:
    sums = 0


def _colluders_key(slot: int) -> int:
    from fedround.secure_sums.keys import slot_secret
    return slot_secret(COHORT.secret(COLLUDER), EPOCH, slot)


def test_a_coordinator_that_does_what_it_likes():
    from hypothesis.stateful import run_state_machine_as_test
    run_state_machine_as_test(Coordinator, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))
    assert _Seen.sums > 0, "some sum must come out, or nothing was tried"
