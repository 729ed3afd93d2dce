"""What a parser of the fuzz tests is, and what all honest inputs are signed with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedround.federation_log import Rotation
from fedround.signing import Identity, seal

KEY = Identity(Ed25519PrivateKey.from_private_bytes(b"fuzz" * 8))       # always the same: the corpus is signed with it
ROTATION = seal(Rotation(federation="banks", site="lund", old=KEY.key, new=f"ed25519:07{'5' * 62}"), KEY)
FEDERATION = b"""name = "banks"
quorum = 1
coordinator = "%b"
recipe = "r"
recipe_digest = "%b"
contract_digest = "%b"
privacy = {unit = "none"}
[[sites]]
name = "lund"
key = "ed25519:07%b"
weight = 300.0
""" % (KEY.key.encode(), b"0" * 64, b"1" * 64, b"5" * 62)


@dataclass(frozen=True)
class Parser:
    """How bytes are read, and bytes that can be."""

    read: Callable[[bytes], object]
    honest: bytes


def as_file(read: Callable[[Path], object], name: str, data: bytes) -> object:
    """What is read of a file with these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
        return read(path)
