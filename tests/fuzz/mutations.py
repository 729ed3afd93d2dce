"""What can happen to bytes on their way, and what somebody can do to a document who has no key."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

_NUMBERS = ("1e16", "1e308", "-1e308", "1e400", "NaN", "Infinity", "-0", "1.0", "0x10", "5e-324", "9007199254740993",
            "1" * 5000)
_PIECES = (b" ", b"\n", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\\u0000", b"\\ud800", "é".encode(), "\u202e".encode(),
           b"[" * 3000, b'{"a":' * 3000, b'"', b",", b"}", b"-" * 100, b"9" * 5000, b"../", b"%s", b"[/x]")


@st.composite
def mutations(draw: st.DrawFn, honest: bytes) -> bytes:
    """Other bytes than `honest`, most of them nearly the same."""
    how = draw(st.sampled_from(("flip", "cut", "insert", "twice", "case", "anything", "number", "json", "json")))
    place = draw(st.integers(0, max(0, len(honest) - 1)))
    match how:
        case "flip":
            changed = bytearray(honest or b"\x00")
            changed[place] ^= 1 << draw(st.integers(0, 7))
            found = bytes(changed)
        case "cut":
            found = honest[:place] if draw(st.booleans()) else honest[place:]
        case "insert":
            found = honest[:place] + draw(st.sampled_from(_PIECES) | st.binary(min_size=1, max_size=8)) + honest[place:]
        case "twice":
            end = draw(st.integers(place, min(len(honest), place + 200)))
            found = honest[:end] + honest[place:]
        case "case":
            found = honest[:place] + honest[place:place + 130].swapcase() + honest[place + 130:]
        case "anything":
            found = draw(st.binary(max_size=200))
        case "number":
            found = _with_a_number(honest, place, draw(st.sampled_from(_NUMBERS)))
        case _:
            found = _other_json(draw, honest)
    return found if found != honest else honest + b" "


def _with_a_number(honest: bytes, place: int, number: str) -> bytes:
    """The first number from a place on becomes another."""
    digits = [at for at in range(place, len(honest)) if honest[at:at + 1].isdigit()]
    if not digits:
        return honest + number.encode()
    begin = end = digits[0]
    while end < len(honest) and honest[end:end + 1] in b"0123456789.eE+-":
        end += 1
    return honest[:begin] + number.encode() + honest[end:]


def _other_json(draw: st.DrawFn, honest: bytes) -> bytes:
    """A change to what the JSON says, or another way to say the same."""
    try:
        said = json.loads(honest)
    except (ValueError, RecursionError):
        return honest + b"{}"
    places = list(_places(said))
    if places and draw(st.booleans()):
        holder, name = draw(st.sampled_from(places))
        change = draw(st.sampled_from(("drop", "none", "deep", "list", "text", "huge")))
        if change == "drop":
            del holder[name]
        else:
            holder[name] = {"none": None, "deep": [[[[holder[name]]]]], "list": [holder[name]] * 3,
                            "text": "\u0001\ud7ff/../%", "huge": 10 ** 30}[change]
        return json.dumps(said, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    style = draw(st.sampled_from(({"indent": 1}, {"ensure_ascii": True}, {"separators": (", ", ": ")}, {"sort_keys": False})))
    return json.dumps(said, **style).encode()


def _places(said: Any) -> Any:
    if isinstance(said, dict | list):
        for name, item in list(said.items()) if isinstance(said, dict) else list(enumerate(said)):
            yield said, name
            yield from _places(item)
