"""Where the randomness of a whole simulated campaign comes from: one seed, or what a live federation drew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedround import selection
from fedround.codec import Tensors
from fedround.privacy.noise import NoiseSource, stream
from fedround.rounds.site import Draws

Float32 = npt.NDArray[np.float32]


class Chance(Protocol):
    """All that is drawn in a campaign. The same calls give the same draws."""

    def initial(self) -> int:
        """The seed of the model of round 0."""

    def cohort(self, number: int, names: Sequence[str], count: int) -> tuple[str, ...]:
        """Who is asked in a round, in order of names."""

    def selection(self, number: int) -> selection.Chance:
        """Whom a round asks, where the agreement has a selection. Live it is public."""

    def of(self, number: int, site: str) -> Draws:
        """What one site draws in a round."""

    def together(self, number: int, chunk: int) -> int:
        """The seed of a chunk of sites that are trained at once."""

    def plan(self, number: int) -> bytes:
        """What everybody knows of a round: bucketing draws its order from it, a sketch its places. Live the plan's digest."""

    def root(self, number: int) -> NoiseSource:
        """Batches of the coordinator's own training, which FLTrust compares with."""


@dataclass(frozen=True)
class Seeded:
    """Everything follows from one number. It is no secret, so what comes out is no private model."""

    number: int

    def initial(self) -> int:
        """As `Chance`."""
        return self.number

    def cohort(self, number: int, names: Sequence[str], count: int) -> tuple[str, ...]:
        """As `Chance`: every cohort of this size is equally likely."""
        if count >= len(names):
            return tuple(sorted(names))
        drawn = np.random.default_rng([self.number, number]).choice(len(names), count, replace=False)
        ordered = sorted(names)
        return tuple(ordered[place] for place in sorted(drawn))

    def selection(self, number: int) -> selection.Chance:
        """As `Chance`."""
        return selection.Chance("simulated selection", self.number, number)

    def of(self, number: int, site: str) -> Draws:
        """As `Chance`."""
        return _OfSite(f"{self.number} {number} {site}".encode())

    def together(self, number: int, chunk: int) -> int:
        """As `Chance`."""
        return int.from_bytes(hashlib.sha256(f"{self.number} {number} {chunk} together".encode()).digest()[:4], "big")

    def plan(self, number: int) -> bytes:
        """As `Chance`."""
        return f"{self.number} {number}".encode()

    def root(self, number: int) -> NoiseSource:
        """As `Chance`."""
        return stream(bytes(32), f"{self.number} {number}".encode(), b"root set")


@dataclass(frozen=True)
class _OfSite:
    """`Draws` that follow from a few bytes, and from nothing that the site computes: no secret is kept with them."""

    context: bytes

    def statistic(self, place: int, private: Tensors) -> NoiseSource:
        """As `Draws`."""
        return stream(bytes(32), self.context, b"statistic", bytes([place]))

    def training(self, shift_D: Float32 | None, private: Tensors) -> NoiseSource:
        """As `Draws`."""
        return stream(bytes(32), self.context)

    def compression(self) -> NoiseSource:
        """As `Draws`."""
        return stream(bytes(32), self.context, b"compression")

    def personal(self) -> NoiseSource:
        """As `Draws`."""
        return stream(bytes(32), self.context, b"personal")

    def persons(self) -> bytes:
        """As `Draws`."""
        return bytes(32)
