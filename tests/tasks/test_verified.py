"""What the last proof of a run found stands on its pages and in the index, for every round as far as the proof came."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedround import layout
from fedround_cli.main import app
from tasks import pages
from tasks.report import report
from tasks.reporting import RoundRecord
from tasks.reporting.record import Lineage
from tasks.reporting.verified import Verified, verdict
from tests.small_federation import SmallFederation
from tests.tasks.recorded import ATTACK, Page, with_
from tests.tasks.test_pages import dated

AT = datetime(2026, 3, 9, 12, 0, tzinfo=UTC)


def verified(*commits: str, **more: object) -> Verified:
    return Verified(**{"run": "spring", "at": AT, "commits": commits, "signatures": 7, "hashes": 9, "recomputed": 0, **more})


def committed(number: int, commit: str) -> RoundRecord:
    return with_(dated(number), lineage=Lineage(
        coordinator="k", commit=commit, plan=None, federation_file="f", log=1, recipe="r", recipe_digest="d",
        contract_digest="c"))


def text(path: Path) -> str:
    return " ".join(Page(path.read_text().replace("</td>", "</td> ").replace("</dt>", "</dt> ")).text.split())


@pytest.mark.parametrize(("found", "said"), [
    (None, "never"), (verified("0", "1"), "holds"), (verified("0"), "not this round"), (verified("0", "x"), "another commit"),
    (verified("0", "1", lost=("north",)), "in part"), (verified("0", "1", problem="a signature is missing"), "failed"),
    (verified(problem="the log is missing"), "failed")])
def test_a_proof_speaks_of_the_rounds_that_it_reached_and_of_their_commits_alone(found: Verified | None, said: str):
    assert verdict(found, committed(1, "1")) == said


def test_every_page_of_the_run_and_the_index_say_it_and_keep_it_when_a_round_follows(tmp_path: Path):
    for number in (1, 2):
        pages.write(tmp_path, committed(number, str(number)))
    first, second, index = tmp_path / "spring" / "00001.html", tmp_path / "spring" / "00002.html", tmp_path / "index.html"
    assert "Last proof never, in this folder: 'fedround verify spring'" in text(first)
    assert "weighted_mean –" in text(index)

    pages.note_verified(tmp_path, verified("0", "1", "2", recomputed=2))
    told = ("Last proof 2026-03-09 12:00 UTC: the run is proven up to round 2; 7 signatures, 9 hashes, "
            "2 of 2 models computed again")
    assert told in text(first)
    assert told in text(second)
    assert "holds, 2026-03-09 12:00 UTC" in text(index)
    assert "not proven" not in text(first) + text(second)

    pages.write(tmp_path, committed(3, "3"))
    assert "proven up to round 2; this round came later" in text(tmp_path / "spring" / "00003.html")
    assert told in text(second)
    assert "up to round 2, 2026-03-09" in text(index)


def test_what_does_not_hold_stands_at_the_top_of_the_page(tmp_path: Path):
    pages.write(tmp_path, committed(1, "1"))
    for doubt in (verified("0", problem="commit of round 1: signed by another key"), verified("0", "x"),
                  verified("0", "1", lost=("north",))):
        pages.note_verified(tmp_path, doubt)
        page = (tmp_path / "spring" / "00001.html").read_text()
        assert "not proven" in page.partition("</header>")[0]
        assert "badge rejected" in (tmp_path / "index.html").read_text()
    pages.note_verified(tmp_path, verified("0", "1"))
    assert "not proven" not in (tmp_path / "spring" / "00001.html").read_text()


def test_a_note_that_is_damaged_is_none_and_words_of_others_are_only_words(tmp_path: Path):
    pages.write(tmp_path, committed(1, "1"))
    pages.note_verified(tmp_path, verified("0", problem=ATTACK))
    tags = {tag for tag, _ in Page((tmp_path / "spring" / "00001.html").read_text()).tags}
    assert not {"script", "img"} & tags
    (tmp_path / "spring" / "verified.json").write_text("{")
    pages.write(tmp_path, committed(2, "2"))
    assert "Last proof never" in text(tmp_path / "spring" / "00002.html")


@pytest.mark.parametrize("run", ["autumn", "../spring", ""])
def test_a_run_without_pages_here_gets_no_file(tmp_path: Path, run: str):
    pages.write(tmp_path / "reports", committed(1, "1"))
    before = sorted(tmp_path.rglob("*"))
    pages.note_verified(tmp_path / "reports", verified("0", run=run))
    assert sorted(tmp_path.rglob("*")) == before


# -- by the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def reported(federation: SmallFederation) -> SmallFederation:
    """A committed round, with its page in the coordinator's folder."""
    planned = federation.plan()
    for name in ("north", "south", "east"):
        federation.answer(name, planned)
    committed, coordinator = federation.commit(planned), federation.coordinator
    report(coordinator, planned, federation.collect(planned), committed, None, 1.0, AT)
    return federation


def in_store(federation: SmallFederation) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (federation.root / "store").rglob("*") if path.is_file()}


def fedround(*arguments: object) -> int:
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).exit_code


def test_the_command_notes_what_it_finds_in_the_coordinators_folder_and_in_no_other(reported: SmallFederation):
    coordinator, north = reported.root / "coordinator", reported.root / "north"
    page, note = (coordinator / "reports" / "spring" / name for name in ("00001.html", "verified.json"))
    stored = in_store(reported)
    assert fedround("verify", "spring", "--as", north) == 0
    assert not note.exists()
    assert fedround("verify", "spring", "--as", coordinator, "--recompute") == 0
    assert "the run is proven up to round 1" in text(page)
    assert "1 of 1 models computed again from the sites' updates" in text(page)
    told = json.loads(page.with_suffix(".json").read_text())["lineage"]["commit"]
    assert json.loads(note.read_text())["commits"][1] == told
    assert in_store(reported) == stored, "nothing that is signed has it"

    (reported.root / "store" / layout.commit("spring", 0)).unlink()
    assert fedround("verify", "spring", "--as", coordinator) == 1
    assert "it does not hold. commit of round 0" in text(page)
    shutil.rmtree(coordinator / "reports")
    assert fedround("verify", "spring", "--as", coordinator) == 1
    assert not (coordinator / "reports").exists()
