"""What a run of the tests computes once: prices of the accountant, and keys that are stretched from a passphrase.

Both are functions of what they are asked, and the real code computes them when they are asked for the first time in this run.
The tests of the accountant do without (`tests/fedround/privacy/conftest.py`).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from fedround.privacy import accounting
from fedround.privacy.accounting import Composed


@dataclass
class Prices:
    """The accountant, with a memory that all processes of a run share. Many small federations make the same promise."""

    folder: Path
    known: dict[Composed, float] = field(default_factory=dict)

    def __call__(self, asked: Composed) -> float:
        if asked not in self.known:
            self.known[asked] = self._shared(asked)
        return self.known[asked]

    def _shared(self, asked: Composed) -> float:
        file = self.folder / hashlib.sha256(repr(asked).encode()).hexdigest()
        try:
            return float(file.read_text())
        except FileNotFoundError:
            price = accounting.total(asked)
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(repr(price))
            part.replace(file)                  # whole, or not at all
            return price
