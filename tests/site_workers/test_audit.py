"""The audit log tells what happened, before it happens, and notices what was done to it, to the ledger or to the outbox."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedround import layout
from fedround.errors import AuditError, ContractError, NotFoundError, SetupError, StoreUnavailableError
from fedround.privacy import ledger
from fedround.signing import digest
from infra.stores import DirectoryStore
from site_workers import audit, release
from site_workers import round as site_round
from site_workers.keys import begin_rotation
from site_workers.site import open_safe
from tests.small_federation import SmallFederation, store_is_down

SENT_AGAIN = "answered before; the same bytes were sent again"


@pytest.fixture
def north(federation: SmallFederation) -> Path:
    """A site that has answered one plan, refused another, and turned a third request away."""
    federation.round()
    planned = federation.plan()
    policy = federation.root / "north" / "policy.toml"
    text = policy.read_text()
    policy.write_text(text.replace("min_rows = 50", "min_rows = 9999"))
    federation.answer("north", planned)
    with pytest.raises(NotFoundError):
        site_round.answer(federation.site("north"), site_round.SiteRequest(
            run="autumn", round=1, attempt=1, purpose="train"), lambda: False)
    policy.write_text(text)
    return federation.root / "north"


def told(folder: Path) -> list[str]:
    return [event.what for event in audit.read(folder)]


def test_it_tells_what_was_asked_decided_spent_and_sent_in_this_order(north: Path):
    assert told(north) == ["approved", "approved", "asked", "spent", "decided", "left", "left", "asked", "decided", "left",
                           "turned away"]
    events = audit.verify(open_safe(north))
    assert [event.decision for event in events if isinstance(event, audit.Decided)] == ["carry out", "data"]
    assert [event.kind for event in events if isinstance(event, audit.Left)] == ["tensors", "answer", "refusal"]
    (away,) = [event for event in events if isinstance(event, audit.TurnedAway)]
    assert (away.problem, away.run, away.round) == ("NotFoundError", "autumn", 1)


def test_it_names_every_object_that_lies_under_the_sites_prefix_by_its_bytes(federation: SmallFederation, north: Path):
    prefix = federation.root / "store" / "sites" / "north"
    stored = {(str(path.relative_to(federation.root / "store")), digest(path.read_bytes()), path.stat().st_size)
              for path in prefix.rglob("*") if path.is_file()}
    assert {(event.key, event.sha256, event.size_bytes) for event in audit.read(north)
            if isinstance(event, audit.Left)} == stored


def test_what_was_spent_points_into_the_ledger(federation: SmallFederation, north: Path):
    (spent,) = [event for event in audit.read(north) if isinstance(event, audit.Spent)]
    book = ledger.read(federation.site("north").ledger)
    assert (spent.ledger_head, spent.mechanisms) == (book.head, book.charges[0].mechanisms)


def test_it_is_written_before_the_thing_leaves(federation: SmallFederation, monkeypatch):
    """Whatever is put into the store was in the log at that moment."""
    real = DirectoryStore.put_once

    def put_once(self, key, body, *, sha256=None, journal=None):
        logged = {event.key: event.sha256 for event in audit.read(federation.root / "north")
                  if isinstance(event, audit.Left)}
        assert logged[key] == digest(body if isinstance(body, bytes) else Path(body).read_bytes())
        return real(self, key, body, sha256=sha256)

    planned = federation.plan()
    monkeypatch.setattr(DirectoryStore, "put_once", put_once)
    assert federation.answer("north", planned) == "update"


def test_an_answer_that_is_sent_again_and_a_key_that_is_handed_over_are_told_too(federation: SmallFederation):
    planned = federation.plan()
    federation.answer("north", planned)
    federation.answer("north", planned)
    decisions = [event.decision for event in audit.read(federation.root / "north") if isinstance(event, audit.Decided)]
    assert decisions == ["carry out", "send again"]
    begin_rotation(federation.site("north"), None)
    left = audit.read(federation.root / "north")[-1]
    assert isinstance(left, audit.Left)
    assert (left.kind, left.plan) == ("rotation", None)
    assert digest((federation.root / "store" / left.key).read_bytes()) == left.sha256


def test_nothing_leaves_that_cannot_be_written_down(federation: SmallFederation):
    planned = federation.plan()
    (federation.root / "north" / "audit.jsonl").unlink()
    with pytest.raises(SetupError, match="no audit log"):
        federation.answer("north", planned)
    assert not (federation.root / "store" / "sites").exists()
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_a_store_that_is_down_is_logged_as_often_as_it_is_tried(federation: SmallFederation):
    planned = federation.plan()
    with store_is_down(), pytest.raises(StoreUnavailableError):
        federation.answer("north", planned)
    audit.verify(open_safe(federation.root / "north"))
    assert release.resend(federation.site("north")) == 1
    assert told(federation.root / "north").count("left") == 4
    audit.verify(open_safe(federation.root / "north"))


def test_only_the_one_door_says_that_something_left():
    folder = Path(__file__).parents[2]
    writers = {path.name for package in ("site_workers", "flows", "tasks", "infra", "fedround_cli")
               for path in (folder / package).rglob("*.py") if re.search(r"\bLeft\(|leaving\(", path.read_text())}
    assert writers == {"audit.py", "release.py"}


# -- what was done to it -----------------------------------------------------------------------------------------------


def edited(lines: list[str]) -> list[str]:
    return [line.replace('"decision":"data"', '"decision":"carry out"') for line in lines]


TAMPERED = {
    "edited": edited,
    "a line is missing": lambda lines: lines[:4] + lines[5:],
    "two lines are exchanged": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "a line twice": lambda lines: [*lines, lines[-1]],
    "the first line is gone": lambda lines: lines[1:],
    "the refusal's end is cut off": lambda lines: lines[:-2],
    "the update's end is cut off": lambda lines: lines[:6],
    "all is cut off but the first line": lambda lines: lines[:1],
}


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED.keys())
def test_tampering_is_noticed(north: Path, tamper):
    path = north / "audit.jsonl"
    lines = path.read_text().splitlines()
    assert tamper(lines) != lines
    path.write_text("\n".join(tamper(lines)) + "\n")
    with pytest.raises(AuditError):
        audit.verify(open_safe(north))


def test_a_ledger_that_was_rolled_back_is_noticed(federation: SmallFederation):
    federation.round()
    older = (federation.root / "north" / "ledger.jsonl").read_bytes()
    federation.round()
    audit.verify(open_safe(federation.root / "north"))
    (federation.root / "north" / "ledger.jsonl").write_bytes(older)
    with pytest.raises(AuditError, match="no longer holds what was spent"):
        audit.verify(open_safe(federation.root / "north"))


def test_a_ledger_that_is_older_than_the_log_is_noticed(federation: SmallFederation, north: Path):
    """The log was begun anew after charges that the ledger then lost: no line of the log tells of them."""
    begun = (north / "ledger.jsonl").read_bytes().splitlines(keepends=True)[0]
    (north / "audit.jsonl").unlink()
    audit.begin(open_safe(north), "north", datetime(2026, 3, 1, tzinfo=UTC), north / "ledger.jsonl")
    (north / "ledger.jsonl").write_bytes(begun)
    with pytest.raises(AuditError, match="fewer charges than when the log began"):
        audit.verify(open_safe(north))


def test_a_charge_that_nobody_asked_for_is_noticed(federation: SmallFederation, north: Path):
    book = ledger.read(federation.site("north").ledger)
    ledger.charge(book, book.charges[0].model_copy(update={"plan": "1" * 64, "round": 7}), 900.0)
    with pytest.raises(AuditError, match="the log does not know that anybody asked"):
        audit.verify(open_safe(north))


def test_an_outbox_that_lost_or_changed_an_answer_is_noticed(north: Path):
    answer = next(path for path in (north / "outbox").rglob("answer.json") if b'"round":1' in path.read_bytes())
    body = answer.read_bytes()
    shutil.move(answer.parent, north / "elsewhere")
    with pytest.raises(AuditError, match="no longer holds that answer"):
        audit.verify(open_safe(north))
    shutil.move(north / "elsewhere", answer.parent)
    audit.verify(open_safe(north))
    answer.write_bytes(body.replace(b'"round":1', b'"round":3'))
    with pytest.raises(AuditError, match="the log does not"):
        audit.verify(open_safe(north))


@pytest.mark.parametrize(("event", "then"), [
    ("asked", "update"), ("spent", "update"), ("decided", "update"), ("left", SENT_AGAIN)])
def test_killed_between_any_two_lines_it_is_no_false_alarm(federation: SmallFederation, monkeypatch, event: str, then: str):
    """The process dies right after a line of this kind is durable; its successor finishes the work."""
    planned, real = federation.plan(), audit.record

    def die_after(folder, *events):
        real(folder, *events)
        if any(one.what == event for one in events):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit, "record", die_after)
        with pytest.raises(KeyboardInterrupt):
            federation.answer("north", planned)
    audit.verify(open_safe(federation.root / "north"))
    assert federation.answer("north", planned) == then
    audit.verify(open_safe(federation.root / "north"))
    assert len(ledger.read(federation.site("north").ledger).charges) == 1


def test_killed_between_the_charge_and_its_line_it_is_no_false_alarm(federation: SmallFederation, monkeypatch):
    planned, real = federation.plan(), ledger.charge

    def die_after(*arguments, **named):
        real(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "charge", die_after)
        with pytest.raises(KeyboardInterrupt):
            federation.answer("north", planned)
    assert told(federation.root / "north")[-1] == "asked"
    audit.verify(open_safe(federation.root / "north"))


def test_a_lost_log_is_begun_anew_with_what_there_is(north: Path):
    (north / "audit.jsonl").unlink()
    with pytest.raises(SetupError, match="--begin"):
        audit.verify(open_safe(north))
    audit.begin(open_safe(north), "north", datetime(2026, 3, 1, tzinfo=UTC), north / "ledger.jsonl")
    assert told(north) == ["found"] * 3
    audit.verify(open_safe(north))
    with pytest.raises(AuditError, match="exists already"):
        audit.begin(open_safe(north), "north", datetime(2026, 3, 1, tzinfo=UTC), north / "ledger.jsonl")


def test_the_log_holds_no_rows_and_is_its_owners(north: Path):
    assert (north / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    for line in (north / "audit.jsonl").read_text().splitlines()[1:]:
        assert len(line) < 2000
        assert set(json.loads(line)) == {"event", "previous", "sha256"}


def test_a_request_that_is_none_is_written_down_too(federation: SmallFederation):
    job = site_round.job(federation.site("north"))
    with pytest.raises(ContractError, match="unknown key 'command'"):
        job({"run": "spring", "round": 1, "attempt": 1, "purpose": "train", "command": "rm"}, lambda: False)
    (away,) = [event for event in audit.read(federation.root / "north") if isinstance(event, audit.TurnedAway)]
    assert (away.problem, away.run) == ("ContractError", None)
    assert layout.site_prefix("north") not in (federation.root / "north" / "audit.jsonl").read_text()
