"""Rounds over bad links end with the same bytes as over a good one: a sample, and all of them where slow tests run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.stores import base as base_of_stores
from infra.stores import s3 as s3_store
from tests.faults import links
from tests.faults.links import LINKS, Link, Round
from tests.faulty.proxy import Disturbed, FaultyProxy, in_front_of
from tests.small_federation import SmallFederation

if TYPE_CHECKING:
    from tests.conftest import S3Server

pytestmark = pytest.mark.stack
BY_NAME = {link.name: link for link in LINKS}


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    with in_front_of(s3_server.endpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(base_of_stores, "_PAUSES_S", (0.0, 0.0))


@pytest.fixture(scope="module")
def good(made: SmallFederation, proxy: FaultyProxy, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory,
         rows_are_judged_here: None) -> Round:
    return links.play(made, tmp_path_factory.mktemp("good"), proxy, s3_server.credential, GOOD, 0)


GOOD = Link("a good link", links.always(Disturbed()))


@pytest.mark.parametrize("name", ["20 % of answers lost"])
def test_some_bad_links(name: str, good: Round, made: SmallFederation, proxy: FaultyProxy, s3_server: S3Server, tmp_path:
    Path): check(name, good, made, proxy, s3_server, tmp_path)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_bad_link(name: str, good: Round, made: SmallFederation, proxy: FaultyProxy, s3_server: S3Server,
                        tmp_path: Path):
    check(name, good, made, proxy, s3_server, tmp_path)


def check(
        name: str, good: Round, made: SmallFederation, proxy: FaultyProxy, s3_server: S3Server, tmp_path: Path):
    found = links.play(made, tmp_path, proxy, s3_server.credential, BY_NAME[name], seed=5)
    assert found.wrong == ""
    assert found.models == good.models
    assert found.requests > good.requests or "late" in name or "members' clocks" in name, "the harm that is meant is done"


def test_a_good_link_has_no_errors_and_a_dead_one_ends_with_a_sentence(
        good: Round, made: SmallFederation, proxy: FaultyProxy, s3_server: S3Server, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch):
    assert (good.wrong, good.errors) == ("", ())
    monkeypatch.setattr(links, "TRIES", 2)
    dead = Link("dead", links.always(Disturbed(lost=True)))
    with pytest.raises(AssertionError, match=r"2 tries did not suffice; the last error: .*object store"):
        links.play(made, tmp_path, proxy, s3_server.credential, dead, seed=1)


def test_a_wrong_round_is_found(made: SmallFederation, proxy: FaultyProxy, s3_server: S3Server, tmp_path: Path):
    """The tool itself: a ledger with two charges is said to be wrong."""
    federation = made.copy(tmp_path)
    ledger = federation.root / "east" / "ledger.jsonl"
    ledger.write_text("1\n2\n3\n")
    for name in ("north", "south"):
        (federation.root / name / "ledger.jsonl").write_text("1\n2\n")
    assert links._wrong(federation, None, [], 1.0) == "the ledger of 'east' has 2 charges"
    assert links._wrong(federation, None, ["Traceback (most recent call last)"], 1.0).startswith("no sentence")
