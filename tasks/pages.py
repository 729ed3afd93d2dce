"""The coordinator's folder of pages: a record and a page for each round, each linked to its neighbours, and an index of all
runs. Everything is read from the records; who moves the folder moves all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from fedround.errors import ContractError
from fedround.files import make_folders, write_whole
from fedround.values import parse
from tasks.reporting import RoundRecord, render_html
from tasks.reporting.compare import render_comparison
from tasks.reporting.index import INDEX, Compared, Listed, render_index
from tasks.reporting.record import Links
from tasks.reporting.verified import Verified

_AND = "-and-"
_VERIFIED = "verified.json"


def write(reports: Path, record: RoundRecord) -> None:
    """The round's record, its page, the page before with a link to it, and the index."""
    keep(reports, record)
    found = records(reports, record.run)
    at = [one.round for one in found].index(record.round)
    _write_pages(reports, found, (at, *([at - 1] if at else [])))
    _write_index(reports)


def keep(reports: Path, record: RoundRecord) -> None:
    """The round's record alone."""
    path = path_of(reports, record.run, record.round)
    make_folders(path.parent, mode=0o700)
    write_whole(path, record.model_dump_json(indent=1).encode(), durable=True)


def note_verified(reports: Path, verified: Verified) -> None:
    """What the last proof of a run found, on all its pages and in the index; nothing if the run has no page here."""
    if verified.run in {folder.name for folder in reports.glob("*")} and (found := records(reports, verified.run)):
        write_whole(reports / verified.run / _VERIFIED, verified.model_dump_json(indent=1).encode(), durable=True)
        _write_pages(reports, found, range(len(found)))
        _write_index(reports)


def last_verified(reports: Path, run: str) -> Verified | None:
    """As `note_verified` wrote it; None: the run was never proven here, or the note is damaged."""
    path = reports / run / _VERIFIED
    try:
        return parse(Verified, path.read_bytes(), f"note {path}")
    except (ContractError, OSError):
        return None


def records(reports: Path, run: str) -> list[RoundRecord]:
    """The run's records so far, by round; without those that are damaged, which are written again."""
    found = (if_whole(path) for path in _paths(reports / run))
    return [record for record in found if record is not None]


def of_run(reports: Path, run: str) -> list[RoundRecord]:
    """As `records`. Raises ContractError if there is none."""
    if run not in {folder.name for folder in reports.glob("*")} or not (found := records(reports, run)):
        raise ContractError(f"no round of a run '{run}' is recorded in {reports}: {reports / INDEX} names the runs that are; "
                            "'fedround models rebuild' writes lost records again")
    return found


def write_comparison(reports: Path, one: Sequence[RoundRecord], other: Sequence[RoundRecord]) -> Path:
    """Two runs side by side; returns where the page is."""
    page = reports / f"{one[-1].run}{_AND}{other[-1].run}.html"
    write_whole(page, render_comparison(one, other).encode(), durable=True)
    _write_index(reports)
    return page


def if_whole(path: Path) -> RoundRecord | None:
    """One record; None: it is damaged, or not there."""
    try:
        return read_record(path)
    except (ContractError, OSError):
        return None


def read_record(path: Path) -> RoundRecord:
    """One record as `write` wrote it. Raises ContractError, naming the file, if it is not a record."""
    return _understood(path.read_bytes(), f"record {path}")


@lru_cache(maxsize=1024)
def _understood(body: bytes, source: str) -> RoundRecord:
    """The same bytes always say the same. Every page of a run reads all its records, and a round writes several pages."""
    return parse(RoundRecord, body, source)


def path_of(reports: Path, run: str, number: int) -> Path:
    """Where the round's record is; its page is beside it."""
    return reports / run / f"{number:05d}.json"


def _write_pages(reports: Path, found: Sequence[RoundRecord], places: Iterable[int]) -> None:
    """The pages of some of a run's rounds. found: all records of the run, in order."""
    run, numbers = found[0].run, [one.round for one in found]
    verified = last_verified(reports, run)
    for place in places:
        links = Links(before=numbers[place - 1] if place else None, after=(*numbers, None)[place + 1])
        page = path_of(reports, run, numbers[place]).with_suffix(".html")
        write_whole(page, render_html(found[:place + 1], links, verified).encode(), durable=True)


def _write_index(reports: Path) -> None:
    write_whole(reports / INDEX, render_index(_listed(reports), _compared(reports)).encode(), durable=True)


def _compared(reports: Path) -> list[Compared]:
    """The comparisons that were asked for: those of two runs that are here. A run's name may hold the word between them."""
    runs = {folder.name for folder in reports.iterdir() if folder.is_dir()}
    found = []
    for page in sorted(reports.glob(f"*{_AND}*.html")):
        words = page.stem.split(_AND)
        cuts = ((_AND.join(words[:cut]), _AND.join(words[cut:])) for cut in range(1, len(words)))
        found += [Compared(page.name, one, other) for one, other in cuts if {one, other} <= runs][:1]
    return found


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.json"))


def _listed(reports: Path) -> list[Listed]:
    """Every run, by name: how many rounds are recorded, and the last of them that is whole. No other record is read."""
    found = [(paths, next((one for path in reversed(paths) if (one := if_whole(path)) is not None), None))
             for paths in (_paths(folder) for folder in sorted(reports.iterdir()) if folder.is_dir())]
    return [Listed(last, len(paths), last_verified(reports, last.run)) for paths, last in found if last is not None]
