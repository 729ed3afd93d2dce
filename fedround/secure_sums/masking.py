"""A member's numbers under masks: one with each other member, that cancels in the sum, and one of its own.

The masks of a slot depend on what they are for (`context`, the digest of the plan), on the epoch and on the whole roster. So
members that were shown different plans or rosters have masks that do not cancel, and learn and tell nothing. D numbers modulo
2**32.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedround.errors import ContractError
from fedround.secure_sums.derived import agreed, derive
from fedround.secure_sums.keys import Roster, check_slot, cohort, private_key, self_seed, slot_secret
from fedround.secure_sums.shamir import SHARE_BYTES

UInt32 = npt.NDArray[np.uint32]

_BLOCK = 1 << 15                # numbers at once: with a mask's and the zeros they stay in the processor's cache
_ZEROS = bytes(4 * _BLOCK)


class Mask(NamedTuple):
    """A stream of uniform numbers, by its key, and whether it is added or taken away."""

    key: bytes
    added: bool


def mask(values_D: UInt32, secret: bytes, epoch: bytes, me: str, roster: Roster, slot: int, context: bytes,
         group: Collection[str] | None = None) -> UInt32:
    """The numbers under all masks of `me`, which nobody can tell from uniform ones.

    group: whose numbers are added up (`secure_sums.groups`), `me` among them; None: all members'.
    A slot is for one sum: with other values for the same slot and context, the difference of both would be open. Who calls
    this writes down first what the slot is used for.
    Raises ContractError if the roster does not name the slot's key that `me` offers, or if another's is of small order.
    """
    check_slot(roster, me, slot)
    own = private_key(slot_secret(secret, epoch, slot))
    if own.public_key().public_bytes_raw() != roster[me].slots[slot]:
        raise ContractError(f"the roster names another key of '{me}' for slot {slot} than this site offers: its secret is "
                            "another one, or somebody altered it")
    who = cohort(epoch, roster)
    masks = [pair_mask(own, me, other, roster, who, slot, context) for other in sorted(group or roster) if other != me]
    masks.append(Mask(self_key(self_seed(secret, epoch, slot), me, who, slot, context), added=True))
    masked_D = values_D.astype("<u4")
    apply(masks, masked_D)
    return masked_D


def pair_mask(own: X25519PrivateKey, me: str, other: str, roster: Roster, who: bytes, slot: int, context: bytes) -> Mask:
    """What `me` adds and `other` takes away, or the other way round."""
    known = agreed(own, roster[other].slots[slot], other)
    low, high = sorted((me, other))
    return Mask(derive(known, "pair mask", who, slot, low, high, salt=context), added=me == low)


def self_key(seed: int, me: str, who: bytes, slot: int, context: bytes) -> bytes:
    """Of the mask that `me` adds alone."""
    return derive(seed.to_bytes(SHARE_BYTES, "little"), "self mask", who, slot, me, salt=context)


def apply(masks: Sequence[Mask], numbers_D: UInt32) -> None:
    """Add the masks to the numbers, and take those away that are not added, in place."""
    streams = [(Cipher(algorithms.AES256(one.key), modes.CTR(bytes(16))).encryptor(), np.add if one.added else np.subtract)
               for one in masks]
    room = bytearray(4 * _BLOCK)
    for start in range(0, len(numbers_D), _BLOCK):
        part = numbers_D[start:start + _BLOCK]
        zeros, made = memoryview(_ZEROS)[:4 * len(part)], np.frombuffer(room, dtype="<u4", count=len(part))
        for stream, combine in streams:
            stream.update_into(zeros, room)
            combine(part, made, out=part)
