"""A small federation with two rounds whose models can be put into use, and the bundle of the first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedround.bundle import Bundle, read_bundle
from tasks.bundle import build
from tasks.catch_up import catch_up
from tests import small_federation
from tests.small_federation import SmallFederation

CARD = 'data = "Made up."\nlicence = "CC0-1.0"\nintended_use = "Tests."\nlimits = "Nothing else."\n'


@dataclass(frozen=True)
class Bundled:
    """Made once; a test that changes something takes a copy."""

    federation: SmallFederation
    body: bytes

    @property
    def key(self) -> str:
        """The coordinator's."""
        return self.federation.coordinator.identity.key

    @property
    def bundle(self) -> Bundle:
        """As it is read."""
        return read_bundle(self.body, self.key, "bundle")

    def file(self, folder: Path) -> Path:
        """Written there."""
        path = folder / "spring.zip"
        path.write_bytes(self.body)
        return path


def make(root: Path) -> Bundled:
    """Two rounds, reported and registered."""
    federation = small_federation.make(root)
    (root / "coordinator" / "card.toml").write_text(CARD)
    for _ in range(2):
        federation.round()
        catch_up(federation.coordinator, "spring")
    return Bundled(federation, build(federation.coordinator, "spring", 1))
