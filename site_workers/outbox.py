"""What leaves is written to the site's own disk first: a retry repeats the bytes and never draws new noise.

One folder per plan. It is written beside its place, synced with its names, and renamed into it: an entry is there whole or
not at all, and stays.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fedround import layout
from fedround.errors import ContractError, SetupError
from fedround.files import make_folders, sync_folder, write_whole
from fedround.records import ANSWERS, Answer, Plan
from fedround.values import Purpose

_ANSWER, _PAYLOAD, _SENT, _REFUSAL = "answer.json", "delta.safetensors", "sent", "-refusal-"
_PLACE = re.compile(rf"[0-9]{{5}}/[0-9]{{2}}(?:{_REFUSAL}[0-9]{{4,}})?")


@dataclass(frozen=True)
class Entry:
    """One answer, sealed, and its payload if it has one."""

    folder: Path
    answer_key: str
    payload_key: str | None

    @property
    def answer(self) -> bytes:
        """The sealed answer."""
        return (self.folder / _ANSWER).read_bytes()

    @property
    def kind(self) -> str:
        """The digest of the signed document."""
        return str(_said(self.folder)["kind"])

    @property
    def body(self) -> dict[str, Any]:
        """What the answer says."""
        return dict(_said(self.folder)["body"])

    @property
    def payload(self) -> Path | None:
        """The file of the tensors."""
        return None if self.payload_key is None else self.folder / _PAYLOAD

    @property
    def sent(self) -> bool:
        """Whether every byte is known to have arrived."""
        return (self.folder / _SENT).exists()

    def mark_sent(self) -> None:
        """Write down that every byte has arrived, and drop the tensors: they are in the store."""
        (self.folder / _SENT).touch()
        sync_folder(self.folder)        # who has lost the tensors must know that they have arrived
        (self.folder / _PAYLOAD).unlink(missing_ok=True)


def plan_of(site_folder: Path, plan: Plan) -> str | None:
    """The digest of the plan that this site answered for the same round and purpose, if it has answered one."""
    place = _place(site_folder, plan.run, plan.asks.kind, plan.round, plan.attempt)
    return str(_said(place)["body"]["plan"]) if (place / _ANSWER).exists() else None


def find(site_folder: Path, plan: Plan) -> Entry | None:
    """The answer to this plan, if there is one. A refusal does not count: asked again, the site looks again."""
    folder = _place(site_folder, plan.run, plan.asks.kind, plan.round, plan.attempt)
    return _entry(site_folder, folder) if folder.exists() else None


def write(site_folder: Path, plan: Plan, sealed: bytes, payload: bytes | None) -> Entry:
    """Keep an answer durably before any of it leaves.

    Raises SetupError if the disk does not take it, ContractError if the plan has another answer already. The same answer,
    which a second process may have made, is no error.
    """
    return _keep(site_folder, _place(site_folder, plan.run, plan.asks.kind, plan.round, plan.attempt), sealed, payload)


def write_refusal(site_folder: Path, plan: Plan, sealed: bytes) -> Entry:
    """Keep a refusal, beside earlier ones: asked again, the site may refuse again, or answer."""
    place = _place(site_folder, plan.run, plan.asks.kind, plan.round, plan.attempt)
    earlier = len(list(place.parent.glob(f"{place.name}{_REFUSAL}*")))
    return _keep(site_folder, _refusal_place(place, earlier + 1), sealed, None)


def put_back(site_folder: Path, key: str, sealed: bytes) -> Entry:
    """Keep the object under `key` in the store, which this folder has forgotten. Raises ContractError: no such key."""
    place = _place_of(site_folder, key)
    if place is None:
        raise ContractError(f"'{key}' is no place for an answer or a refusal")
    return _keep(site_folder, place, sealed, None, sent=True)


def _keep(site_folder: Path, place: Path, sealed: bytes, payload: bytes | None, sent: bool = False) -> Entry:
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        make_folders(temporary, mode=0o700)
        if payload is not None:
            write_whole(temporary / _PAYLOAD, payload, durable=True)
        write_whole(temporary / _ANSWER, sealed, durable=True)
        if sent:
            (temporary / _SENT).touch()
            sync_folder(temporary)
        temporary.rename(place)
        sync_folder(place.parent)
    except OSError as error:
        if (place / _ANSWER).exists():
            return _kept_already(site_folder, place, sealed)
        raise SetupError(f"{place}: the answer cannot be kept ({error.strerror}), so nothing of it leaves; make room, or "
                         "mend the folder's permissions. Asked again, the site makes the same answer, and is not charged "
                         "again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _entry(site_folder, place)


def _kept_already(site_folder: Path, place: Path, sealed: bytes) -> Entry:
    """The answer that another process of this site put there first."""
    entry = _entry(site_folder, place)
    if entry.answer != sealed:
        raise ContractError(f"{place}: another answer to the same plan is kept there, so this one does not leave; does a "
                            "second process serve this folder? Stop one of them")
    return entry


def entries(site_folder: Path) -> Iterator[Entry]:
    """Everything that has left or is to leave, the oldest round of each run first."""
    return (_entry(site_folder, folder) for folder in _folders(site_folder, "*/*/*/*"))


def answers(site_folder: Path, run: str, purpose: str, number: int) -> Iterator[Entry]:
    """What the site answered to the attempts at one round; refusals are none."""
    return (_entry(site_folder, folder) for folder in _folders(site_folder, f"{run}/{purpose}/{number:05d}/[0-9][0-9]"))


@dataclass(frozen=True, order=True)
class Given:
    """An update that the site gave in a run."""

    round: int
    attempt: int
    mechanism: str
    """The kind of its noise mechanism."""


def updates(site_folder: Path, run: str, before: int) -> list[Given]:
    """Every update that the site gave in a run, among rounds earlier than `before`; newest first."""
    found = []
    for folder in _folders(site_folder, f"{run}/train/*/[0-9][0-9]"):
        number, attempt = int(folder.parent.name), int(folder.name)
        if number < before and (update := _said(folder)["body"]["update"]) is not None:
            found.append(Given(number, attempt, update["mechanism"]["kind"]))
    return sorted(found, reverse=True)


def refusals(site_folder: Path, reasons: Collection[str]) -> int:
    """How many refusals the site has given for one of these reasons, ever."""
    return sum(_said(folder)["body"]["reason"] in reasons for folder in _folders(site_folder, f"*/*/*/*{_REFUSAL}*"))


def has(site_folder: Path, key: str) -> bool:
    """Whether the answer or refusal that lies in the store under this key is kept here too; False for any other key."""
    place = _place_of(site_folder, key)
    return place is not None and (place / _ANSWER).exists()


def unsent(site_folder: Path) -> Iterator[Entry]:
    """Every entry that is not known to have arrived completely."""
    return (entry for entry in entries(site_folder) if not entry.sent)


def unsent_refusals(site_folder: Path, plan: Plan) -> Iterator[Entry]:
    """The refusals of this plan that are not known to have arrived, in their order."""
    said = f"{plan.run}/{plan.asks.kind}/{plan.round:05d}/{plan.attempt:02d}{_REFUSAL}*"
    return (entry for folder in _folders(site_folder, said) if not (entry := _entry(site_folder, folder)).sent)


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


def _folders(site_folder: Path, pattern: str) -> list[Path]:
    """Where answers and refusals are kept, in order. A folder with another name (an operator's copy, say) keeps none."""
    found = (path.parent for path in (site_folder / "outbox").glob(f"{pattern}/{_ANSWER}"))
    return sorted(folder for folder in found if _PLACE.fullmatch(f"{folder.parent.name}/{folder.name}"))


def _said(folder: Path) -> dict[str, Any]:
    """The signed document of an entry. Raises ContractError if it is not what was kept there."""
    path = folder / _ANSWER
    try:
        said = json.loads(path.read_bytes())
        body = said["body"]
        if not (isinstance(body["plan"], str) and isinstance(body["site"], str) and body["asked"] in get_args(Purpose)
                and said["kind"] in ANSWERS and (_describes_an_answer(body) if said["kind"] == Answer.kind
                                                 else isinstance(body["reason"], str))):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ContractError(f"{path} is damaged: it is not the answer that this site kept. Restore the outbox from your "
                            "backup, with the ledger and the audit log of the same day; there is none: move the entry away, "
                            "and run 'fedround site recover'") from None
    return dict(said)


def _describes_an_answer(body: dict[str, Any]) -> bool:
    update = body["update"]
    return update is None or (
        isinstance(update["payload"]["sha256"], str) and isinstance(update["payload"]["size_bytes"], int)
        and isinstance(update["mechanism"]["kind"], str))


def _entry(site_folder: Path, folder: Path) -> Entry:
    run, _, number, name = folder.relative_to(site_folder / "outbox").parts
    attempt, _, refusal = name.partition(_REFUSAL)
    body = _said(folder)["body"]
    plan = body["site"], run, int(number), int(attempt), body["asked"]
    if refusal:
        return Entry(folder, layout.refusal(*plan, int(refusal)), None)
    return Entry(folder, layout.answer(*plan), layout.delta(*plan[:4]) if body.get("update") is not None else None)
