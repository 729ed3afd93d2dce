"""A rehearsal is a round that costs nothing, tells nobody anything, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from fedround.errors import ContractError, SetupError
from fedround.signing import Identity
from fedround_cli.main import app
from flows.rehearsal import Chance, Rehearsed, rehearse
from site_workers import audit
from site_workers import round as site_round
from tasks.plan import Planned
from tests import small_federation, summing
from tests.small_federation import RECIPE, SmallFederation

AT = datetime(2026, 11, 30, 8, tzinfo=UTC)


@pytest.fixture
def agreed(federation: SmallFederation) -> SmallFederation:
    """The coordinator has started once: its terms are in the log."""
    federation.coordinator.publish_federation()
    return federation


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder for temporary files, to see what is left in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def everything(root: Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file below a folder."""
    return {str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in root.rglob("*") if path.is_file() and "scratch" not in path.parts}


def test_it_says_what_a_round_then_does(agreed: SmallFederation):
    told = rehearse(agreed.site("north"))
    planned = agreed.plan()
    agreed.answer("north", planned)
    site = agreed.site("north")
    left = [event for event in audit.read(site.folder) if isinstance(event, audit.Left)]
    assert told.carried_out
    assert told.is_member
    assert (told.shape.train, told.shape.validation, told.shape.form.inputs[0].shape) == (300, 80, (2,))
    assert told.plan.agreed == planned.plan.agreed
    assert [event.kind for event in told.sent] == [event.kind for event in left]
    assert told.sent[0].size_bytes == left[0].size_bytes, "the update"      # an answer's edges may be others
    real = rehearse(site).costs["record"]
    assert told.costs["record"].after == real.before > told.costs["record"].before == 0
    assert told.costs["record"].spent < told.costs["record"].after <= 8


@pytest.mark.parametrize("end", ["answered", "refused", "failed", "stopped"])
def test_attack_nothing_is_charged_sent_or_left_behind_however_it_ends(agreed: SmallFederation, scratch: Path, monkeypatch,
                                                                        end: str):
    site = agreed.site("north")
    if end == "refused":
        site = replace(site, policy=site.policy.model_copy(update={"min_rows": 301}))
    if end == "stopped":
        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(site_round, "work", stop)
    if end == "failed":
        monkeypatch.setattr(site_round.kept, "write", lambda *_: 1 / 0)
    before = everything(agreed.root)
    if end == "stopped":
        with pytest.raises(KeyboardInterrupt):
            rehearse(site)
    else:
        assert rehearse(site).carried_out == (end == "answered")
    assert everything(agreed.root) == before
    assert list(scratch.iterdir()) == []


def told(federation: SmallFederation, chance: Chance) -> Rehearsed:
    return rehearse(replace(federation.site("north"), clock=lambda: AT), chance)


def test_attack_no_byte_of_what_it_would_send_depends_on_what_a_row_holds(agreed: SmallFederation, tmp_path: Path):
    chance = Chance(Identity.generate(), Identity.generate(), bytes(32), "rehearsal-1")
    data = agreed.root / "data" / "north" / "train.parquet"
    before, frame = told(agreed, chance).sent, pd.read_parquet(data)
    assert len(before) == 2
    frame.assign(x1=-frame["x1"] / 2, x2=7.0, y=1 - frame["y"]).to_parquet(data)
    assert told(agreed, chance).sent == before
    frame[:-1].to_parquet(data)         # how many there are is all that it knows
    assert told(agreed, chance).sent != before


def test_attack_what_works_is_given_no_path_to_rows_no_credential_and_no_known_key(agreed: SmallFederation, scratch: Path,
                                                                                   monkeypatch):
    given, send = [], site_round.release.release
    monkeypatch.setattr(site_round.release, "release", lambda site, *what: (given.append(site), send(site, *what)))
    site = agreed.site("north")
    rehearse(site)
    stand_in, = given
    assert stand_in.folder.is_relative_to(scratch)
    assert not any(path.exists() for path in stand_in.row_files)
    assert str(agreed.root) not in repr(stand_in.settings)
    assert stand_in.store != site.store
    assert stand_in.identity.key != site.identity.key
    assert stand_in.noise_secret != site.noise_secret


def test_a_store_that_takes_nothing_is_enough(agreed: SmallFederation, tmp_path: Path):
    """The credential of somebody who may only read would do: the rehearsal never calls what writes."""
    site = agreed.site("north")

    class OnlyReads:
        def __getattr__(self, name: str) -> object:
            assert name != "put_once"
            return getattr(site.store, name)

        def __hash__(self) -> int:
            return hash(site.store)

        def __eq__(self, other: object) -> bool:
            return other is self

    assert rehearse(replace(site, store=OnlyReads())).carried_out


