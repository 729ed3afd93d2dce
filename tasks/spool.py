"""The round's folder on local disk: what is read in blocks is brought here first, once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fedround.errors import StoreError
from fedround.files import sha256_of, writing_whole
from infra.stores import ObjectStore, judged, there
from tasks.plan import Planned
from validation.payloads import Intake


class Workplace(Protocol):
    """Where a round is worked on: the coordinator's folder, or an auditor's; and the store."""

    @property
    def folder(self) -> Path:
        """What is read in blocks lies below it."""
        ...

    @property
    def store(self) -> ObjectStore:
        """Where updates and models come from."""
        ...


def folder(workplace: Workplace, planned: Planned) -> Path:
    """The folder of one plan."""
    return workplace.folder / "spool" / planned.digest[:32]


def clear(workplace: Workplace, planned: Planned) -> None:
    """Drop what was spooled for a round that is committed."""
    shutil.rmtree(folder(workplace, planned), ignore_errors=True)


def fetch(store: ObjectStore, key: str, intake: Intake, path: Path) -> None:
    """Bring a tensor file to `path`, unless it is there already. Every chunk is judged before it is written.

    Raises what `intake` raises. A copy that was altered on this disk is fetched again. A file that was altered in the store
    is not fetched to its end.
    """
    if path.exists() and sha256_of(path) == intake.sha256:
        return

    def read() -> bytes:
        with writing(path), writing_whole(path, durable=False) as file:      # a torn copy is fetched again
            for chunk in taken(store, key, again := intake.anew()):
                file.write(chunk)
        return again.digest

    judged(read, intake.judge, f"'{key}'")


def taken(store: ObjectStore, key: str, intake: Intake) -> Iterator[bytes]:
    """The chunks of a tensor file, each judged by `intake`. A chunk that it rejects is fetched again first."""
    start = 0
    while (wanted := intake.wanted) > 0:
        more = start + wanted == intake.size_bytes       # one byte more of the last: a file that goes on is another file

        def read(start: int = start, length: int = wanted + more) -> bytes:
            return there(lambda: store.get_range(key, start, length))

        yield judged(read, intake.take, f"'{key}'")
        start += wanted


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write below the spool. Raises StoreError, in a sentence for the operator, if the disk cannot."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StoreError(f"cannot spool updates to {path.parent}: {error.strerror}; make room and run the round again; "
                         "nothing is lost") from None
