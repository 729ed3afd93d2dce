"""A site's own files, damaged, on a full disk, or under two processes: one sentence each, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from fedround.codec import schema_of
from fedround.errors import CodecError, ContractError, FedroundError, SetupError
from fedround.privacy import ledger
from fedround.records import LogHead
from site_workers import approval, audit, outbox, recover, safe, seen
from site_workers.site import open_safe, open_site
from tests import small_federation
from tests.small_federation import SmallFederation

NESTED = b'{"charge":{"a":' + b"[" * 3_000
DIGITS = b'{"charge":{"a":' + b"9" * 5_000


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    federation = small_federation.make(tmp_path_factory.mktemp("damaged"))
    federation.answer("north", federation.plan())
    return federation


@pytest.fixture
def folder(answered: SmallFederation, tmp_path: Path) -> Path:
    return answered.copy(tmp_path).root / "north"


def kept(folder: Path) -> Path:
    return next((folder / "outbox").rglob("answer.json"))


@pytest.mark.parametrize("damage", [b"", b"{}", b"[" * 3_000, b"9" * 5_000, b"\xff", b'{"body":3,"kind":"answer"}',
                                    b'{"body":{"plan":"x","site":"north","asked":"dance"},"kind":"answer"}', "half"])
def test_a_damaged_answer_in_the_outbox_is_one_sentence_for_audit_and_recovery(folder: Path, damage: bytes | str):
    path = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2] if isinstance(damage, str) else damage)
    for look in (lambda: audit.verify(open_safe(folder)), lambda: recover.forgotten(open_site(folder)),
                 lambda: list(outbox.entries(open_safe(folder)))):
        with pytest.raises(ContractError, match=r"answer.json is damaged.*Restore the outbox from your backup"):
            look()


def test_an_answer_that_names_no_mechanism_a_refusal_without_reason_and_a_lost_one_are_one_sentence(folder: Path):
    path = kept(folder)
    said = json.loads(path.read_bytes())
    del said["body"]["update"]["mechanism"]
    path.write_text(json.dumps(said))
    with pytest.raises(ContractError, match="answer.json is damaged"):
        outbox.updates(open_safe(folder), "spring", 9)
    refused = path.parent.with_name("01-refusal-0001")
    refused.mkdir()
    said["kind"] = "refusal"
    (refused / "answer.json").write_text(json.dumps(said))
    with pytest.raises(ContractError, match="answer.json is damaged"):
        outbox.refusals(open_safe(folder), ("budget",))


def test_an_answer_without_an_update_gave_none(folder: Path):
    path = kept(folder)
    said = json.loads(path.read_bytes())
    assert [given.round for given in outbox.updates(open_safe(folder), "spring", 9)] == [1]
    path.write_text(json.dumps({**said, "body": {**said["body"], "update": None}}))
    assert outbox.updates(open_safe(folder), "spring", 9) == []


def test_an_answer_that_was_moved_away_is_looked_at_by_nobody(folder: Path):
    path = kept(folder).parent
    path.rename(path.with_name("01.damaged"))
    assert (list(outbox.entries(open_safe(folder))), outbox.updates(open_safe(folder), "spring", 9)) == ([], [])


@pytest.mark.parametrize("tail", [NESTED, DIGITS, b'{"charge":{"a":"\xff'])
def test_a_torn_tail_that_is_none_is_not_cut_off_in_silence(folder: Path, tail: bytes):
    path = folder / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with pytest.raises(FedroundError, match="is not a line of a fedround privacy ledger"):
        ledger.read(path)
    assert path.read_bytes() == whole + tail


@pytest.mark.parametrize(("fault", "says"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system"),
                                             (errno.EACCES, "Permission denied")])
def test_a_disk_that_takes_no_answer_is_one_sentence_and_the_next_try_sends_the_same(
        answered: SmallFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, says: str):
    federation = answered.copy(tmp_path)
    policy = tmp_path / "north" / "policy.toml"
    policy.write_text(policy.read_text().replace("max_epsilon = 8.0", "max_epsilon = 80.0"))
    planned = federation.plan("autumn")

    def full(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    with monkeypatch.context() as patch:
        patch.setattr(safe, "writing_whole", full)
        with pytest.raises(SetupError, match=rf"cannot be kept \({says}.*\), so nothing of it leaves"):
            federation.answer("north", planned)
    assert not list((tmp_path / "store" / "sites" / "north" / "autumn").rglob("*.json"))
    assert not list((tmp_path / "north" / "outbox").rglob(".*"))
    charged = ledger.read(tmp_path / "north" / "ledger.jsonl").charges
    assert federation.answer("north", planned) == "update"
    assert ledger.read(tmp_path / "north" / "ledger.jsonl").charges == charged


def test_two_processes_without_the_lock_keep_one_answer(answered: SmallFederation, tmp_path: Path):
    """The second one finds what the first has kept: the same bytes, since noise is a function; others do not leave."""
    federation = answered.copy(tmp_path)
    planned = federation.plan()
    entry = outbox.find(open_safe(tmp_path / "north"), planned.plan)
    assert outbox.write(open_safe(tmp_path / "north"), planned.plan, entry.answer, b"the same tensors") == entry
    with pytest.raises(ContractError, match="does a second process serve this folder"):
        outbox.write(open_safe(tmp_path / "north"), planned.plan, entry.answer + b" ", None)
    assert outbox.find(open_safe(tmp_path / "north"), planned.plan) == entry


@pytest.mark.parametrize("where", ["runs", "log"])
def test_a_memory_that_was_altered_is_not_believed(tmp_path: Path, where: str):
    seen.write(tmp_path, seen.Seen().after(LogHead(number=2, digest="0" * 64), "spring",
                                           seen.SeenCommit(round=3, digest="1" * 64)))
    path = tmp_path / "seen.json"
    said = json.loads(path.read_bytes())
    if where == "runs":
        said["seen"]["runs"]["spring"]["round"] = 2
    else:
        said["seen"]["log"]["number"] = 1
    path.write_text(json.dumps(said))
    with pytest.raises(ContractError, match="its digest does not match"):
        seen.read(tmp_path)


@pytest.mark.parametrize("text", ["-" * 100_000, "a" + ".b" * 100_000, "not " * 50_000 + "1", "(" * 3_000])
def test_a_recipe_that_python_cannot_read_is_one_sentence(text: str):
    with pytest.raises(ContractError, match=r"nested too deeply|not Python"):
        approval.examine("recipe", text.encode(), "a recipe")


@pytest.mark.parametrize(("name", "shape"), [("layer/kernel:0", (1,)), ("w", (0, 3)), ("", (1,)), ("w" * 201, (1,))])
def test_a_checkpoint_with_a_name_or_a_shape_that_cannot_be_is_one_sentence(name: str, shape: tuple[int, ...]):
    import numpy as np

    with pytest.raises(CodecError, match="a name is made of at most 200 letters"):
        schema_of({name: np.zeros(shape, np.float32)})


def test_folders_with_keys_or_state_are_closed_under_any_umask(tmp_path: Path, rows_are_judged_here: None):
    before = os.umask(0)
    try:
        federation = small_federation.make(tmp_path / "open", names=("north",), quorum=1)
        federation.answer("north", federation.plan())
    finally:
        os.umask(before)
    for folder in (federation.root / "coordinator", federation.root / "north"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in (one for one in folder.rglob("*") if folder.name == "coordinator" or "outbox" in one.parts):
            if path.name != "sent" and "models" not in path.parts:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    for secret in (*(federation.root / "coordinator" / "keys").iterdir(), *(federation.root / "north" / "keys").iterdir()):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
