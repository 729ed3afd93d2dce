"""Contributions of a committed round: written once, added up, computed again by whoever doubts; and told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from fedround import layout
from fedround.contribution.said import Contribution
from fedround.errors import ChainError, ContractError, TrustError
from fedround.learning.recipe import load_recipe
from fedround.signing import MAX_DOCUMENT_BYTES, Identity, seal, unseal
from fedround_cli.main import app
from infra import git_history
from infra.history import read_commit
from infra.model_registry import ModelRegistry
from tasks.catch_up import catch_up, rebuild
from tasks.contribution import Public, account, contributed, public_of, settle, tell
from tasks.proofs import RoundProof
from tasks.recompute import Bench
from tasks.report import page, records
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import SmallFederation


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Two rounds with momentum; in the second, south undoes ten times what the others do: its own update alone, noised, may
    point anywhere. The first has its contributions.
    """
    federation = small_federation.make(tmp_path_factory.mktemp("begun"), incentive={"points": 900.0, "floor": 0.1})
    federation.round()
    federation.round(lies={"south": lambda update_D: -10 * sum(
        sent(federation, site)[-len(update_D):] for site in ("north", "east"))})
    contributed(federation.coordinator, "spring", 1)
    return federation


def sent(federation: SmallFederation, site: str) -> npt.NDArray[np.float32]:
    """The file of this site's update in round 2; the update's numbers are its end."""
    data = (federation.root / "store" / layout.delta(site, "spring", 2, 1)).read_bytes()
    return np.frombuffer(data[len(data) % 4:], "<f4")


@pytest.fixture
def federation(begun: SmallFederation, tmp_path: Path) -> SmallFederation:
    return begun.copy(tmp_path / "copy")


def proofs(federation: SmallFederation, bench: Path | None = None, public: Public | None = None) -> list[RoundProof]:
    coordinator = federation.coordinator
    return list(verify_run(coordinator.store, "spring", coordinator.identity.key, None,
                           None if bench is None else Bench(bench, coordinator.store), public))


def resaid(federation: SmallFederation, change: Callable[[Contribution], dict[str, object]],
           identity: Identity | None = None) -> None:
    """The coordinator, or somebody else, signs another word about round 1."""
    path, own = federation.root / "store" / layout.contribution("spring", 1), federation.coordinator.identity
    said = unseal(path.read_bytes(), Contribution, own.key, "it")
    path.unlink()
    path.write_bytes(seal(said.model_copy(update=change(said)), identity or own))


def test_it_adds_up_is_written_once_and_names_who_pulls_backwards(federation: SmallFederation):
    coordinator = federation.coordinator
    said = contributed(coordinator, "spring", 2)
    head = read_commit(coordinator.store, "spring", 2, coordinator.identity.key)
    assert (said.commit, said.method, said.coalitions, said.metric) == (head.digest, "exact", 8, "auc")
    assert sum(one.value for one in said.sites) == pytest.approx(said.everybody - said.nobody, abs=1e-12)
    assert [one.site for one in said.sites] == ["east", "north", "south"]
    assert min(said.sites, key=lambda one: one.value).site == "south"
    assert all(one.low < one.value < one.high for one in said.sites)
    before = (federation.root / "store" / layout.contribution("spring", 2)).read_bytes()
    assert contributed(federation.coordinator, "spring", 2) == said
    assert (federation.root / "store" / layout.contribution("spring", 2)).read_bytes() == before


def test_it_changes_nothing_that_a_round_reads(federation: SmallFederation, tmp_path: Path):
    """The next plan and the next model are the same bytes with and without it."""
    one, other = federation, federation.copy(tmp_path / "other")
    contributed(one.coordinator, "spring", 2)
    planned = [some.plan() for some in (one, other)]
    assert planned[0].digest == planned[1].digest
    for some, plan in zip((one, other), planned, strict=True):
        for name in plan.plan.cohort:
            some.answer(name, plan)
    assert one.commit(planned[0]).commit.model == other.commit(planned[1]).commit.model