def test_what_was_spent_counts(agreed: SmallFederation):
    agreed.round()
    site = agreed.site("north")
    told = rehearse(replace(site, policy=site.policy.model_copy(update={"max_epsilon": 8.5})))
    assert not told.carried_out
    assert told.decision.startswith("budget: ")
    assert told.costs["record"].after == told.costs["record"].before > 0
    assert told.mechanisms == ()


def test_a_site_that_is_no_member_yet_rehearses(agreed: SmallFederation):
    path = agreed.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace('name = "north"', 'name = "west"'))
    shutil.rmtree(agreed.root / "store")
    agreed.coordinator.publish_federation()
    told = rehearse(agreed.site("north"))
    assert (told.is_member, told.carried_out) == (False, True)


def test_before_anything_is_agreed_it_says_whom_to_ask(federation: SmallFederation):
    with pytest.raises(SetupError, match="its log is empty until the coordinator's process has been started"):
        rehearse(federation.site("north"))


def test_rows_that_cannot_be_read_are_one_sentence(agreed: SmallFederation):
    (agreed.root / "data" / "north" / "train.parquet").write_bytes(b"PAR1 no rows PAR1")
    with pytest.raises(ContractError, match="train.parquet"):
        rehearse(agreed.site("north"))


def test_a_shared_ledger_stays_as_it_is(rows_are_judged_here: None, tmp_path: Path):
    federation = small_federation.make(tmp_path / "made", recipe=RECIPE, apart=True)
    federation.coordinator.publish_federation()
    before = everything(federation.root)
    told = rehearse(federation.site("north"))
    assert told.carried_out
    assert everything(federation.root) == before


def test_the_command_says_it_in_a_few_lines(agreed: SmallFederation):
    folder = agreed.root / "north"
    shown = CliRunner().invoke(app, ["site", "rehearse", str(folder)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for line in ("asks           train 3 steps on batches of 32 rows", "rows           300 to train on, 80 held out",
                 "decides        carry out", "charges        epsilon 0.00 before", "noised for each record in every step",
                 "nothing was charged, sent or kept"):
        assert line in shown.output
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("min_rows = 50", "min_rows = 301"))
    refused = CliRunner().invoke(app, ["site", "rehearse", str(folder), "--json"])
    assert refused.exit_code == 1
    told = json.loads(refused.stdout)
    assert told["decision"] == "data: fewer rows than the site's policy asks for"
    assert [one["kind"] for one in told["sends"]] == ["refusal"]


def test_where_numbers_are_added_up_it_masks_with_members_that_are_made_up(tmp_path_factory: pytest.TempPathFactory,
                                                                           rows_are_judged_here: None, scratch: Path):
    federation = summing.make(tmp_path_factory.mktemp("sums"))
    federation.coordinator.publish_federation()
    before = everything(federation.root)
    told = rehearse(federation.site("north"))
    assert everything(federation.root) == before
    assert not list(scratch.iterdir())
    planned = keyed_plan(federation)
    federation.answer("north", planned)
    left = [event for event in audit.read(federation.site("north").folder)
            if isinstance(event, audit.Left) and event.plan == planned.digest]
    assert told.carried_out
    assert [event.kind for event in told.sent] == [event.kind for event in left]
    assert told.sent[0].size_bytes == left[0].size_bytes, "the masked vector"
    assert {mechanism.shared_by for mechanism in told.mechanisms} == {2}
    again = rehearse(federation.site("north")).costs["record"]
    assert told.costs["record"].after == again.before > 0


def keyed_plan(federation: summing.Summing) -> Planned:
    federation.keys()
    return federation.plan("spring")


def test_a_site_that_is_no_member_yet_rehearses_a_sum_of_all_with_it(tmp_path_factory: pytest.TempPathFactory,
                                                                     rows_are_judged_here: None):
    """Or is told why these terms would not hold with one more."""
    four = summing.make(tmp_path_factory.mktemp("four"), names=(*small_federation.NAMES, "west"), quorum=3, combine={
        "name": "secure_sum", "threshold": 3, "dropouts": 1, "colluders": 0})
    four.coordinator.publish_federation()
    site = four.site("west")
    told = rehearse(replace(site, settings=site.settings.model_copy(update={"name": "fifth"})))
    assert told.carried_out
    assert not told.is_member
