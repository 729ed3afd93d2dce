"""What every value that crosses a boundary has in common: frozen, strict, unknown keys refused, and one way to write it."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from fedround.canonical import dumps
from fedround.errors import ContractError

_FIELD = 2 ** 255 - 19
_OF_SMALL_ORDER = (0, 1, _FIELD - 1, *(int.from_bytes(bytes.fromhex(y), "little") for y in (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")))
"""The y coordinates of the eight small-order points of Ed25519's curve (libsodium's list). Under such a key one signature is
valid for many messages."""


def _check_key(key: str) -> str:
    y = int.from_bytes(bytes.fromhex(key.removeprefix("ed25519:")), "little") & (1 << 255) - 1
    if y >= _FIELD or y in _OF_SMALL_ORDER:
        raise ValueError("this public key is nobody's: anybody could sign for it; 'fedround site init' makes a good one")
    return key


_NAME, _COLUMN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", r"^[^\x00-\x1f\x7f]{1,200}$"
_DIGEST, _KEY = r"^[0-9a-f]{64}$", r"^ed25519:[0-9a-f]{64}$"
_WRITTEN = {_NAME: "a name must be 1 to 40 lower-case letters, digits and inner hyphens",
            _COLUMN: "a column's name must be one line of 1 to 200 characters",
            _DIGEST: "a SHA-256 must be 64 digits and letters from a to f",
            _KEY: "a public key must be 'ed25519:' and 64 digits and letters from a to f, as 'fedround site key' prints it"}
"""What people write, and how."""

Name = Annotated[str, StringConstraints(pattern=_NAME)]
"""A federation, run, site or recipe: lower-case letters, digits and inner hyphens, at most 40. Safe in a key or a path."""

Digest = Annotated[str, StringConstraints(pattern=_DIGEST)]
"""SHA-256 in lower-case hexadecimal."""

PublicKey = Annotated[str, StringConstraints(pattern=_KEY), AfterValidator(_check_key)]
"""An Ed25519 public key in its canonical form, and not one of the few for which anybody can sign."""

Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
"""An Ed25519 signature."""

ToolVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+-]{1,40}$")]
"""The version of fedround that made a document."""

CheckId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,80}$")]
"""The id of one check of a data contract; agreed beforehand, so that naming it tells nothing about a record."""

MAX_CHECKS = 1000
"""Of one data contract."""

ColumnName = Annotated[str, StringConstraints(pattern=_COLUMN)]
"""A column of a site's rows: any text on one line."""

MAX_NUMBER = 99_999
"""The last round of a run, or entry of the federation log: a store key has five digits for it (`fedround.layout`)."""

MAX_ATTEMPTS = 99
"""At one round, or at one measurement of a round's model: a store key has two digits for it."""

Attempt = Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)]
"""Which of the plans for one round, or for one question about a round's model."""

Round = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
"""A round of a run; 0 is its initial model."""

LARGEST_WHOLE = 2 ** 53 - 1
"""Beyond it, JSON's numbers, which are doubles, cannot represent every whole number."""

Size = Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
"""Of a file, in bytes."""

Weight = Annotated[float, Field(ge=1e-9, le=1e12)]
"""How much a member counts, by agreement."""

Rows = Annotated[int, Field(ge=1, le=10 ** 10)]
"""How many rows a member trains on, by agreement."""

Length = Annotated[float, Field(ge=0, le=1e60)]
"""Of a vector of float32, whose squares float64 can add up."""

OfRows = Literal["train", "evaluate", "measure"]
"""The kind of a question about rows: what policies name."""

Charged = Literal[OfRows, "join"]
"""Of a question for which a ledger may be charged."""

AboutSum = Literal["countersign", "reveal"]
"""Of a question about the sum of answers: the flow run that answered answers it."""

Purpose = Literal[Charged, "keys", "shares", AboutSum]
"""Of any question (`fedround.records.Question`), as requests, store keys and ledgers name it."""


