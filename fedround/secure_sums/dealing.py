"""What a member deals to all, once an epoch: shares of its slot keys and self-masks' seeds, sealed for each, and commitments.

For every slot there are two secrets: the slot's private key, from which the masks with the others come, and the seed of the
mask that it adds alone. Of each, every member gets a share. N members in the order of their names, S slots.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedround.errors import ContractError
from fedround.secure_sums.derived import agreed, derive, hashed
from fedround.secure_sums.keys import MOST_SLOTS, Roster, channel_key, check_slot, cohort, offer, self_seed, slot_secret
from fedround.secure_sums.shamir import PRIME, SHARE_BYTES, share
from fedround.secure_sums.spec import FEWEST_MEMBERS, MOST_MEMBERS

Kind = Literal["self seed", "slot key"]
KINDS: tuple[Kind, Kind] = ("self seed", "slot key")
HASH_BYTES = 32
_BEGIN = b"fedround/1/secure-sums/dealt\n"
_HEAD = struct.Struct("<HHH")
_TAG_BYTES = 16
_NONCE = bytes(12)              # every box has a key of its own, and one content
_COEFFICIENT_BYTES = 48         # modulo the prime they are uniform up to 2**-128
_BLOCK_BYTES = 16


@dataclass(frozen=True)
class Dealt:
    """A member's shares for all members, itself among them."""

    members: int
    slots: int
    threshold: int
    body: bytes
    """The seeds' commitments (S), the shares' (S, N, 2), then N boxes."""

    def to_bytes(self) -> bytes:
        """The one form."""
        return _BEGIN + _HEAD.pack(self.members, self.slots, self.threshold) + self.body

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Dealt:
        """Raises ContractError, naming the source, for anything else than what is dealt in its one form."""
        head = data[len(_BEGIN):len(_BEGIN) + _HEAD.size]
        if data.startswith(_BEGIN) and len(head) == _HEAD.size:
            members, slots, threshold = _HEAD.unpack(head)
            found = cls(members, slots, threshold, data[len(_BEGIN) + _HEAD.size:])
            if (FEWEST_MEMBERS <= members <= MOST_MEMBERS and 1 <= slots <= MOST_SLOTS and 2 <= threshold <= members
                    and len(found.body) == found._boxes_at + members * found._box_bytes):
                return found
        raise ContractError(f"{source}: not what a member deals for secure sums")

    @property
    def _boxes_at(self) -> int:
        return HASH_BYTES * self.slots * (1 + 2 * self.members)

    @property
    def _box_bytes(self) -> int:
        return 2 * SHARE_BYTES * self.slots + _TAG_BYTES

    def check(self, dealer: str, roster: Roster, threshold: int) -> None:
        """Raises ContractError, naming the dealer, if it dealt for other numbers than those of the roster."""
        asked = len(roster), len(roster[dealer].slots), threshold
        if (self.members, self.slots, self.threshold) != asked:
            raise ContractError(f"'{dealer}' dealt shares for {self.members} members, {self.slots} slots and threshold "
                                f"{self.threshold}, not for {asked[0]}, {asked[1]} and {asked[2]}")

    def seed_commitment(self, slot: int) -> bytes:
        """Of the seed of a slot's self-mask."""
        return self.body[HASH_BYTES * slot:HASH_BYTES * (slot + 1)]

    def commitment(self, slot: int, place: int, kind: Kind) -> bytes:
        """Of the share of the member at this place, from 0, in the order of names."""
        at = HASH_BYTES * (self.slots + 2 * (slot * self.members + place) + KINDS.index(kind))
        return self.body[at:at + HASH_BYTES]

    def box(self, place: int) -> bytes:
        """What is sealed for the member at this place."""
        at = self._boxes_at + place * self._box_bytes
        return self.body[at:at + self._box_bytes]


