"""What members say when it is known whose numbers are in the sum, and the sum.

Of a member that is in it, each tells its share of the self-mask's seed. Of one that dropped out, its share of the slot's key,
so that the masks with it can be taken away. Never both of one member: whoever had both could open its numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fedround.errors import ContractError, DealtWrongError, QuorumError, ToleranceError
from fedround.secure_sums.dealing import Dealt, Kind, is_share, opened, seed_hash, share_hash
from fedround.secure_sums.keys import Roster, check_slot, cohort, private_key
from fedround.secure_sums.masking import Mask, UInt32, apply, pair_mask, self_key
from fedround.secure_sums.shamir import PRIME, SHARE_BYTES, weights
from fedround.secure_sums.spec import FEWEST_MEMBERS, MOST_MEMBERS, SecureSum
from fedround.spoken import how_many

_BEGIN = b"fedround/1/secure-sums/reveals\n"


@dataclass(frozen=True)
class Reveals:
    """A member's shares for one slot, one of each member, in the order of names."""

    shares: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The one form."""
        return b"".join((_BEGIN, *self.shares))

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Reveals:
        """Raises ContractError, naming the source, for anything else than revealed shares in their one form."""
        body = data.removeprefix(_BEGIN)
        count, rest = divmod(len(body), SHARE_BYTES)
        found = tuple(body[start:start + SHARE_BYTES] for start in range(0, len(body), SHARE_BYTES))
        if len(body) == len(data) or rest or not FEWEST_MEMBERS <= count <= MOST_MEMBERS or not all(map(is_share, found)):
            raise ContractError(f"{source}: not what a member reveals for secure sums")
        return cls(found)


def check_survivors(spec: SecureSum, members: int, me: str, roster: Roster, survivors: Collection[str],
                    dropped: Collection[str]) -> None:
    """Whether `me` may reveal its shares for a sum over these survivors. That it does so for one sum in a slot, once ever, is
    for the caller to remember.

    members: of the federation, those among them that never offered keys.
    Raises ToleranceError for too few survivors, ContractError for what is no partition of the roster, or without `me`.
    """
    if len(survivors) < spec.least(members):
        raise ToleranceError(f"a sum over {how_many(len(survivors), 'member')} was asked for; this federation agreed on "
                             f"{spec.least(members)} at least, so '{me}' reveals nothing")
    if me not in survivors:
        raise ContractError(f"'{me}' was asked to reveal shares for a sum that it is not in")
    _check_parts(roster, survivors, dropped)


def _check_parts(roster: Roster, survivors: Collection[str], dropped: Collection[str]) -> None:
    named = [*survivors, *dropped]
    if len(set(named)) != len(named) or set(named) != set(roster):
        raise ContractError("survivors and dropped members must be all members of the roster, each once: whoever is in both "
                            "would be open to everybody")


def reveal(secret: bytes, epoch: bytes, me: str, roster: Roster, dealt: Mapping[str, Dealt], slot: int,
           survivors: Collection[str], dropped: Collection[str], threshold: int) -> Reveals:
    """`me`'s shares for this slot: of the survivors' seeds, and of the dropped members' keys.

    Raises ContractError for what is no partition of the roster, or without `me`, or with fewer survivors than the threshold;
    and, naming the dealer, where a share is not what it committed itself to. `check_survivors` asks for more.
    """
    check_slot(roster, me, slot)
    _check_parts(roster, survivors, dropped)
    if me not in survivors or len(survivors) < threshold:
        raise ContractError(f"'{me}' reveals shares only for a sum that it is in, over {threshold} members at least")
    _check_dealt(roster, dealt, threshold)
    shares = []
    for dealer in sorted(roster):
        mine, = opened(secret, epoch, me, roster, dealer, dealt[dealer], threshold, (slot,))
        shares.append(mine[_kind(dealer, survivors)])
    return Reveals(tuple(shares))


class Unmasked(NamedTuple):
    """A sum, and who revealed what it had not been dealt."""

    total_D: UInt32
    wrong: tuple[str, ...]


def unmask(total_D: UInt32, epoch: bytes, roster: Roster, dealt: Mapping[str, Dealt], slot: int, context: bytes,
           survivors: Collection[str], dropped: Collection[str], reveals: Mapping[str, Reveals], threshold: int) -> Unmasked:
    """The sum of the survivors' numbers, from the sum of what they sent, modulo 2**32. Raises as `rebuilt`."""
    found = rebuilt(epoch, roster, dealt, slot, survivors, dropped, reveals, threshold)
    return Unmasked(found.unmask(total_D, roster, slot, context, roster), found.wrong)


