"""Whose ledger: the ledgers on this machine, by data set, and which rows each of them is about.

::

    DIR/<data set>/ledger.jsonl             one for every site folder that names DIR and this data set, of whatever federation
    DIR/<data set>/train.prints             of every row that was ever among those to train on, a keyed hash of its content
    DIR/<data set>/validation.prints        the same of those held out
    DIR/prints.key                          the key of the hashes; mode 0600
    DIR/.lock                               whoever looks or charges holds it

A site folder that names no DIR has all of this in itself, and shares it with nobody. Rows are recognised by their content,
not by the file's name, place or format: a copy, a link and a part of a file are the same rows. A row with a corrected number
is another row. Both belong together by the name of the data set, which the operator chooses.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from fedround.errors import ContractError, SetupError
from fedround.files import make_folders, write_whole
from fedround.privacy import ledger
from fedround.privacy.entries import Part, Shared
from fedround.spoken import how_many
from infra.settings import DataSettings
from validation.encoding import prints_alone

Prints = npt.NDArray[np.uint64]
SIDES = ("train", "validation")


def join(folder: Path, data: DataSettings) -> Path:
    """The ledger of this site folder's data set: begun if there is none.

    Raises ContractError if the rows are, in part, those of another data set in the same DIR.
    """
    with _locked(folder, data):
        place = data.home(folder)
        if data.ledger is not None:
            _look(folder, data)
        make_folders(place)
        path = data.ledger_file(folder)
        if not path.exists():
            ledger.create(path, data.dataset)
        return path


def are_apart(folder: Path, data: DataSettings) -> bool:
    """Whether no row is known to have been both trained on and held out. This is known only with a DIR."""
    return data.ledger is not None and not ledger.read(data.ledger_file(folder)).book.shared


def look(folder: Path, data: DataSettings, files: bytes, utc: str) -> None:
    """Recognise the rows as they are now, before anything is charged to them; once for the same files.

    files: a digest of them. Without a DIR there is nothing to compare with, and nothing is done.

    Raises ContractError if some rows belong to another data set in the same DIR. If a row that was trained on is now held
    out, or the reverse, the ledger records it: both sides then pay for both.
    """
    seen = data.home(folder) / "looked"
    if data.ledger is None or (seen.exists() and files.hex() in seen.read_text().split()):
        return
    with _locked(folder, data):
        both = _look(folder, data)
        book = ledger.read(data.ledger_file(folder))
        if both and not book.book.shared:
            ledger.add(book, Shared(shared=(Part(rows="train"), Part(rows="validation")), utc=utc))
        with seen.open("a") as file:
            file.write(f"{files.hex()}\n")


def _look(folder: Path, data: DataSettings) -> bool:
    """Whether some row was ever on both sides."""
    paths = data.files(folder)
    place = data.home(folder)
    now = dict(zip(SIDES, prints_alone(paths, _key(data.ledgers(folder))), strict=True))
    ours = {side: np.union1d(_known(place, side), now[side]) for side in SIDES}
    if data.ledger is not None:
        every = np.union1d(ours["train"], ours["validation"])
        for other in sorted(path.parent for path in data.ledgers(folder).glob("*/ledger.jsonl")):
            if other != place and (same := sum(np.isin(_known(other, side), every).sum() for side in SIDES)):
                raise ContractError(
                    f"data sets '{data.dataset}' and '{other.name}' in {data.ledgers(folder)} share {how_many(same, 'row')}: "
                    "only one ledger protects these people over both. "
                    f"Name it with dataset = \"{other.name}\" (site.toml, [data]; at first: --dataset {other.name})")
    make_folders(place)
    for side in SIDES:
        write_whole(place / f"{side}.prints", ours[side].tobytes(), durable=True, mode=0o600)
    return bool(np.isin(ours["train"], ours["validation"]).any())


def _known(place: Path, side: str) -> Prints:
    path = place / f"{side}.prints"
    return np.frombuffer(path.read_bytes(), dtype=np.uint64) if path.exists() else np.empty(0, dtype=np.uint64)


def _key(where: Path) -> str:
    path = where / "prints.key"
    if not path.exists():
        make_folders(where)
        write_whole(path, secrets.token_hex(8).encode(), durable=True, mode=0o600)
    key = path.read_text()
    if len(key) != 16:
        raise SetupError(f"{path} is no key: restore it from your backup; without it known rows are not recognised")
    return key


@contextmanager
def _locked(folder: Path, data: DataSettings) -> Iterator[None]:
    where = data.ledgers(folder)
    make_folders(where)
    with FileLock(where / ".lock"):
        yield
