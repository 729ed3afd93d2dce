"""What every value that crosses a boundary has in common: frozen, strict, unknown keys refused."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedround.errors import ContractError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A federation, run, site or recipe: lower-case letters, digits and inner hyphens, at most 40. Safe in a key or a path."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hexadecimal."""

PublicKey = Annotated[str, StringConstraints(pattern=r"^ed25519:[0-9a-f]{64}$")]
"""An Ed25519 public key."""

Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
"""An Ed25519 signature."""

ToolVersion = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+-]{1,40}$")]
"""The version of fedround that made a document."""

CheckId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,80}$")]
"""The id of one check of a data contract; agreed beforehand, so that naming it tells nothing about a record."""

ColumnName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
"""A column of a site's rows: any text on one line."""

MAX_NUMBER = 99_999
"""The last round of a run, or entry of the federation log: a store key has five digits for it (`fedround.layout`)."""

MAX_ATTEMPTS = 99
"""At one round, or at one measurement of a round's model: a store key has two digits for it."""

Attempt = Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)]
"""Which of the plans for one round, or for one question about a round's model."""

PositiveFloat = Annotated[float, Field(gt=0)]

Purpose = Literal["train", "evaluate", "measure"]
"""The kind of a question (`fedround.records.Question`), as requests, store keys, policies and ledgers name it."""


class Value(BaseModel):
    """A frozen, strict value: unknown keys, NaN and silent conversions are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TensorSpec(Value):
    """One float32 tensor of the model."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
    shape: tuple[Annotated[int, Field(ge=1, le=2**31)], ...]


class Payload(Value):
    """The bytes of a tensor file, by content (`codec.payload_of`)."""

    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]
    chunks: tuple[Digest, ...]
    """SHA-256 of every `codec.CHUNK_BYTES`: a part that was read can be believed before the rest is there."""


V = TypeVar("V", bound=Value)


def parse(kind: type[V], data: bytes | str | dict[str, Any], source: str) -> V:
    """Read `data` (JSON text, or a mapping as TOML gives it) as `kind`.

    source: what the data is, in words a person knows ("federation file banks.toml").
    Raises ContractError with one line per problem, naming the key; the offending value is not repeated.
    """
    try:
        text = json.dumps(data) if isinstance(data, dict) else data
        return kind.model_validate_json(text)
    except (ValidationError, TypeError) as error:
        raise ContractError(f"{source}: {_in_words(error)}") from None


def _in_words(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"]) or "the whole document"
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key '{where}': remove it, or check its spelling")
        elif problem["type"] == "missing":
            lines.append(f"'{where}' is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"'{where}': {message[0].lower()}{message[1:]}")
    return "; ".join(lines)
