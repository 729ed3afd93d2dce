"""A model for use elsewhere: one file that says what it is, where it comes from, and who said yes to it.

::

    manifest.json        names every other part by its SHA-256; signed by the coordinator
    model.safetensors    the model's numbers
    recipe.py            from rows to features, and the model's form
    model.onnx           from features to chances, for any ONNX runtime
    model.int8.onnx      the same with weights of 8 bits
    measured.json        how good, how large and how fast it is
    certificate.json     what was proven of its lineage
    card.md              all of it for people

It is a ZIP archive that any program opens (`fedround.archive`), or the folder that comes out of it. Only one thing is
trusted: the coordinator's public key, which the person who opens the bundle provides. The content is believed only after
`open_bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from fedround import archive
from fedround.errors import ContractError, SetupError, TrustError
from fedround.files import read_named
from fedround.learning.tasks import Task
from fedround.signing import MAX_DOCUMENT_BYTES, Identity, digest, seal, unseal
from fedround.values import MAX_NUMBER, ColumnName, Digest, Name, Signed, ToolVersion, Value

MANIFEST = "manifest.json"
MODEL, RECIPE, ONNX, INT8 = "model.safetensors", "recipe.py", "model.onnx", "model.int8.onnx"
MEASURED, CERTIFICATE, CARD = "measured.json", "certificate.json", "card.md"
PARTS = (MODEL, RECIPE, ONNX, INT8, MEASURED, CERTIFICATE, CARD)
MAX_FEATURES = 10_000_000
Form = Literal["float32", "int8"]
FORMS: dict[Form, str] = {"float32": ONNX, "int8": INT8}


class Part(Value):
    """One file in a bundle."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$")]
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=0, le=archive.MAX_BYTES)]


class Column(Value):
    """A column that rows must have to be scored."""

    name: ColumnName
    kind: Literal["number", "other"]


class Input(Value):
    """What the model takes of a row under one name (`fedround.learning.examples.Shape`)."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,59}$")]
    dtype: Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float32"]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_FEATURES)], ...], Field(max_length=8)]


class Approval(Value):
    """Who approved it, as a person typed it. Neither Prefect nor the command line checks who that is."""

    by: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    through: Literal["prefect", "command line", "policy"]
    note: Annotated[str, StringConstraints(max_length=1000)] = ""


class Manifest(Signed):
    """What a bundle is."""

    kind: ClassVar[str] = "bundle"

    federation: Name
    run: Name
    round: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    commit: Digest
    """Of the round's commit: its chain leads back to round 0."""
    model: Digest
    """Of the committed model; `model.safetensors` is these bytes, or with a frozen part, these and the frozen tensors."""
    recipe: Name
    recipe_digest: Digest
    task: Task
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=100)]
    """What the recipe makes of a row."""
    columns: Annotated[tuple[Column, ...], Field(max_length=10_000)]
    """What it needs to make them. No label."""
    approval: Approval | None = None
    """None: nobody has approved it; it may be inspected."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=100)]
    tool_version: ToolVersion


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that holds: every part is the one that the signed manifest names."""

    manifest: Manifest
    files: Mapping[str, bytes]


def described(files: Mapping[str, bytes]) -> tuple[Part, ...]:
    """What a manifest says of its parts."""
    return tuple(Part(name=name, sha256=digest(content), size_bytes=len(content)) for name, content in files.items())


def sealed(manifest: Manifest, files: Mapping[str, bytes], identity: Identity) -> bytes:
    """The bundle's one file. Deterministic. manifest.parts: `described(files)`."""
    return archive.pack({MANIFEST: seal(manifest, identity), **files})


def open_bundle(path: Path, coordinator: str) -> Bundle:
    """Read a bundle's file or folder and prove all of it. coordinator: the public key that must have signed.

    Raises SetupError if it cannot be read; SignatureError, TrustError, CodecError or ContractError if a single bit differs
    from what was signed, a part is missing, or there is an extra part.
    """
    try:
        if path.is_dir():
            return _proven({each.name: read_named(each) for each in sorted(path.iterdir())}, coordinator, f"bundle {path}")
        return read_bundle(read_named(path), coordinator, f"bundle {path}")
    except OSError as error:
        raise SetupError(f"bundle {path} cannot be read: {error.strerror}") from None


def read_bundle(body: bytes, coordinator: str, source: str) -> Bundle:
    """The same, of a bundle's bytes."""
    return _proven(archive.unpack(body, source), coordinator, source)


def _proven(files: Mapping[str, bytes], coordinator: str, source: str) -> Bundle:
    document = files.get(MANIFEST)
    if document is None or len(document) > MAX_DOCUMENT_BYTES:
        raise ContractError(f"{source}: has no {MANIFEST}: it is not a bundle that 'fedround models bundle' made")
    manifest = unseal(document, Manifest, coordinator, f"manifest of {source}")
    if set(files) != {MANIFEST, *(part.name for part in manifest.parts)}:
        raise TrustError(f"{source}: has not exactly the parts that its manifest names: get it again from who made it")
    for part in manifest.parts:
        if digest(files[part.name]) != part.sha256:
            raise TrustError(f"{source}: '{part.name}' is not the part that its signed manifest names; it was altered: get "
                             "the bundle again from who made it")
    return Bundle(manifest, {part.name: files[part.name] for part in manifest.parts})