def test_verify_proves_it_and_computes_it_again_where_the_public_rows_are(federation: SmallFederation, tmp_path: Path):
    public = public_of(federation.coordinator)
    assert [proof.contribution for proof in proofs(federation)] == ["", "signed", ""]
    assert proofs(federation, tmp_path / "bench", public)[1].contribution == "recomputed"
    assert "no public rows here" in proofs(federation, tmp_path / "bench")[1].contribution
    fewer = dataclasses.replace(public, rows=dataclasses.replace(public.rows, targets=1 - public.rows.targets["y"]))
    assert "not those of the coordinator" in proofs(federation, tmp_path / "bench", fewer)[1].contribution
    changed = tmp_path / "recipe.py"
    changed.write_text(small_federation.RECIPE + "\n")
    other = dataclasses.replace(public, recipe=load_recipe(changed))
    assert "recipe" in proofs(federation, tmp_path / "bench", other)[1].contribution


def moved(said: Contribution) -> dict[str, object]:
    """A little from one site to another: it still adds up."""
    first, second, *others = said.sites
    return {"sites": (first.model_copy(update={"value": first.value + 0.01}),
                      second.model_copy(update={"value": second.value - 0.01}), *others)}


def test_a_word_that_does_not_follow_from_the_updates_is_caught_by_computing_again(federation: SmallFederation,
                                                                                   tmp_path: Path):
    resaid(federation, moved)
    assert proofs(federation)[1].contribution == "signed"
    with pytest.raises(ChainError, match="computed again"):
        proofs(federation, tmp_path / "bench", public_of(federation.coordinator))


@pytest.mark.parametrize(("change", "says"), [
    (lambda said: {"everybody": min(1.0, said.everybody + 0.01)}, "do not add up"),
    (lambda said: {"sites": said.sites[1:]}, "does not name every committed update"),
    (lambda said: {"commit": "0" * 64}, "another commit"),
    (lambda said: {"round": 2}, "another commit"),
], ids=["sum", "site", "commit", "round"])
def test_a_word_that_cannot_be_is_caught_without_rows(federation: SmallFederation, change, says: str):
    resaid(federation, change)
    with pytest.raises(ChainError, match=says):
        proofs(federation)


JUNK = {"empty": b"", "giant": bytes(MAX_DOCUMENT_BYTES + 1), "nested": b"[" * 100_000, "no text": b"\xff\xfe",
        "another's word": b""}


@pytest.mark.parametrize("junk", JUNK)
def test_attack_what_a_stranger_puts_in_its_place_is_nothing_and_stops_nothing_but_it(federation: SmallFederation, junk: str):
    path = federation.root / "store" / layout.contribution("spring", 1)
    resaid(federation, lambda _: {}, Identity.generate())
    if junk != "another's word":
        path.write_bytes(JUNK[junk])
    assert [proof.contribution for proof in proofs(federation)] == ["", "", ""]
    assert list(rebuild(federation.coordinator, "spring")) == [1, 2]
    with pytest.raises(TrustError, match=r"contributions/00001.* remove it"):
        contributed(federation.coordinator, "spring", 1)


def test_an_update_that_was_left_out_has_no_part(tmp_path: Path, rows_are_judged_here: None):
    """So long a one is left out before any arithmetic."""
    names = ("north", "east", "south", "west")
    federation = small_federation.make(tmp_path / "four", names=names, quorum=3,
                                       aggregation={"rule": {"name": "trimmed_mean", "f": 1}})
    commit = federation.round(lies={"west": lambda update_D: update_D + np.float32(1e30)})
    assert [update.site for update in commit.updates if update.verdict != "used"] == ["west"]
    said = contributed(federation.coordinator, "spring", 1)
    assert [one.value for one in said.sites if one.site == "west"] == [0]
    assert said.pairs == 3


def test_points_follow_contribution_and_coming(federation: SmallFederation):
    contributed(federation.coordinator, "spring", 2)
    told, accounts = account(federation.coordinator, "spring", 2)
    assert [said.round for said in told] == [1, 2]
    assert sum(one.points for one in accounts) == pytest.approx(900)
    assert all(one.points >= 90 for one in accounts)
    assert {(one.asked, one.came) for one in accounts} == {(2, 2)}
    assert accounts[0].value == pytest.approx(sum(said.sites[0].value for said in told))


