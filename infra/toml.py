"""The one reader of TOML files: the result is a table of moderate numbers and depth, or a one-sentence error."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from fedround.errors import ContractError, SetupError
from fedround.files import plain

MAX_BYTES = 16 << 20
MAX_DEPTH = 20
_WHOLE = range(-(1 << 63), 1 << 63)     # what TOML promises

# Its time grows with the square of a key's parts; nobody writes so many.
_LONG_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{2 * MAX_DEPTH}}}""")


def read_toml(path: Path) -> dict[str, Any]:
    """The table that a file holds. Raises SetupError if it cannot be read, ContractError if it is not TOML."""
    return parse_toml(_read(path), str(path))


def read_said(path: Path) -> dict[str, Any] | str:
    """What a file says, in TOML or, whatever else it is called, in JSON: its table, or its text. Raises as `read_toml`."""
    return read_toml(path) if path.suffix.lower() == ".toml" else _read(path)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The table that a text holds. source: where it comes from, for the message. Raises ContractError if it is not TOML."""
    try:
        if _LONG_KEY.search(text):
            raise RecursionError
        data = tomllib.loads(text)
        _check(data, source)
    except RecursionError:
        raise ContractError(f"{source}: not valid TOML for us: tables, lists or dotted keys in more than {MAX_DEPTH} levels"
                            ) from None
    except ValueError as error:         # also whole numbers of thousands of digits
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number has too many digits"
        raise ContractError(f"{source}: not valid TOML: {why}") from None
    return data


def document_of(path: Path) -> tomlkit.TOMLDocument:
    """A file that will be changed and written again, with its comments. Raises as `read_toml`."""
    text = _read(path)
    parse_toml(text, str(path))
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not valid TOML: {error}") from None


def _read(path: Path) -> str:
    """Without the mark that some editors put in front."""
    return read_text(path).removeprefix("\ufeff")


def read_text(path: Path) -> str:
    """A file's text. Raises SetupError if it cannot be read, ContractError if it is not text, or too long."""
    try:
        with plain(path) as file:
            body = b""
            while len(body) <= MAX_BYTES and (block := file.read(1 << 16)):     # one large read would take that much memory
                body += block
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:                  # a path with a NUL
        raise SetupError(f"cannot read {str(path)!r}: no file has such a name") from None
    if len(body) > MAX_BYTES:
        raise ContractError(f"{path}: larger than {MAX_BYTES >> 20} MiB: is it the right file?")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ContractError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def _check(data: object, source: str) -> None:
    """Check every number and every level. It walks a list, without recursion, since the depth itself is checked."""
    left = [(data, 0)]
    while left:
        item, depth = left.pop()
        if depth > MAX_DEPTH:
            raise RecursionError
        if isinstance(item, int) and item not in _WHOLE:
            raise ContractError(f"{source}: a whole number has more than 64 bits")
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        left += [(one, depth + 1) for one in inside]
