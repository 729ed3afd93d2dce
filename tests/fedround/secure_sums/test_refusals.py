"""What is swapped, replayed, altered or forged is refused, and whoever did it is named; messages have one form in bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError, DealtWrongError, QuorumError, ToleranceError
from fedround.secure_sums import dealing, shamir
from fedround.secure_sums.dealing import Dealt, deal
from fedround.secure_sums.keys import MOST_SLOTS, Keys, offer
from fedround.secure_sums.masking import mask
from fedround.secure_sums.revealing import Reveals, check_survivors, reveal
from fedround.secure_sums.spec import SecureSum
from tests.fedround.secure_sums.cohorts import CONTEXT, EPOCH, Cohort, values

FOUR = Cohort(4, 3)
ALL = FOUR.names
VALUES_ND = values(4)


def swapped(one: Dealt, at: int, other: bytes) -> Dealt:
    body = one.body[:at] + other + one.body[at + len(other):]
    return replace(one, body=body)


# -- keys ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("u", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f",          # 0, 1, p - 1
                               "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",              # p, p + 1: another form
                               "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                               "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
                               "00" * 31 + "80", "02" + "00" * 30 + "80"])                    # the bit that nobody reads
@pytest.mark.parametrize("at", [0, 1, 2])
def test_attack_a_key_that_anybody_could_compute_with(u: str, at: int):
    good = [FOUR.roster["lund"].channel, *FOUR.roster["lund"].slots]
    good[at] = bytes.fromhex(u)
    with pytest.raises(ContractError, match="keys of lund: a key in it is of small order, or not in its one form"):
        Keys.from_bytes(Keys(good[0], tuple(good[1:])).to_bytes(), "keys of lund")


def test_attack_one_that_was_not_read_but_made_is_refused_where_it_is_used():
    roster = FOUR.roster | {"oslo": Keys(bytes(32), (bytes(32), bytes(32)))}
    for act in (partial(deal, FOUR.secret("lund"), EPOCH, "lund", roster, 3),
                partial(mask, VALUES_ND[0], FOUR.secret("lund"), EPOCH, "lund", roster, 0, CONTEXT)):
        with pytest.raises(ContractError, match="the key of 'oslo' is of small order"):
            act()


def test_attack_a_roster_with_other_keys_of_mine():
    """Whoever relays could put a key of its own there, and open what is dealt to me."""
    stranger = offer(b"x" * 32, EPOCH, 2)
    for theirs in (stranger, Keys(FOUR.roster["lund"].channel, stranger.slots)):
        roster = FOUR.roster | {"lund": theirs}
        with pytest.raises(ContractError, match="other keys of 'lund'"):
            deal(FOUR.secret("lund"), EPOCH, "lund", roster, 3)
        with pytest.raises(ContractError, match="another key of 'lund' for slot 0"):
            mask(VALUES_ND[0], FOUR.secret("lund"), EPOCH, "lund", roster, 0, CONTEXT)


@pytest.mark.parametrize(("roster", "words"), [
    ({name: FOUR.roster[name] for name in ALL[:2]}, "3 to 1000 members, not 2"),
    (FOUR.roster | {"oslo": offer(b"x" * 32, EPOCH, 3)}, "different numbers of slots"),
    ({name: FOUR.roster[name] for name in ALL[1:]}, "'lund' is not among")])
def test_rosters_that_are_none(roster, words: str):
    for act in (partial(deal, FOUR.secret("lund"), EPOCH, "lund", roster, 2),
                partial(mask, VALUES_ND[0], FOUR.secret("lund"), EPOCH, "lund", roster, 0, CONTEXT)):
        with pytest.raises(ContractError, match=words):
            act()


def test_slots_and_thresholds_that_are_none():
    for slot in (-1, 2):
        with pytest.raises(ContractError, match=f"slot {slot} is not among the 2"):
            FOUR.mask("lund", VALUES_ND[0], slot)
        with pytest.raises(ContractError, match=f"slot {slot} is not among the 2"):
            FOUR.reveal("lund", ALL, slot)
    for slots in (0, MOST_SLOTS + 1):
        with pytest.raises(ContractError, match="1 to 1000 slots"):
            offer(b"x" * 32, EPOCH, slots)
    for threshold in (1, 5):
        with pytest.raises(ContractError, match="a threshold is 2 to 4"):
            deal(FOUR.secret("lund"), EPOCH, "lund", FOUR.roster, threshold)


# -- what is dealt -------------------------------------------------------------------------------------------------------


def test_what_is_dealt_honestly_is_nobodys_complaint():
    for dealer in ALL:
        for me in ALL:
            FOUR.check(me, dealer, FOUR.dealt[dealer])


def _otherwise(**cohort) -> Dealt:
    return Cohort(**{"members": 4, "threshold": 3} | cohort).dealt["oslo"]


@pytest.mark.parametrize(("dealt", "words"), [
    (_otherwise(epoch=b"f" * 32), "does not open"),                                     # of another epoch
    (_otherwise(members=5), "for 5 members"), (_otherwise(slots=3), "3 slots"), (_otherwise(threshold=4), "threshold 4"),
    (replace(_otherwise(threshold=4), threshold=3), "does not open"),
    (FOUR.dealt["turku"], "does not open"),                                             # somebody else's
], ids=["epoch", "members", "slots", "threshold", "another threshold under this one's name", "dealer"])
def test_attack_what_was_dealt_for_something_else(dealt: Dealt, words: str):
    with pytest.raises(ContractError, match=f"'oslo' dealt.*{words}"):
        FOUR.check("lund", "oslo", dealt)


def test_attack_boxes_of_two_members_swapped():
    one, (mine, yours) = FOUR.dealt["oslo"], (sorted(ALL).index(name) for name in ("lund", "aarhus"))
    at = one._boxes_at + mine * one._box_bytes
    with pytest.raises(ContractError, match="what 'oslo' dealt to 'lund' does not open"):
        FOUR.check("lund", "oslo", swapped(one, at, one.box(yours)))


@given(st.data())
def test_attack_every_flipped_bit_of_what_concerns_me_is_a_complaint_that_names_the_dealer(data: st.DataObject):
    one, place = FOUR.dealt["oslo"], sorted(ALL).index("lund")
    mine = [*range(one._boxes_at + place * one._box_bytes, one._boxes_at + (place + 1) * one._box_bytes)]
    for slot in range(2):
        at = 32 * (2 + 2 * (slot * 4 + place))
        mine += range(at, at + 64)
    at = data.draw(st.sampled_from(mine))
    flipped = bytes([one.body[at] ^ 1 << data.draw(st.integers(0, 7))])
    with pytest.raises(ContractError, match="what 'oslo' dealt to 'lund'"):
        FOUR.check("lund", "oslo", swapped(one, at, flipped))


def test_attack_a_wrong_share_is_a_complaint_that_names_the_dealer(monkeypatch: pytest.MonkeyPatch):
    """The dealer seals another share than it commits itself to, for one member in one slot."""
    honest, place = dealing.share_hash, sorted(ALL).index("lund")

    def lying(who, slot, dealer, holder, kind, value):
        return honest(who, slot, dealer, holder, kind, bytes(32) if holder == "lund" and slot == 1 else value)

    monkeypatch.setattr(dealing, "share_hash", lying)
    wrong = deal(FOUR.secret("oslo"), EPOCH, "oslo", FOUR.roster, 3)
    monkeypatch.undo()
    assert wrong.box(place) == FOUR.dealt["oslo"].box(place)
    with pytest.raises(ContractError, match="what 'oslo' dealt to 'lund' for slot 1 is not what it committed itself to"):
        FOUR.check("lund", "oslo", wrong)
    FOUR.check("aarhus", "oslo", wrong)
    with pytest.raises(ContractError, match="what 'oslo' dealt to 'lund' for slot 1"):
        reveal(FOUR.secret("lund"), EPOCH, "lund", FOUR.roster, FOUR.dealt | {"oslo": wrong}, 1, ALL, [], 3)


def test_attack_a_share_that_has_no_form_is_a_complaint_before_anybody_says_it(monkeypatch: pytest.MonkeyPatch):
    """It was committed to rightly. Who said it on would be the one whose reveal cannot be read."""
    monkeypatch.setattr(dealing, "share", lambda secret, rest, place: shamir.PRIME)
    wrong = deal(FOUR.secret("oslo"), EPOCH, "oslo", FOUR.roster, 3)
    monkeypatch.undo()
    with pytest.raises(ContractError, match="what 'oslo' dealt to 'lund' for slot 0 is not what it committed itself to"):
        FOUR.check("lund", "oslo", wrong)


@pytest.mark.parametrize("survives", [True, False])
def test_attack_shares_on_no_polynomial_of_the_degree_name_their_dealer(survives: bool, monkeypatch: pytest.MonkeyPatch):
    """Each share is what was committed to, so nobody complains; together they make no secret. The sum is lost, and it is
    known to whom."""
    cohort = Cohort(4, 3, slots=1)
    monkeypatch.setattr(dealing, "share", lambda secret, rest, place: shamir.share(secret, [*rest, 5], place))
    wrong = deal(cohort.secret("turku"), EPOCH, "turku", cohort.roster, 3)
    monkeypatch.undo()
    for me in ALL:
        cohort.check(me, "turku", wrong)
    cohort.__dict__["dealt"] = cohort.dealt | {"turku": wrong}
    survivors = ALL if survives else [name for name in ALL if name != "turku"]
    total_D = sum((cohort.mask(name, VALUES_ND[0]) for name in survivors), np.zeros(5, np.uint32))
    with pytest.raises(DealtWrongError, match="the shares that turku dealt make no secret"):
        cohort.unmask(total_D, survivors, {name: cohort.reveal(name, survivors) for name in survivors})


# -- what is revealed ----------------------------------------------------------------------------------------------------


def _reveals(survivors, slot: int = 0) -> dict[str, Reveals]:
    return {name: FOUR.reveal(name, survivors, slot) for name in survivors}


def _total(survivors, slot: int = 0):
    return sum((FOUR.mask(name, VALUES_ND[ALL.index(name)], slot) for name in survivors), np.zeros(5, np.uint32))


WRONG = {
    "another slot": lambda: FOUR.reveal("oslo", ALL, 1),
    "another epoch": lambda: Cohort(4, 3, epoch=b"f" * 32).reveal("oslo", ALL),
    "somebody else's": lambda: FOUR.reveal("lund", ALL),
    "for other survivors": lambda: FOUR.reveal("oslo", ALL[:3]),
    "zeros": lambda: Reveals((bytes(32),) * 4),
    "one bit": lambda: Reveals((*FOUR.reveal("oslo", ALL).shares[:3], bytes([FOUR.reveal("oslo", ALL).shares[3][0] ^ 1])
                                + FOUR.reveal("oslo", ALL).shares[3][1:])),
    "too few": lambda: Reveals(FOUR.reveal("oslo", ALL).shares[:3]),
    "in another order": lambda: Reveals(FOUR.reveal("oslo", ALL).shares[::-1]),
}


@pytest.mark.parametrize("what", WRONG)
def test_attack_a_wrong_reveal_names_its_member_and_the_sum_is_right(what: str):
    reveals = _reveals(ALL) | {"oslo": WRONG[what]()}
    found = FOUR.unmask(_total(ALL), ALL, reveals)
    assert found.wrong == ("oslo",)
    assert (found.total_D == VALUES_ND.sum(axis=0, dtype=np.uint32)).all()
    with pytest.raises(QuorumError, match="2 members.*3 must; not those that they were dealt revealed oslo"):
        FOUR.unmask(_total(ALL), ALL, {name: reveals[name] for name in ("lund", "oslo", "turku")})


def test_attack_a_member_that_is_not_in_the_sum_reveals():
    with pytest.raises(ContractError, match="'turku' revealed shares and is not among the survivors"):
        FOUR.unmask(_total(ALL[:3]), ALL[:3], _reveals(ALL[:3]) | {"turku": FOUR.reveal("turku", ALL)})


def test_attack_survivors_that_a_member_may_not_help():
    spec = SecureSum(threshold=3, dropouts=1, colluders=0)
    check_survivors(spec, 4, "lund", FOUR.roster, ALL[:3], ALL[3:])
    check_survivors(spec, 5, "lund", FOUR.roster, ALL, [])                  # one of five offered no keys
    for members, me, survivors, dropped, kind, words in (
            (5, "lund", ALL[:3], ALL[3:], ToleranceError, "over 3 members.*agreed on 4"),
            (4, "lund", ALL[1:], ALL[:1], ContractError, "'lund' was asked to reveal shares for a sum that it is not in"),
            (4, "lund", ALL, ["oslo"], ContractError, "each once"), (4, "lund", ALL[:3], [], ContractError, "each once"),
            (4, "lund", [*ALL[:3], "lund"], ALL[3:], ContractError, "each once"),
            (4, "lund", [*ALL[:3], "nobody"], ALL[3:], ContractError, "each once")):
        with pytest.raises(kind, match=words):
            check_survivors(spec, members, me, FOUR.roster, survivors, dropped)
    for survivors in (ALL[1:], ALL[:2]):
        with pytest.raises(ContractError, match="'lund' reveals shares only for a sum that it is in"):
            FOUR.reveal("lund", survivors)


def test_shares_of_all_and_of_nobody_else():
    for dealt in ({name: FOUR.dealt[name] for name in ALL[1:]}, FOUR.dealt | {"gent": FOUR.dealt["lund"]}):
        with pytest.raises(ContractError, match="of every member of the roster, and of nobody else"):
            reveal(FOUR.secret("lund"), EPOCH, "lund", FOUR.roster, dealt, 0, ALL, [], 3)


def test_attack_what_was_dealt_for_other_numbers_is_not_laid_at_the_revealers_door():
    FOUR.__dict__["dealt"], honest = FOUR.dealt | {"oslo": _otherwise(slots=3)}, FOUR.dealt
    try:
        with pytest.raises(ContractError, match="'oslo' dealt shares for 4 members, 3 slots"):
            FOUR.unmask(_total(ALL), ALL, {})
    finally:
        FOUR.__dict__["dealt"] = honest


# -- one form ------------------------------------------------------------------------------------------------------------

FORMS = {"keys": (Keys.from_bytes, FOUR.roster["lund"].to_bytes()),
         "dealt": (Dealt.from_bytes, FOUR.dealt["lund"].to_bytes()),
         "reveals": (Reveals.from_bytes, FOUR.reveal("lund", ALL).to_bytes())}


@pytest.mark.parametrize("what", FORMS)
def test_bytes_have_one_form(what: str):
    read, good = FORMS[what]
    assert read(good, "it").to_bytes() == good
    for bad in (b"", good[:-1], good + b"\0", good[1:], b"\0" + good, good[:40], good.replace(b"/1/", b"/2/"),
                *(FORMS[other][1] for other in FORMS if other != what)):
        with pytest.raises(ContractError, match="^it: not "):
            read(bad, "it")


@pytest.mark.parametrize("head", [(2, 2, 2), (4, 0, 3), (4, 2, 1), (4, 2, 5), (1001, 2, 3), (4, 1001, 3)])
def test_what_is_dealt_says_possible_numbers(head):
    members, slots, threshold = head
    body = bytes(32 * slots * (1 + 2 * members) + members * (64 * slots + 16))
    with pytest.raises(ContractError, match="not what a member deals"):
        Dealt.from_bytes(Dealt(members, slots, threshold, body).to_bytes(), "it")


def test_a_share_beyond_the_prime_is_none():
    prime = shamir.PRIME.to_bytes(32, "little")
    with pytest.raises(ContractError, match="not what a member reveals"):
        Reveals.from_bytes(Reveals((prime, *FOUR.reveal("lund", ALL).shares[1:])).to_bytes(), "it")