def test_the_page_the_record_and_a_rebuilt_one_show_it(federation: SmallFederation):
    coordinator = federation.coordinator
    catch_up(coordinator, "spring")
    tell(coordinator, "spring", 1)
    shown = page(coordinator, "spring", 1).read_text()
    assert "What each site added" in shown
    assert "feeds no weight" in shown
    assert "900 points" in shown
    found = records(coordinator, "spring")
    assert found[0].contribution is not None
    assert found[1].contribution is None, "nobody asked"
    page(coordinator, "spring", 1).unlink()
    assert list(rebuild(coordinator, "spring")) == [1, 2]
    assert "What each site added" in page(coordinator, "spring", 1).read_text()


def fedround(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.output if result.exit_code == 0 else f"exit code {result.exit_code}: {result.output}"


def test_the_command_shows_a_round_the_run_and_what_ranks_are_worth(federation: SmallFederation,
                                                                    monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    folder = federation.root / "coordinator"
    text = " ".join(fedround("models", "contribution", "spring", 2, "-c", folder).split())
    for words in ("round 2 of run 'spring'", "pairs of sites differ by more than noise explains",
                  "At a small epsilon ranks are mostly noise", "It feeds no weight", "2 of 2 rounds together", "900 points",
                  "●"):
        assert words in text
    told = json.loads(fedround("models", "contribution", "spring", "-c", folder, "--json"))
    assert [one["round"] for one in told["rounds"]] == [1, 2]
    assert len(told["run"]) == 3
    assert "Contributed 2 of 2 rounds say what each site added; 2 recomputed" in " ".join(
        fedround("verify", "spring", "--as", folder, "--recompute").split())
    rows, site = folder / "test.parquet", federation.root / "north"
    by_a_site = fedround("verify", "spring", "--as", site, "--recompute", "--public-rows", rows)
    assert "2 recomputed" in " ".join(by_a_site.split())
    for wrong in ("0", "3", "x"):
        assert "is no round of the run" in fedround("models", "contribution", "spring", wrong, "-c", folder)
    assert "has no committed round" in fedround("models", "contribution", "autumn", "-c", folder)


def test_what_cannot_be_judged_is_said(federation: SmallFederation):
    coordinator = federation.coordinator
    with pytest.raises(ContractError, match="round 0"):
        contributed(coordinator, "spring", 0)
    blind = dataclasses.replace(coordinator, settings=coordinator.settings.model_copy(update={"test_set": None}))
    with pytest.raises(ContractError, match="test_set"):
        contributed(blind, "spring", 2)


def test_at_a_campaigns_end_all_rounds_are_settled_where_points_are_agreed(federation: SmallFederation):
    """Computed, signed, on the pages and in the model store; and the numbers are those that anybody would ask for later."""
    coordinator = federation.coordinator
    catch_up(coordinator, "spring")
    table = settle(coordinator, "spring")
    told, found = account(coordinator, "spring", 2)
    assert [one.round for one in told] == [1, 2]
    assert all(f"| {one.site} | " in table for one in found)
    assert "It feeds no weight" in table
    tag = git_history.read(coordinator.folder / "models", "spring/contribution-00002")
    kept = json.loads(tag["metrics.json"])
    assert {one.site: kept[f"contribution_{one.site}"] for one in found} == {one.site: one.value for one in found}
    assert sum(kept[f"points_{one.site}"] for one in found) == pytest.approx(900.0)
    assert all(record.contribution is not None for record in records(coordinator, "spring") if record.round > 0)
    assert settle(federation.coordinator, "spring") == table
    assert [version.tag for version in ModelRegistry.open(coordinator.folder / "models").versions()] == [
        "spring/round-00001", "spring/round-00002"]


def test_a_campaign_shows_it_and_no_campaign_fails_for_it(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch):
    from flows import federated_training as flow

    shown = []

    async def show(run: str, table: str) -> None:
        shown.append((run, table))

    monkeypatch.setattr(flow, "current_coordinator", lambda: federation.coordinator)
    monkeypatch.setattr(flow, "show_contribution", show)
    catch_up(federation.coordinator, "spring")
    asyncio.run(flow.contributions_told("spring"))
    assert shown == [("spring", settle(federation.coordinator, "spring"))]
    asyncio.run(flow.contributions_told("autumn"))          # there is no such run: told in the log
    assert len(shown) == 1


def test_without_points_that_are_agreed_nothing_is_computed(tmp_path: Path, rows_are_judged_here: None):
    federation = small_federation.make(tmp_path)
    federation.round()
    assert settle(federation.coordinator, "spring") == ""
    assert not (federation.root / "store" / layout.contribution("spring", 1)).exists()
