"""Where a site's randomness comes from: only from its secret.

The context of every stream holds the plan and a digest of the rows. The same plan on other rows draws other noise, so no two
releases ever share it. A retry draws the same.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.codec import Tensors
from fedround.privacy.noise import NoiseSource, stream

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SiteDraws:
    """What one site draws for one plan on these rows (`fedround.rounds.site.Draws`)."""

    secret: bytes
    plan: str
    rows: bytes
    """Digests."""

    def statistic(self, place: int, private: Tensors) -> NoiseSource:
        """As `Draws`."""
        return self._stream(b"statistic", bytes([place]), *_digest_of(private))

    def training(self, shift_D: Float32 | None, private: Tensors) -> NoiseSource:
        """As `Draws`."""
        return self._stream(b"training", *(() if shift_D is None else (shift_D.tobytes(),)), *_digest_of(private))

    def compression(self) -> NoiseSource:
        """As `Draws`."""
        return self._stream(b"compression")

    def personal(self) -> NoiseSource:
        """As `Draws`."""
        return self._stream(b"personal")

    def persons(self) -> bytes:
        """As `Draws`."""
        return hmac.digest(self.secret, b"persons", "sha256")

    def _stream(self, *what: bytes) -> NoiseSource:
        return stream(self.secret, self.plan.encode(), self.rows, *what)


def _digest_of(private: Tensors) -> tuple[bytes, ...]:
    """A digest of the private part: a release depends on it, so its noise must too. Frozen tensors are named by the plan."""
    return (hashlib.sha256(codec.encode(private)).digest(),) if private else ()
