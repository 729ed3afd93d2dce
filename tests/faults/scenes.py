"""What a scene is: something that a member does and that is killed at every change to a disk. Done again, it must end as if
nothing had been.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra.passphrase import FILE_VARIABLE
from site_workers import audit
from site_workers.site import Site, open_site
from tasks.plan import Planned
from tests import small_federation
from tests.small_federation import SmallFederation

Seen = Mapping[str, object]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = "spring"
PACED = {"quorum": 2, "enough": 2, "pace": {"max_age": 2}}


@dataclass(frozen=True)
class Scene:
    """Something that is done."""

    name: str
    begin: Callable[[Path], object]
    """Makes what is there before, below the folder."""
    act: Callable[[Path], object]
    """What is killed. Done again, it goes on."""
    seen: Callable[[Path], Seen]
    """What must then be as if nobody had been killed."""


def north(root: Path) -> Site:
    """The site of these scenes, at a time that does not go on."""
    os.environ[FILE_VARIABLE] = str(root / "words")
    return open_site(root / "north", lambda: NOON)


def objects(root: Path) -> Iterator[tuple[str, bytes]]:
    """All that is in the store."""
    store = SmallFederation(root).coordinator.store
    return ((key, store.get(key)) for key in store.list(""))


def books(root: Path) -> Iterator[tuple[str, bytes]]:
    """All of the site that counts: ledger, what it has seen, what has left, what it keeps."""
    site = north(root)
    audit.verify(site.safe)
    for path in (site.ledger, site.folder / "seen.json", *sorted((site.folder / "outbox").rglob("*")),
                 *sorted((site.folder / "kept").rglob("*"))):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(site.folder).parts):
            yield str(path.relative_to(root)), site.safe.read_signed(path)


def of_site(root: Path) -> Seen:
    """The site's books, and the store."""
    return {**dict(books(root)), **dict(objects(root))}


def names_in(folder: Path) -> list[str]:
    """All that has a name there: not what a killed process left behind."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("."))


def a_round_later(root: Path, **settings: object) -> SmallFederation:
    """One round is committed, the next one is planned."""
    federation = small_federation.make(root, **settings)
    federation.round(RUN)
    federation.plan(RUN)
    return federation


def standing(root: Path) -> Planned:
    """The plan that waits for answers."""
    return SmallFederation(root).plan(RUN)
