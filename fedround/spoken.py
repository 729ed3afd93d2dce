"""Text for people: untrusted text that is safe on a terminal, and digests in forms that two people can compare."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_SPACES = "\n\u00a0\u202f"     # lines, and the two that keep a number in one piece


def visible(text: str) -> str:
    """Replaces every character that a terminal would interpret instead of showing it: control characters, terminal escapes,
    marks that change the direction of writing, lone surrogates. Line breaks and spaces stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in _SPACES else " " if letter.isspace() else "\ufffd"
                   for letter in text)


def one_line(text: str) -> str:
    """The same on one line."""
    return " ".join(filter(None, re.split("[ \n]", visible(text))))


def how_many(number: int, one: str, does: str = "", do: str = "") -> str:
    """How many of something, with a word whose plural has an s: "1 round", "2 rounds", "12,000 rows".

    does, do: the verb that follows, of one and of several: "1 row counts", "2 rows count".
    """
    verb = does if number == 1 else do
    return f"{number:,} {one}" + ("" if number == 1 else "s") + (f" {verb}" if verb else "")


def typed(path: Path) -> str:
    """A path in a command that is shown to be typed: quoted if a shell would read it otherwise."""
    return shlex.quote(str(path))


def in_groups(sha256: str) -> str:
    """A digest for the eye: groups of four."""
    return " ".join(sha256[at:at + 4] for at in range(0, len(sha256), 4))


def in_numbers(sha256: str) -> str:
    """A digest for the ear: sixteen groups of five decimal digits, each of them four hexadecimal ones.

    Digits sound alike in every language and on every line ("b" and "d" do not), groups of five are what messengers show,
    and people find more differences in numbers than in hexadecimal (Dechand et al. 2016, USENIX Security). All 256 bits are
    shown, because an attacker can search for two files that share a part of their digests.
    """
    return " ".join(f"{int(group, 16):05d}" for group in in_groups(sha256).split())