@dataclass(frozen=True)
class Rebuilt:
    """The secrets of a slot that its members revealed together."""

    who: bytes
    secrets: Mapping[str, int]
    """Of each member: its self-mask's seed if it survived, its slot's key if it dropped out."""
    survivors: frozenset[str]
    wrong: tuple[str, ...]
    """Who revealed what it had not been dealt."""

    def unmask(self, total_D: UInt32, roster: Roster, slot: int, context: bytes, group: Collection[str]) -> UInt32:
        """The sum of the numbers of a group's survivors, from the sum of what they sent, modulo 2**32."""
        inside, gone = sorted(self.survivors & set(group)), sorted(set(group) - self.survivors)
        masks = [Mask(self_key(self.secrets[name], name, self.who, slot, context), added=False) for name in inside]
        masks += [pair_mask(private_key(self.secrets[one]), one, name, roster, self.who, slot, context)
                  for one in gone for name in inside]
        found_D = total_D.astype("<u4")
        apply(masks, found_D)
        return found_D


def rebuilt(epoch: bytes, roster: Roster, dealt: Mapping[str, Dealt], slot: int, survivors: Collection[str],
            dropped: Collection[str], reveals: Mapping[str, Reveals], threshold: int) -> Rebuilt:
    """What takes the masks off the sums of a slot.

    Members whose shares are not what their dealers committed themselves to are named, and not used. Everybody who may read
    what members dealt and revealed can compute the same.
    Raises QuorumError with fewer than `threshold` right reveals, and DealtWrongError, naming the dealer, if right shares of
    one dealer make no right secret: then there is no sum, and it is that dealer's doing.
    """
    _check_parts(roster, survivors, dropped)
    _check_dealt(roster, dealt, threshold)
    check_slot(roster, min(roster), slot)
    if strangers := sorted(set(reveals) - set(survivors)):
        raise ContractError(f"'{strangers[0]}' revealed shares and is not among the survivors")
    who, names = cohort(epoch, roster), sorted(roster)
    wrong = tuple(name for name in sorted(reveals) if not _is_right(name, reveals[name], who, names, dealt, slot, survivors))
    right = [name for name in sorted(reveals) if name not in wrong]
    if len(right) < threshold:
        raise QuorumError(f"{how_many(len(right), 'member')} revealed their shares rightly, {threshold} must"
                          + (f"; not those that they were dealt revealed {', '.join(wrong)}" if wrong else "")
                          + ": ask again in a new attempt")
    used = right[:threshold]
    weight = weights([names.index(name) + 1 for name in used])
    secrets = {dealer: sum(by * int.from_bytes(reveals[name].shares[place], "little")
                           for by, name in zip(weight, used, strict=True)) % PRIME for place, dealer in enumerate(names)}
    if liars := [name for name in names if not _is_secret(name, secrets[name], who, roster, dealt, slot, survivors)]:
        raise DealtWrongError(f"the shares that {', '.join(liars)} dealt make no secret, so there is no sum with these keys; "
                              "the federation goes on without whoever dealt them: 'fedround federation revoke'")
    return Rebuilt(who, secrets, frozenset(survivors), wrong)


def _check_dealt(roster: Roster, dealt: Mapping[str, Dealt], threshold: int) -> None:
    if set(dealt) != set(roster):
        raise ContractError("shares are needed of every member of the roster, and of nobody else")
    for dealer in sorted(dealt):
        dealt[dealer].check(dealer, roster, threshold)


def _kind(dealer: str, survivors: Collection[str]) -> Kind:
    return "self seed" if dealer in survivors else "slot key"


def _is_right(holder: str, said: Reveals, who: bytes, names: list[str], dealt: Mapping[str, Dealt], slot: int,
              survivors: Collection[str]) -> bool:
    """Whether a member's shares are those that it was dealt, all of them."""
    place = names.index(holder)
    return len(said.shares) == len(names) and all(
        dealt[dealer].commitment(slot, place, _kind(dealer, survivors)) == share_hash(
            who, slot, dealer, holder, _kind(dealer, survivors), value)
        for dealer, value in zip(names, said.shares, strict=True))


def _is_secret(dealer: str, secret: int, who: bytes, roster: Roster, dealt: Mapping[str, Dealt], slot: int,
               survivors: Collection[str]) -> bool:
    """Whether what the shares make is what the dealer offered, or committed itself to."""
    if dealer in survivors:
        return seed_hash(who, slot, dealer, secret) == dealt[dealer].seed_commitment(slot)
    return private_key(secret).public_key().public_bytes_raw() == roster[dealer].slots[slot]
