"""Against a second implementation, the standards' own vectors, and bytes that were written down."""

from __future__ import annotations

import hashlib
import random
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedround.errors import ContractError
from fedround.secure_sums import keys as ours
from fedround.secure_sums.derived import agreed
from fedround.secure_sums.masking import Mask, apply
from tests.fedround.secure_sums import naive
from tests.fedround.secure_sums.cohorts import CONTEXT, EPOCH, Cohort, values


def test_what_a_member_sends_is_what_the_second_implementation_sends():
    cohort = Cohort(3, 2)
    offered = {name: naive.keys(cohort.secret(name), EPOCH, 2) for name in cohort.names}
    assert offered == {name: one.to_bytes() for name, one in cohort.roster.items()}
    values_ND = values(3, 7)
    for name, row_D in zip(cohort.names, values_ND, strict=True):
        for slot in (0, 1):
            expected = naive.masked(row_D.tolist(), cohort.secret(name), EPOCH, name, offered, slot, CONTEXT)
            assert cohort.mask(name, row_D, slot).tolist() == expected


@pytest.mark.parametrize("size", [3, 4])
def test_the_sum_is_that_of_a_naive_bonawitz(size: int):
    cohort, values_ND = Cohort(4, 3, slots=1), values(4, 3)
    numbers = dict(zip(cohort.names, values_ND.tolist(), strict=True))
    secrets = {name: cohort.secret(name) for name in cohort.names}
    for survivors in list(combinations(cohort.names, size))[:2]:
        theirs = naive.bonawitz(numbers, secrets, list(survivors), 3, EPOCH, CONTEXT, random.Random(1))
        total_D = sum((cohort.mask(name, values_ND[cohort.names.index(name)]) for name in survivors), np.zeros(3, np.uint32))
        found = cohort.unmask(total_D, survivors, {name: cohort.reveal(name, survivors) for name in survivors})
        assert found.total_D.tolist() == theirs == [sum(column) % 2**32 for column in zip(
            *(numbers[name] for name in survivors), strict=True)]


def test_rfc_7748():
    """Section 5.2, both vectors, through what we call and through the second implementation; and the thousand rounds."""
    for scalar, u, expected in (
            ("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
             "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
             "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
            ("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
             "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
             "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957")):
        private = ours.private_key(int.from_bytes(bytes.fromhex(scalar), "little"))
        assert agreed(private, bytes.fromhex(u), "lund").hex() == expected
        assert naive.x25519(bytes.fromhex(scalar), bytes.fromhex(u)).hex() == expected
    scalar = u = (9).to_bytes(32, "little")
    for number in range(1, 1001):
        scalar, u = agreed(ours.private_key(int.from_bytes(scalar, "little")), u, "lund"), scalar
        if number == 1:
            assert scalar.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_sp_800_38a():
    """F.1.5: AES-256, two blocks; and our stream is that cipher of 0, 1, 2, …, little-endian words, as F.5.5's is of its own
    counter."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    assert block.update(bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")).hex() == (
        "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    first = bytes(a ^ b for a, b in zip(block.update(counter), plain, strict=True))
    assert first.hex() == "601ec313775789a5b7a7f504bbf3d228"
    numbers_D = np.zeros(10, np.uint32)
    apply([Mask(key, added=True)], numbers_D)
    assert numbers_D.tolist() == naive.stream(key, 10)
    apply([Mask(key, added=False)], numbers_D)
    assert not numbers_D.any()


def test_the_list_of_points_of_small_order_is_right():
    """With each of them what is agreed is zero, whatever the secret; and no other of their neighbours is so."""
    for u in ours._OF_SMALL_ORDER:
        point = u.to_bytes(32, "little")
        assert naive.x25519(b"\x07" * 32, point) == bytes(32)
        with pytest.raises(ContractError, match="'lund' is of small order"):
            agreed(X25519PrivateKey.from_private_bytes(b"\x07" * 32), point, "lund")
        for near in {(u + 2) % ours._FIELD, (u + 3) % ours._FIELD} - ours._OF_SMALL_ORDER:
            assert agreed(X25519PrivateKey.from_private_bytes(b"\x07" * 32), near.to_bytes(32, "little"), "lund")


RECORDED = {
    "keys": "fb520e5e909b974332601b89c42e833d7e08255d78d15aac32909f7d0b365aab",
    "dealt": "1de4d0f44a544847099434c38edc009e276e08865da857d3b99bea85db14ba91",
    "masked": "71599e165d4b03e7e4584dfccd499930e793aeed1df09036793a8773408eb70e",
    "reveals": "73d8c8e373f3a85457daec8e530f41734b81dc5eaa97ef07db7003375db82ca1",
    "sum": "c866498d294ad32eecf768e323dcc1f3c21f5539af91c67bebb25f5178c3f8cb"}


def test_recorded_bytes():
    """Fixed secrets make these messages, in every version: members with different versions have the same masks."""
    cohort = Cohort(5, 4)
    survivors = cohort.names[:4]
    values_ND = values(5, 1000, seed=7)
    masked_ND = [cohort.mask(name, values_ND[i], slot=1) for i, name in enumerate(survivors)]
    reveals = {name: cohort.reveal(name, survivors, slot=1) for name in survivors}
    found = cohort.unmask(sum(masked_ND), survivors, reveals, slot=1)
    said = {"keys": cohort.roster["oslo"].to_bytes(), "dealt": cohort.dealt["oslo"].to_bytes(),
            "masked": masked_ND[2].tobytes(), "reveals": reveals["oslo"].to_bytes(), "sum": found.total_D.tobytes()}
    assert {what: hashlib.sha256(body).hexdigest() for what, body in said.items()} == RECORDED
