"""A digest in forms that two people can compare: on a screen, and over the telephone."""

from __future__ import annotations


def in_groups(sha256: str) -> str:
    """A digest for the eye: groups of four."""
    return " ".join(sha256[at:at + 4] for at in range(0, len(sha256), 4))


def in_numbers(sha256: str) -> str:
    """A digest for the ear: sixteen groups of five decimal digits, each of them four hexadecimal ones.

    Digits sound alike in every language and on every line ("b" and "d" do not), groups of five are what messengers show,
    and people find more differences in numbers than in hexadecimal (Dechand et al. 2016, USENIX Security). All 256 bits:
    who writes a file can search for two that share a part of their digests.
    """
    return " ".join(f"{int(group, 16):05d}" for group in in_groups(sha256).split())
