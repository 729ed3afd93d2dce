"""A cohort that makes secure sums in one process, every message as bytes that are read again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedround.secure_sums.dealing import Dealt, check_deal, deal
from fedround.secure_sums.keys import Keys, offer
from fedround.secure_sums.masking import mask
from fedround.secure_sums.revealing import Reveals, Unmasked, reveal, unmask

EPOCH, CONTEXT = b"e" * 32, b"p" * 32
NAMES = ("lund", "aarhus", "oslo", "turku", "bergen", "uppsala", "gent")


@dataclass
class Cohort:
    members: int
    threshold: int
    slots: int = 2
    epoch: bytes = EPOCH

    @cached_property
    def names(self) -> list[str]:
        return list(NAMES[:self.members])

    def secret(self, name: str) -> bytes:
        return bytes([1 + NAMES.index(name)]) * 32

    @cached_property
    def roster(self) -> dict[str, Keys]:
        offered = {name: offer(self.secret(name), self.epoch, self.slots).to_bytes() for name in self.names}
        return {name: Keys.from_bytes(one, name) for name, one in offered.items()}

    @cached_property
    def dealt(self) -> dict[str, Dealt]:
        made = {name: deal(self.secret(name), self.epoch, name, self.roster, self.threshold) for name in self.names}
        return {name: Dealt.from_bytes(one.to_bytes(), name) for name, one in made.items()}

    def check(self, me: str, dealer: str, dealt: Dealt) -> None:
        check_deal(self.secret(me), self.epoch, me, self.roster, dealer, dealt, self.threshold)

    def mask(self, name: str, values_D, slot: int = 0, context: bytes = CONTEXT, group: Collection[str] | None = None):
        return mask(values_D, self.secret(name), self.epoch, name, self.roster, slot, context, group)

    def dropped(self, survivors: Collection[str]) -> list[str]:
        return [name for name in self.names if name not in survivors]

    def reveal(self, name: str, survivors: Collection[str], slot: int = 0) -> Reveals:
        return Reveals.from_bytes(reveal(self.secret(name), self.epoch, name, self.roster, self.dealt, slot, survivors,
                                         self.dropped(survivors), self.threshold).to_bytes(), name)

    def unmask(self, total_D, survivors: Collection[str], reveals, slot: int = 0, context: bytes = CONTEXT) -> Unmasked:
        return unmask(total_D, self.epoch, self.roster, self.dealt, slot, context, survivors, self.dropped(survivors),
                      reveals, self.threshold)


def values(members: int, size: int = 5, seed: int = 0):
    """Any numbers of the ring, (N, D)."""
    return np.random.default_rng(seed).integers(0, 2**32, (members, size), dtype=np.uint32)