class Value(BaseModel):
    """A frozen, strict value: unknown keys, NaN and silent conversions are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Signed(Value):
    """The body of a signed document (`fedround.signing`). The kind belongs to the type, so kinds cannot be confused.

    Every number in it has a smallest and a largest value, within what RFC 8785 can write and everybody can compute with; a
    test finds each signed type, and fails for a number without bounds.
    """

    kind: ClassVar[str]


def canonical(value: Value, without: frozenset[str] = frozenset()) -> bytes:
    """The one way to write `value` as bytes (RFC 8785). Raises ContractError if it cannot be written so."""
    return _written(value, exclude=without)


def as_read(value: Value, without: frozenset[str] = frozenset()) -> bytes:
    """The same, of a value that was read, with the keys that stood there: a later version may know more of them, with
    defaults, and goes on to read what an earlier one wrote. Numbers are those of the value: 1e16 is a number of 17 digits.
    """
    return _written(value, exclude_unset=True, exclude=without)


def _written(value: Value, **what: Any) -> bytes:
    try:
        return dumps(value.model_dump(mode="json", warnings=False, **what))
    except (ValueError, RecursionError) as error:          # rfc8785's errors, and text that is no Unicode
        raise ContractError(f"cannot be written as canonical JSON ({type(error).__name__}): a number is too large, or a text "
                            "is no Unicode") from None


class TensorSpec(Value):
    """One float32 tensor of the model."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Field(max_length=32)]


class Payload(Value):
    """The bytes of a tensor file, by content (`codec.payload_of`)."""

    sha256: Digest
    size_bytes: Size
    chunks: tuple[Digest, ...]
    """SHA-256 of every `codec.CHUNK_BYTES`: a part that was read can be believed before the rest is there."""


V = TypeVar("V", bound=Value)
_MOST_PROBLEMS = 20
"""That one sentence names."""


def parse(kind: type[V], data: bytes | str | dict[str, Any], source: str) -> V:
    """Read `data` (JSON text, or a mapping as TOML gives it) as `kind`.

    source: what the data is, in words a person knows ("federation file banks.toml").
    Raises ContractError with one line per problem, naming the key; the offending value is not repeated.
    """
    try:
        text = json.dumps(data) if isinstance(data, dict) else data
        return kind.model_validate_json(text)
    except (ValueError, TypeError, RecursionError) as error:     # a ValidationError is a ValueError
        raise ContractError(f"{source}: {in_words(error, data)}") from None


def in_words(error: ValueError | TypeError | RecursionError, said: object = None) -> str:
    """What does not hold, a clause for each problem, naming the key; a rule about the whole document stands alone. The
    offending value is not repeated.

    said: the mapping that was read, if it was one: then a key is named as it stands there, without the kind of value that
    pydantic tried ('privacy.epsilon', and not 'privacy.record.epsilon').
    """
    if isinstance(error, TypeError):
        return str(error)
    if not isinstance(error, ValidationError):
        return "nested too deeply, or a number has too many digits"
    lines = []
    problems = _causes(error.errors(include_url=False, include_input=False))
    for problem in problems[:_MOST_PROBLEMS]:
        kind, where = problem["type"], ".".join(_keys(problem["loc"], said, whole=problem["type"] == "missing"))
        if kind == "extra_forbidden":
            lines.append(f"unknown key '{where}': remove it, or check its spelling")
        elif kind == "missing":
            lines.append(f"'{where}' is missing")
        else:
            written = _as_written(kind, problem.get("ctx", {})) or _length(kind, problem.get("ctx", {}))
            ours = written or problem["msg"].removeprefix("Value error, ")
            message = ours if kind == "value_error" else ours[0].lower() + ours[1:]
            lines.append(f"'{where}': {message}" if where else message)
    return "; ".join(lines) + (f"; and {len(problems) - len(lines)} more" if len(problems) > len(lines) else "")


def _as_written(kind: str, known: dict[str, Any]) -> str:
    """Of text that is not as it must be, in words that know no regular expression."""
    return _WRITTEN.get(known["pattern"], "not written as it must be") if kind == "string_pattern_mismatch" else ""


def _length(kind: str, known: dict[str, Any]) -> str:
    """Of a list that is too short or too long, in words that know no tuples."""
    match kind:
        case "too_short":
            return f"at least {known['min_length']} must be named, not {known['actual_length']}"
        case "too_long" if known.get("actual_length") is not None:
            return f"at most {known['max_length']} may be named, not {known['actual_length']}"
    return ""


def _causes(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the lists that are too short only because what is in them does not hold."""
    places = [problem["loc"] for problem in problems]
    return [problem for problem in problems if problem["type"] != "too_short" or not any(
        place != problem["loc"] and place[:len(problem["loc"])] == problem["loc"] for place in places)]


def _keys(place: tuple[int | str, ...], said: object, *, whole: bool) -> list[str]:
    """The keys on the way to a place of what was said, without the kinds of values that pydantic tried there.

    whole: the last one is a key, though nobody said it.
    """
    found = []
    for number, part in enumerate(place, start=1):
        if isinstance(said, dict) and part not in said and not (whole and number == len(place)):
            continue
        found.append(str(part))
        try:
            said = said[part]  # type: ignore[index]
        except (LookupError, TypeError):
            said = None
    return found
