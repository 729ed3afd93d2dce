"""What a site says of keys, or sends to one other member: whether it has its form. Whether it is true is found where it is
used; what is encrypted, only its reader can judge.
"""

from __future__ import annotations

from fedround.errors import ContractError
from fedround.records import DealShares, Join, OfferKeys, Plan, Reveal
from fedround.secure_sums.dealing import Dealt
from fedround.secure_sums.keys import Keys
from fedround.secure_sums.revealing import Reveals
from fedround.spoken import how_many
from fedround.vertical import box


def check_form(plan: Plan, body: bytes, source: str) -> None:
    """Raises ContractError, naming the source, unless these are keys, dealt shares or revealed ones, as `plan` asks."""
    match plan.asks:
        case OfferKeys(slots=slots):
            if (count := len(Keys.from_bytes(body, source).slots)) != slots:
                raise ContractError(f"{source}: offers keys for {how_many(count, 'slot')}, asked were {slots}")
        case DealShares(members=members, slots=slots):
            dealt, threshold = Dealt.from_bytes(body, source), plan.agreed.combine and plan.agreed.combine.threshold
            if (dealt.members, dealt.slots, dealt.threshold) != (members, slots, threshold):
                raise ContractError(f"{source}: dealt to {dealt.members} members for {dealt.slots} slots with threshold "
                                    f"{dealt.threshold}, asked were {members}, {slots} and {threshold}")
        case Reveal(survivors=survivors, dropped=dropped):
            if (count := len(Reveals.from_bytes(body, source).shares)) != len(survivors) + len(dropped):
                raise ContractError(f"{source}: reveals {how_many(count, 'share')}, asked were "
                                    f"{len(survivors) + len(dropped)}")
        case Join(step="channel"):
            if len(body) != box.KEY_BYTES:
                raise ContractError(f"{source}: sent {len(body)} bytes as a key, expected {box.KEY_BYTES}")
        case Join():
            if len(body) <= box.BOX_BYTES:
                raise ContractError(f"{source}: sent {len(body)} bytes to its peer, which hold nothing")
        case _:
            raise ContractError(f"{source}: sent a file about keys to a plan to {plan.asks.kind}")
