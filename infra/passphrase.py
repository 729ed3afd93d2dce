"""Where the passphrase of an encrypted key comes from: a file that a service is given, or the person at the terminal."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

from fedround.errors import SetupError

FILE_VARIABLE = "FEDROUND_PASSPHRASE_FILE"


def passphrase_for(key: Path) -> Callable[[], bytes]:
    """Asks for the passphrase of the key at `key`, but only when it is called.

    Raises SetupError if there is nobody to ask, or if the file that FEDROUND_PASSPHRASE_FILE names cannot be used.
    """

    def ask() -> bytes:
        if (given := passphrase_from_file()) is not None:
            return given
        if not sys.stdin.isatty():
            raise SetupError(f"{key} is encrypted and nobody sits at this terminal: put the passphrase into a file of mode "
                             f"0600 and name it in {FILE_VARIABLE}")
        return getpass.getpass(f"passphrase of {key}: ").encode()

    return ask


def passphrase_from_file() -> bytes | None:
    """The text of the file that FEDROUND_PASSPHRASE_FILE names, without its last newline; None if it names none."""
    name = os.environ.get(FILE_VARIABLE)
    if name is None:
        return None
    path = Path(name)
    try:
        if path.stat().st_mode & 0o077:
            raise SetupError(f"{path} can be read by other users: run 'chmod 600 {path}'")
        return path.read_bytes().removesuffix(b"\n")
    except OSError as error:
        raise SetupError(f"cannot read {path}, which {FILE_VARIABLE} names: {error.strerror}") from None
