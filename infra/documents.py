"""Objects of the store, each compared with what belongs there.

A *place* is where something ought to be: NotFoundError if nothing is there. A *name* stands in a signed document. What it
names must be there (else ChainError), and must be exactly those bytes (else TrustError).

Whoever may write to the bucket may put anything anywhere. So an object under a name that no signed document gives is not
looked at. An object in a place that it is not signed for is an error, which names the place for whoever must repair it. A
number is never believed because an object has it in its name (`newest`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fedround import codec, layout
from fedround.codec import Schema, Tensors
from fedround.errors import ChainError, ContractError, NotFoundError, SignatureError, TooLargeError, TrustError
from fedround.federation import Federation
from fedround.signing import MAX_DOCUMENT_BYTES, digest, unseal
from fedround.values import Digest
from infra.stores import ObjectStore, judged, there

T = TypeVar("T")

NOT_OURS = (TrustError, ContractError, NotFoundError, TooLargeError)
"""What reading raises for an object that is not what belongs in its place."""


def is_ours(read: Callable[[], object]) -> bool:
    """Whether what lies in a place is what belongs there."""
    try:
        read()
    except NOT_OURS:
        return False
    return True


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Errors about what lies in a place say where that is, and who can repair it."""
    try:
        yield
    except (SignatureError, ContractError, TooLargeError) as error:
        raise type(error)(f"{error}. It lies at '{key}': ask whoever may write there to restore or remove it") from None


def read_document(store: ObjectStore, key: str, judge: Callable[[bytes], T]) -> T:
    """The result of `judge` for the document in this place. Raises NotFoundError, TooLargeError, and what `judge` raises."""
    with naming(key):
        return judged(lambda: store.get(key, max_bytes=MAX_DOCUMENT_BYTES), judge, f"'{key}'")


def newest(numbers: Collection[int], first: int, ours: Callable[[int], bool]) -> int | None:
    """The last of the objects with these numbers in their names; None: there is none.

    They are written one after the other. So an object behind a gap counts only if it is `ours`: then those before it were
    removed, which its reader notices. If it is not ours, somebody else put it there, and it is ignored.
    """
    end = first
    while end in numbers:
        end += 1
    last = next((number for number in sorted(numbers, reverse=True) if number > end and ours(number)), end - 1)
    while ours(last + 1):           # a list may be late, or leave something out
        last += 1
    return last if last >= first else None


def read_federation(store: ObjectStore, sha256: Digest, coordinator: str, source: str) -> Federation:
    """The federation file that an entry of the log, a plan or a commit names."""
    return unseal(read_named(store, layout.federation(sha256), sha256, source), Federation, coordinator, source)


def read_tensors(store: ObjectStore, sha256: Digest, schema: Schema, source: str, by: str = "history") -> Tensors:
    """A model, or a part of a round's state that everybody may read. Raises as `read_blob`."""
    return read_blob(store, layout.model(sha256), sha256, schema, source, by)


def read_blob(store: ObjectStore, key: str, sha256: Digest, schema: Schema, source: str, by: str = "history") -> Tensors:
    """A tensor file. Raises CodecError also if the bytes are not tensors of this schema."""
    return codec.decode(read_named(store, key, sha256, source, by=by, max_bytes=codec.size_bytes(schema)), schema, source)


def read_named(store: ObjectStore, key: str, sha256: Digest, source: str, *, by: str = "history",
               max_bytes: int | None = MAX_DOCUMENT_BYTES) -> bytes:
    """The bytes under `key` whose digest is `sha256`.

    source, by: what they are and what names them, for the message. Raises TooLargeError if they are more than `max_bytes`.
    """
    def read(known: Digest | None = None) -> bytes:
        return there(lambda: store.get(key, max_bytes=max_bytes, sha256=known))

    try:
        try:
            return read(sha256)
        except TrustError:      # the store's own digest tells whether these bytes lie there, or were altered on the way
            return judged(read, lambda body: compared(body, sha256, source, by), source)
    except NotFoundError:
        raise ChainError(f"{source}: is not in the store") from None


def prove(store: ObjectStore, key: str, sha256: Digest, source: str) -> int:
    """Compare what lies under `key` with its digest, in blocks; returns its size in bytes."""
    if (info := store.head(key) or store.head(key)) is None:
        raise ChainError(f"{source}: is not in the store")

    def read() -> bytes:
        hasher = hashlib.sha256()
        for start in range(0, info.size_bytes, codec.CHUNK_BYTES):
            hasher.update(store.get_range(key, start, codec.CHUNK_BYTES))
        return hasher.digest()

    judged(read, lambda found: _check(found.hex(), sha256, source, "history"), source)
    return info.size_bytes


def compared(body: bytes, sha256: Digest, source: str, by: str) -> bytes:
    """The bytes, if their digest is `sha256`. Raises TrustError otherwise; the rest is as in `read_named`."""
    _check(digest(body), sha256, source, by)
    return body


def _check(found: str, expected: str, source: str, by: str) -> None:
    if found != expected:
        raise TrustError(f"{source}: the stored bytes are not those that the {by} names; their digest is {found[:16]}…, "
                         f"expected {expected[:16]}…")
