"""The intersection is what a set's is, and what is sent tells nobody else an id."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.vertical import box
from fedround.vertical.intersection import POINT_BYTES, blinded, common, point, raised, read, written

LINK = bytes(32)
A, B = (box.key_of(bytes([number]) * 32, LINK, "exponent") for number in (1, 2))
FIELD = 2 ** 255 - 19
ids = st.lists(st.text(min_size=1, max_size=6), unique=True, min_size=1, max_size=6)


def exchange(mine: list[str], theirs: list[str]) -> tuple[list[list[str]], list[bytes]]:
    """What both find, and what both sent."""
    (mine_N, order_N), (theirs_M, order_M) = blinded(mine, A, LINK, "a"), blinded(theirs, B, LINK, "b")
    back_N, back_M = raised(mine_N, B, "a"), raised(theirs_M, A, "b")
    (at_a, seen_a), (at_b, seen_b) = common(back_N, order_N, back_M), common(back_M, order_M, back_N)
    assert seen_a == seen_b
    return [[mine[place] for place in at_a], [theirs[place] for place in at_b]], [*mine_N, *theirs_M, *back_N, *back_M]


@given(ids, ids)
def test_both_find_the_common_ids_in_one_order_and_nothing_else(mine, theirs):
    (at_a, at_b), _ = exchange(mine, theirs)
    assert at_a == at_b
    assert sorted(at_a) == sorted({*mine} & {*theirs})


@given(st.text(max_size=20))
def test_an_id_becomes_a_point_of_the_curve_and_never_of_its_twist(customer):
    u = int.from_bytes(point(customer, LINK), "little")
    assert u < FIELD
    assert pow((u * u + 486_662 * u + 1) * u % FIELD, (FIELD - 1) // 2, FIELD) == 1


def test_attack_a_side_that_a_point_keeps_tells_no_bit_of_an_id():
    """Powers of points of the curve are on the curve, and on its twist they stay there, too: no id may begin there."""
    def is_on_curve(one: bytes) -> bool:
        u = int.from_bytes(one, "little")
        return pow((u * u + 486_662 * u + 1) * u % FIELD, (FIELD - 1) // 2, FIELD) == 1

    hashed = [(int.from_bytes(hashlib.sha256(b"%d" % number).digest(), "little") % 2 ** 255 % FIELD).to_bytes(32, "little")
              for number in range(30)]
    naive = [is_on_curve(one) for one in raised(hashed, A, "a")]
    assert naive == [is_on_curve(one) for one in hashed], "the naive hash tells a bit of each id"
    assert {*naive} == {True, False}
    assert all(map(is_on_curve, raised([point(str(number), LINK) for number in range(30)], A, "a")))


def test_attack_a_dictionary_finds_no_id_in_what_is_sent():
    mine, theirs = [f"c{number}" for number in range(40)], [f"c{number}" for number in range(20, 60)]
    _, sent = exchange(mine, theirs)
    dictionary = {one for customer in {*mine, *theirs} for one in (
        point(customer, LINK), hashlib.sha256(customer.encode()).digest(), customer.encode().ljust(POINT_BYTES, b"\0"))}
    stranger = box.key_of(bytes([9]) * 32, LINK, "exponent")
    guessed = {*raised([point(customer, LINK) for customer in {*mine, *theirs}], stranger, "c")}
    assert not ({*sent} & (dictionary | guessed))


def test_another_exchange_blinds_the_same_id_otherwise():
    other = bytes([5]) * 32
    assert point("c1", LINK) != point("c1", other)
    assert box.secret_of(bytes(32), LINK, "exponent") != box.secret_of(bytes(32), other, "exponent")


@pytest.mark.parametrize(("body", "words"), [
    (b"", "0 bytes are no list"), (bytes(33), "33 bytes are no list"), (bytes(64), "names an id twice"),
    (b"".join(bytes([number]) * 32 for number in range(4)), "a set of 4 ids, and at most 3")])
def test_what_is_no_set_of_points_is_refused(body, words):
    with pytest.raises(ContractError, match=words):
        read(body, "the ids of 'b'", 3)


def test_a_point_of_small_order_is_refused_by_name():
    with pytest.raises(ContractError, match="'b' sent a point of small order"):
        raised([bytes(32)], A, "b")
    assert read(written([bytes([1]) * 32]), "b", 1) == [bytes([1]) * 32]


def test_a_box_opens_for_its_reader_and_plan_and_for_nobody_else():
    mine, theirs, other = (X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (3, 4, 5))
    sent = box.seal(b"a secret", mine, box.public_of(theirs), LINK, "a", "b")
    assert box.opened(sent, theirs, box.public_of(mine), LINK, "a", "b") == b"a secret"
    assert sent == box.seal(b"a secret", mine, box.public_of(theirs), LINK, "a", "b"), "a retry repeats the bytes"
    assert sent[:12] != box.seal(b"another", mine, box.public_of(theirs), LINK, "a", "b")[:12], "no nonce serves two texts"
    assert len(sent) == len(b"a secret") + box.BOX_BYTES
    for wrong in ((other, box.public_of(mine), LINK, "a", "b"), (theirs, box.public_of(mine), bytes([1]) * 32, "a", "b"),
                  (theirs, box.public_of(mine), LINK, "b", "a")):
        with pytest.raises(ContractError, match="does not open"):
            box.opened(sent, *wrong)
    with pytest.raises(ContractError, match="does not open"):
        box.opened(bytes([sent[0] ^ 1]) + sent[1:], theirs, box.public_of(mine), LINK, "a", "b")
    with pytest.raises(ContractError, match="does not open"):
        box.opened(b"short", theirs, box.public_of(mine), LINK, "a", "b")
    with pytest.raises(ContractError, match="small order"):
        box.seal(b"x", mine, bytes(32), LINK, "a", "b")
