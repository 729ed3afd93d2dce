"""What leaves is written to the site's own disk first: a retry repeats the bytes and never draws new noise.

One folder per plan. It is written beside its place, synced with its names, and renamed into it: an entry is there whole or
not at all, and stays. Under a passphrase its files are encrypted (`safe`).
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedround import layout
from fedround.errors import ContractError, SetupError
from fedround.files import make_folders, sync_folder, take_place
from fedround.records import Plan
from site_workers.kept_document import KeptBody, KeptDocument
from site_workers.safe import Safe

_ANSWER, _PAYLOAD, _SENT, _REFUSAL = "answer.json", "delta.safetensors", "sent", "-refusal-"
_JOURNAL = "upload.jsonl"
_PLACE = re.compile(rf"[0-9]{{5}}/[0-9]{{2}}(?:{_REFUSAL}[0-9]{{4,}})?")


@dataclass(frozen=True)
class Entry:
    """One answer, sealed, and its payload if it has one."""

    safe: Safe
    folder: Path
    answer_key: str
    payload_key: str | None

    @property
    def answer(self) -> bytes:
        """The sealed answer."""
        return self.safe.read_signed(self.folder / _ANSWER)

    @property
    def kind(self) -> str:
        """Of the signed document."""
        return _said(self.safe, self.folder).kind

    @property
    def body(self) -> KeptBody:
        """What the answer says."""
        return _said(self.safe, self.folder).body

    @property
    def payload(self) -> Path | bytes | None:
        """The file beside it as a store takes it, or, if that is encrypted, what it holds: tensors, a masked vector, or what
        is about keys.
        """
        if self.payload_key is None:
            return None
        path = self.folder / _PAYLOAD
        return self.safe.read_signed(path) if path.exists() and self.safe.is_sealed(path) else path

    @property
    def journal(self) -> Path:
        """Where is written down which parts of the payload the store has. It holds digests, and nothing of the payload."""
        return self.folder / _JOURNAL

    @property
    def sent(self) -> bool:
        """Whether every byte is known to have arrived."""
        return (self.folder / _SENT).exists()

    def mark_sent(self) -> None:
        """Write down that every byte has arrived, and drop the tensors: they are in the store."""
        (self.folder / _SENT).touch()
        sync_folder(self.folder)        # who has lost the tensors must know that they have arrived
        (self.folder / _PAYLOAD).unlink(missing_ok=True)


def plan_of(safe: Safe, plan: Plan) -> str | None:
    """The digest of the plan that this site answered for the same round and purpose, if it has answered one."""
    place = _place(safe.folder, plan.run, plan.asks.kind, plan.round, plan.attempt)
    return _said(safe, place).body.plan if (place / _ANSWER).exists() else None


def find(safe: Safe, plan: Plan) -> Entry | None:
    """The answer to this plan, if there is one. A refusal does not count: asked again, the site looks again."""
    folder = _place(safe.folder, plan.run, plan.asks.kind, plan.round, plan.attempt)
    return _entry(safe, folder) if folder.exists() else None


def write(safe: Safe, plan: Plan, sealed: bytes, payload: bytes | None) -> Entry:
    """Keep an answer durably before any of it leaves.

    Raises SetupError if the disk does not take it, ContractError if the plan has another answer already. The same answer,
    which a second process may have made, is no error.
    """
    return _keep(safe, _place(safe.folder, plan.run, plan.asks.kind, plan.round, plan.attempt), sealed, payload)


def write_refusal(safe: Safe, plan: Plan, sealed: bytes) -> Entry:
    """Keep a refusal, beside earlier ones: asked again, the site may refuse again, or answer."""
    place = _place(safe.folder, plan.run, plan.asks.kind, plan.round, plan.attempt)
    earlier = len(list(place.parent.glob(f"{place.name}{_REFUSAL}*")))
    return _keep(safe, _refusal_place(place, earlier + 1), sealed, None)


def put_back(safe: Safe, key: str, sealed: bytes) -> Entry:
    """Keep the object under `key` in the store, which this folder has forgotten. Raises ContractError: no such key."""
    place = _place_of(safe.folder, key)
    if place is None:
        raise ContractError(f"'{key}' is no place for an answer or a refusal")
    return _keep(safe, place, sealed, None, sent=True)


def settle(safe: Safe) -> None:
    """Encrypt what was written before the site had a passphrase."""
    for folder in _folders(safe, "*/*/*/*"):
        for path in (folder / _PAYLOAD, folder / _ANSWER):
            if path.exists():
                safe.settle(path)


def _keep(safe: Safe, place: Path, sealed: bytes, payload: bytes | None, sent: bool = False) -> Entry:
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        make_folders(temporary, mode=0o700)
        if payload is not None:
            safe.write(temporary / _PAYLOAD, payload, of=place / _PAYLOAD)
        safe.write(temporary / _ANSWER, sealed, of=place / _ANSWER)
        if sent:
            (temporary / _SENT).touch()
            sync_folder(temporary)
        take_place(temporary, place)
    except OSError as error:
        if (place / _ANSWER).exists():
            return _kept_already(safe, place, sealed)
        raise SetupError(f"{place}: the answer cannot be kept ({error.strerror}), so nothing of it leaves; make room, or "
                         "mend the folder's permissions. Asked again, the site makes the same answer, and is not charged "
                         "again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _entry(safe, place)


def _kept_already(safe: Safe, place: Path, sealed: bytes) -> Entry:
    """The answer that another process of this site put there first."""
    entry = _entry(safe, place)
    if entry.answer != sealed:
        raise ContractError(f"{place}: another answer to the same plan is kept there, so this one does not leave; does a "
                            "second process serve this folder? Stop one of them")
    return entry


def entries(safe: Safe) -> Iterator[Entry]:
    """Everything that has left or is to leave, the oldest round of each run first."""
    return (_entry(safe, folder) for folder in _folders(safe, "*/*/*/*"))


def answers(safe: Safe, run: str, purpose: str, number: int) -> Iterator[Entry]:
    """What the site answered to the attempts at one round; refusals are none."""
    return (_entry(safe, folder) for folder in _folders(safe, f"{run}/{purpose}/{number:05d}/[0-9][0-9]"))


@dataclass(frozen=True, order=True)
class Given:
    """An update that the site gave in a run."""

    round: int
    attempt: int
    mechanism: str
    """The kind of its noise mechanism."""


def updates(safe: Safe, run: str, before: int) -> list[Given]:
    """Every update that the site gave in a run, among rounds earlier than `before`; newest first."""
    found = []
    for folder in _folders(safe, f"{run}/train/*/[0-9][0-9]"):
        number, attempt = int(folder.parent.name), int(folder.name)
        if number < before and (update := _said(safe, folder).body.update) is not None:
            found.append(Given(number, attempt, update.mechanism.kind))
    return sorted(found, reverse=True)


def refusals(safe: Safe, reasons: Collection[str]) -> int:
    """How many refusals the site has given for one of these reasons, ever."""
    return sum(_said(safe, folder).body.reason in reasons for folder in _folders(safe, f"*/*/*/*{_REFUSAL}*"))


def has(safe: Safe, key: str) -> bool:
    """Whether the answer or refusal that lies in the store under this key is kept here too; False for any other key."""
    place = _place_of(safe.folder, key)
    return place is not None and (place / _ANSWER).exists()


def unsent(safe: Safe) -> Iterator[Entry]:
    """Every entry that is not known to have arrived completely."""
    return (_entry(safe, folder) for folder in _folders(safe, "*/*/*/*") if not (folder / _SENT).exists())


def drop_what_has_arrived(safe: Safe) -> None:
    """Remove tensors whose arrival is written down: a process that was killed in `mark_sent` leaves them."""
    for payload in (safe.folder / "outbox").glob(f"*/*/*/*/{_PAYLOAD}"):
        if (payload.parent / _SENT).exists():
            payload.unlink()


def unsent_refusals(safe: Safe, plan: Plan) -> Iterator[Entry]:
    """The refusals of this plan that are not known to have arrived, in their order."""
    said = f"{plan.run}/{plan.asks.kind}/{plan.round:05d}/{plan.attempt:02d}{_REFUSAL}*"
    return (entry for folder in _folders(safe, said) if not (entry := _entry(safe, folder)).sent)


def _place_of(site_folder: Path, key: str) -> Path | None:
    """Where the answer, or the refusal, that lies in the store under `key` is kept; None: no answer has such a key."""
    if (answered := layout.parse_answer(key)) is not None:
        _, run, number, attempt, purpose = answered
        return _place(site_folder, run, purpose, number, attempt)
    if (refused := layout.parse_refusal(key)) is not None:
        _, run, number, attempt, purpose, count = refused
        return _refusal_place(_place(site_folder, run, purpose, number, attempt), count)
    return None


def _place(site_folder: Path, run: str, purpose: str, number: int, attempt: int) -> Path:
    return site_folder / "outbox" / run / purpose / f"{number:05d}" / f"{attempt:02d}"


def _refusal_place(place: Path, count: int) -> Path:
    return place.with_name(f"{place.name}{_REFUSAL}{count:04d}")


def _folders(safe: Safe, pattern: str) -> list[Path]:
    """Where answers and refusals are kept, in order. A folder with another name (an operator's copy, say) keeps none."""
    found = (path.parent for path in (safe.folder / "outbox").glob(f"{pattern}/{_ANSWER}"))
    return sorted(folder for folder in found if _PLACE.fullmatch(f"{folder.parent.name}/{folder.name}"))


def _said(safe: Safe, folder: Path) -> KeptDocument:
    """The signed document of an entry. Raises ContractError if it is not what was kept there."""
    path = folder / _ANSWER
    try:
        return KeptDocument.model_validate_json(safe.read_signed(path))
    except (OSError, SetupError, ValueError, RecursionError):
        raise ContractError(f"{path} is damaged: it is not the answer that this site kept. Restore the outbox from your "
                            "backup, with the ledger and the audit log of the same day; there is none: move the entry away, "
                            "and run 'fedround site recover'") from None


def _entry(safe: Safe, folder: Path) -> Entry:
    run, _, number, name = folder.relative_to(safe.folder / "outbox").parts
    attempt, _, refusal = name.partition(_REFUSAL)
    body = _said(safe, folder).body
    plan = body.site, run, int(number), int(attempt), body.asked
    if refusal:
        return Entry(safe, folder, layout.refusal(*plan, int(refusal)), None)
    tensors = layout.delta(*plan[:4]) if body.update is not None else layout.payload(*plan)
    return Entry(safe, folder, layout.answer(*plan), None if body.payload is None else tensors)
