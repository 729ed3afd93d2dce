"""What members of a secure sum say to each other, relayed by whoever likes; what was read is written as it was."""

from __future__ import annotations

from functools import partial

from fedround.secure_sums.dealing import Dealt, deal
from fedround.secure_sums.keys import Keys, offer
from fedround.secure_sums.revealing import Reveals, reveal
from tests.fuzz.parser import Parser

_SECRETS = {name: name.encode().ljust(32, b".") for name in ("aarhus", "lund", "oslo")}
_EPOCH = bytes(32)
_ROSTER = {name: offer(secret, _EPOCH, 2) for name, secret in _SECRETS.items()}
_DEALT = {name: deal(secret, _EPOCH, name, _ROSTER, 2) for name, secret in _SECRETS.items()}
_REVEALS = reveal(_SECRETS["lund"], _EPOCH, "lund", _ROSTER, _DEALT, 0, ("aarhus", "lund"), ("oslo",), 2)


def _read(kind: type[Keys] | type[Dealt] | type[Reveals], data: bytes) -> None:
    if kind.from_bytes(data, "it").to_bytes() != data:
        raise AssertionError("a second form")


SUMS = {"offered keys": Parser(partial(_read, Keys), _ROSTER["lund"].to_bytes()),
        "dealt shares": Parser(partial(_read, Dealt), _DEALT["lund"].to_bytes()),
        "revealed shares": Parser(partial(_read, Reveals), _REVEALS.to_bytes())}
