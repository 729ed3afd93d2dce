"""The public keys that a member offers for an epoch: one for a channel to each other member, and one for each slot.

A slot is used for one sum, once. All private halves follow from the site's secret and the epoch, so a retry offers the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedround.errors import ContractError
from fedround.secure_sums.derived import KEY_BYTES, derive, hashed
from fedround.secure_sums.shamir import PRIME
from fedround.secure_sums.spec import FEWEST_MEMBERS, MOST_MEMBERS

MOST_SLOTS = 1000
_BEGIN = b"fedround/1/secure-sums/keys\n"
_FIELD = 2 ** 255 - 19
_OF_SMALL_ORDER = frozenset((0, 1, _FIELD - 1, *(int.from_bytes(bytes.fromhex(u), "little") for u in (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"))))
"""The u coordinates of the points of small order of Curve25519 and its twist (libsodium's list). Under such a key everybody
knows what two members share."""


@dataclass(frozen=True)
class Keys:
    """Public X25519 keys, each the canonical form of a point that is not of small order."""

    channel: bytes
    slots: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The one form."""
        return b"".join((_BEGIN, self.channel, *self.slots))

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Keys:
        """Raises ContractError, naming the source, for anything else than keys in their one form."""
        body = data.removeprefix(_BEGIN)
        count, rest = divmod(len(body), KEY_BYTES)
        if len(body) == len(data) or rest or not 2 <= count <= MOST_SLOTS + 1:
            raise ContractError(f"{source}: not the keys of a member for secure sums, with 1 to {MOST_SLOTS} slots")
        found = tuple(body[start:start + KEY_BYTES] for start in range(0, len(body), KEY_BYTES))
        for key in found:
            u = int.from_bytes(key, "little")
            if u >= _FIELD or u in _OF_SMALL_ORDER:
                raise ContractError(f"{source}: a key in it is of small order, or not in its one form: anybody could know "
                                    "what it hides; it was not made by fedround")
        return cls(found[0], found[1:])


Roster = Mapping[str, Keys]
"""The members of an epoch by name, each with what it offered."""


def offer(secret: bytes, epoch: bytes, slots: int) -> Keys:
    """What a site offers. secret: its noise secret. epoch: the digest of what asked for keys."""
    if not 1 <= slots <= MOST_SLOTS:
        raise ContractError(f"keys are offered for 1 to {MOST_SLOTS} slots, asked were {slots}")
    return Keys(channel_key(secret, epoch).public_key().public_bytes_raw(), tuple(
        private_key(slot_secret(secret, epoch, slot)).public_key().public_bytes_raw() for slot in range(slots)))


def channel_key(secret: bytes, epoch: bytes) -> X25519PrivateKey:
    """With which a site opens what the others deal to it."""
    return X25519PrivateKey.from_private_bytes(derive(secret, "channel", epoch))


def slot_secret(secret: bytes, epoch: bytes, slot: int) -> int:
    """A slot's private key, as what is shared: below the prime."""
    return int.from_bytes(derive(secret, "slot key", epoch, slot), "little") % PRIME


def self_seed(secret: bytes, epoch: bytes, slot: int) -> int:
    """What a slot's self-mask grows from."""
    return int.from_bytes(derive(secret, "self seed", epoch, slot), "little") % PRIME


def private_key(shared: int) -> X25519PrivateKey:
    """A slot's private key, from what is shared."""
    return X25519PrivateKey.from_private_bytes(shared.to_bytes(KEY_BYTES, "little"))


def cohort(epoch: bytes, roster: Roster) -> bytes:
    """Names an epoch and all its members with all their keys: every box, share and mask is bound to it.

    Raises ContractError for too few or too many members, or if they have not equally many slots.
    """
    if not FEWEST_MEMBERS <= len(roster) <= MOST_MEMBERS:
        raise ContractError(f"a roster for secure sums has {FEWEST_MEMBERS} to {MOST_MEMBERS} members, not {len(roster)}")
    if len({len(keys.slots) for keys in roster.values()}) != 1:
        raise ContractError("the members of this roster offer keys for different numbers of slots: ask for keys again")
    return hashed("roster", epoch, *(one for name in sorted(roster) for one in (name, roster[name].to_bytes())))


def check_slot(roster: Roster, me: str, slot: int) -> None:
    """Raises ContractError unless this member has this slot."""
    if me not in roster:
        raise ContractError(f"'{me}' is not among the members of this roster, so it has no part in its sums")
    if not 0 <= slot < len(roster[me].slots):
        raise ContractError(f"slot {slot} is not among the {len(roster[me].slots)} of this epoch: offer new keys")
