"""The members' logins: a file of names and salted digests that nginx reads, too (its `{SSHA}` form).

A secret is made by chance, 32 bytes, so its digest need not be slow: nobody guesses it. SHA-1 is what nginx can compare;
whoever has the file would still need a preimage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from fedround.errors import SetupError
from fedround.files import write_whole

_SALT = 8
_FORM = "{SSHA}"


def new_login(name: str) -> tuple[str, str]:
    """What the member sets as PREFECT_API_AUTH_STRING, and what the file of logins keeps of it."""
    secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(_SALT)
    return f"{name}:{secret}", _FORM + base64.b64encode(_digest(secret, salt) + salt).decode()


def read_logins(path: Path) -> dict[str, str]:
    """What is kept of every login, by name. Raises SetupError."""
    try:
        lines = [line.split(":", 1) for line in path.read_text().splitlines() if line]
        return {line[0]: line[1] for line in lines}
    except (OSError, IndexError, UnicodeError):
        raise SetupError(f"{path} is no file of logins: make it with 'fedround proxy init'") from None


def write_logins(path: Path, logins: Mapping[str, str]) -> None:
    """Write the file. Whoever serves reads it anew for every login, so a change needs no restart."""
    write_whole(path, "".join(f"{name}:{kept}\n" for name, kept in sorted(logins.items())).encode(), durable=True, mode=0o644)


def whose(path: Path, auth_string: str) -> str | None:
    """The name of the member whose login this is; None if it is nobody's."""
    name, _, secret = auth_string.partition(":")
    kept = read_logins(path).get(name, "")
    try:
        raw = base64.b64decode(kept.removeprefix(_FORM), validate=True)
    except (ValueError, binascii.Error):
        return None
    fits = hmac.compare_digest(raw[:-_SALT], _digest(secret, raw[-_SALT:]))
    return name if fits and kept.startswith(_FORM) else None


def of_header(authorization: str) -> str:
    """The auth string in a header 'Authorization: Basic …'; empty if there is none."""
    try:
        return base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
    except ValueError:
        return ""


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.sha1(secret.encode(errors="surrogatepass") + salt, usedforsecurity=False).digest()
