"""What each of several coordinators signs of a proposed commit."""

from __future__ import annotations

from typing import ClassVar

from fedround.values import Digest, Name, Round, Signed


class Cosignature(Signed):
    """A coordinator has computed the proposed commit again from the store, found every byte, and signs no other of this
    round.
    """

    kind: ClassVar[str] = "cosignature"

    federation: Name
    run: Name
    round: Round
    commit: Digest
    """Of the signed proposal, which is the commit once a majority has signed it."""
    coordinator: Name