def deal(secret: bytes, epoch: bytes, me: str, roster: Roster, threshold: int) -> Dealt:
    """What `me` deals to the roster. The same arguments give the same bytes.

    Raises ContractError if the roster does not name the keys that `me` offers, or a member's key is of small order.
    """
    check_slot(roster, me, 0)
    who, names, slots = cohort(epoch, roster), sorted(roster), len(roster[me].slots)
    if offer(secret, epoch, slots) != roster[me]:
        raise ContractError(f"the roster names other keys of '{me}' than this site offers: its secret is another one, or "
                            "somebody altered them")
    if not 2 <= threshold <= len(names):
        raise ContractError(f"a threshold is 2 to {len(names)}, the number of members, not {threshold}")
    coefficients = _coefficients(derive(secret, "polynomials", who, threshold), 2 * slots * (threshold - 1))
    commitments, boxes = [], [b""] * len(names)
    seeds = b""
    for slot in range(slots):
        shared = {"self seed": self_seed(secret, epoch, slot), "slot key": slot_secret(secret, epoch, slot)}
        seeds += seed_hash(who, slot, me, shared["self seed"])
        polynomials = {kind: [next(coefficients) for _ in range(threshold - 1)] for kind in KINDS}
        for place, name in enumerate(names):
            for kind in KINDS:
                value = share(shared[kind], polynomials[kind], place + 1).to_bytes(SHARE_BYTES, "little")
                boxes[place] += value
                commitments.append(share_hash(who, slot, me, name, kind, value))
    channel = channel_key(secret, epoch)
    sealed = [AESGCM(derive(agreed(channel, roster[name].channel, name), "box", who, threshold, me, name)).encrypt(
        _NONCE, box, None) for name, box in zip(names, boxes, strict=True)]
    return Dealt(len(names), slots, threshold, b"".join((seeds, *commitments, *sealed)))


def check_deal(secret: bytes, epoch: bytes, me: str, roster: Roster, dealer: str, dealt: Dealt, threshold: int) -> None:
    """Whether what `dealer` dealt to `me` is what it committed itself to, for every slot.

    Raises ContractError naming the dealer: a complaint. Not found here: shares that lie on no polynomial of the right degree;
    `unmask` finds them, and names the dealer.
    """
    opened(secret, epoch, me, roster, dealer, dealt, threshold, range(len(roster[me].slots)))


def opened(secret: bytes, epoch: bytes, me: str, roster: Roster, dealer: str, dealt: Dealt, threshold: int,
           slots: Sequence[int]) -> list[dict[Kind, bytes]]:
    """`me`'s shares of the dealer's secrets in these slots. Raises as `check_deal`, for these slots."""
    check_slot(roster, me, 0)
    who, names = cohort(epoch, roster), sorted(roster)
    if dealer not in roster:
        raise ContractError(f"'{dealer}' is not among the members of this roster, and dealt")
    dealt.check(dealer, roster, threshold)
    place = names.index(me)
    key = derive(agreed(channel_key(secret, epoch), roster[dealer].channel, dealer), "box", who, threshold, dealer, me)
    try:
        shares = AESGCM(key).decrypt(_NONCE, dealt.box(place), None)
    except InvalidTag:
        raise ContractError(f"what '{dealer}' dealt to '{me}' does not open: it is for another member, roster or epoch, or "
                            "was altered") from None
    found = []
    for slot in slots:
        mine: dict[Kind, bytes] = {}
        for number, kind in enumerate(KINDS):
            at = SHARE_BYTES * (2 * slot + number)
            mine[kind] = shares[at:at + SHARE_BYTES]
            if not is_share(mine[kind]) or dealt.commitment(slot, place, kind) != share_hash(
                    who, slot, dealer, me, kind, mine[kind]):
                raise ContractError(f"what '{dealer}' dealt to '{me}' for slot {slot} is not what it committed itself to")
        found.append(mine)
    return found


def is_share(value: bytes) -> bool:
    """Whether these bytes are a share in its one form."""
    return len(value) == SHARE_BYTES and int.from_bytes(value, "little") < PRIME


def share_hash(who: bytes, slot: int, dealer: str, holder: str, kind: Kind, value: bytes) -> bytes:
    """The commitment to a share. Without a salt: a share has 256 bits that nobody can guess."""
    return hashed("share of a self seed" if kind == "self seed" else "share of a slot key", who, slot, dealer, holder, value)


def seed_hash(who: bytes, slot: int, dealer: str, seed: int) -> bytes:
    """The commitment to the seed of a self-mask. A slot key needs none: its public half is known."""
    return hashed("self seed", who, slot, dealer, seed.to_bytes(SHARE_BYTES, "little"))


def _coefficients(key: bytes, count: int) -> Iterator[int]:
    cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(_BLOCK_BYTES)))
    stream = cipher.encryptor().update(bytes(_COEFFICIENT_BYTES * count))
    return (int.from_bytes(stream[at:at + _COEFFICIENT_BYTES], "little") % PRIME
            for at in range(0, len(stream), _COEFFICIENT_BYTES))
