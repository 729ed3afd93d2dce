"""A run's partition: chosen when it begins, the same in all that is asked, and proven."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest

import tasks.begin
import tasks.plan
from fedround.agreement import Agreement
from fedround.errors import ChainError, ContractError
from fedround.privacy import ledger
from fedround.values import parse
from fedround_cli.verify import _as_json
from infra.history import read_checkpoint, read_commit
from site_workers import charging
from tasks.ask import conclude, plan_question
from tasks.certificate import certified
from tasks.compare_groups import question
from tasks.drift import due
from tasks.partition import partition_asked, settled, with_its_run
from tasks.plan import Planned
from tasks.requests import NextRoundRequest, RoundRequest, TrainingRequest
from tasks.verify import verify_run
from tests import weekly
from tests.site_workers.test_measure import allow
from tests.small_federation import SmallFederation, settings

FIRST, SECOND = weekly.name(1), weekly.name(2)
WEDNESDAY = weekly.MONDAY + datetime.timedelta(weeks=1, days=2)
"""In the second week."""
PRIVACY = {**settings()["privacy"], "rounds": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """One committed round of a campaign that also watches groups and drift."""
    federation = weekly.make(
        tmp_path_factory.mktemp("made"), 3, drift={"columns": [{"column": "x2", "edges": [0.0]}], "noise_std": 8.0},
        groups={"threshold": 0.5, "smallest": 5, "watched": [
            {"of": {"column": "x1", "edges": [0.0]}, "words": ["small", "large"], "noise_std": 6.0}]})
    for site in federation.names:
        allow(federation, site, statistics=("scores", "checks", "histograms", "decisions"))
    a_round(federation, federation.plan("spring", partition=FIRST))
    return federation


@pytest.fixture
def federation(made: SmallFederation, tmp_path: Path) -> SmallFederation:
    return made.copy(tmp_path)


def a_round(federation: SmallFederation, planned: Planned) -> None:
    for site in federation.names:
        assert federation.answer(site, planned) == "update"
    federation.commit(planned)


def test_all_that_a_campaign_asks_is_about_its_week_and_drawn_from_what_was_set_aside(federation: SmallFederation):
    """Rounds, scores of the last model, counts for drift, and decisions about groups before a promotion."""
    coordinator, books = federation.coordinator, [ledger.read(federation.site("north").ledger)]
    a_round(federation, federation.plan("spring"))
    one_more = RoundRequest(run="spring")
    for asked in (due(coordinator, one_more, 2), one_more, question(coordinator, "spring", 2)):
        assert asked is not None
        planned = plan_question(coordinator, asked)
        assert planned.plan.asks.partition == weekly_part(FIRST)
        assert [federation.answer(site, planned) for site in federation.names] == ["answer"] * 3
        conclude(coordinator, planned, federation.collect(planned))
    books.append(ledger.read(federation.site("north").ledger))
    assert len({ledger.held(book, 1e-5) for book in books}) == 1
    (campaign,) = books[1].book.campaigns
    assert campaign.partition == weekly_part(FIRST).in_ledger
    proofs = list(verify_run(coordinator.store, "spring", coordinator.identity.key))
    assert {proof.partition for proof in proofs} == {FIRST}
    assert [len(proof.findings) for proof in proofs] == [0, 0, 3]


def weekly_part(name: str):
    return weekly_how().named(name)


def weekly_how():
    return parse(Agreement, settings(privacy=PRIVACY, partitions={"column": "day", "by": "week"}), "settings").partitions


def test_a_run_keeps_its_week_and_a_new_one_takes_the_last_that_is_complete(federation: SmallFederation):
    coordinator = federation.coordinator
    assert federation.plan("spring").plan.asks.partition == weekly_part(FIRST)
    with pytest.raises(ContractError, match="trains on the rows of 2026-w02, from its first round to its last"):
        federation.plan("spring", partition=SECOND)
    with pytest.raises(ContractError, match="on whose rows"):
        federation.plan("summer")
    new = settled(coordinator, NextRoundRequest(run="summer"), WEDNESDAY)
    assert new.partition == FIRST
    old = NextRoundRequest(run="spring")
    assert settled(coordinator, old, WEDNESDAY + datetime.timedelta(weeks=9)) == old, "whatever day it is"
    assert partition_asked(coordinator, old) == weekly_part(FIRST)


def test_a_schedule_gives_each_week_a_run_of_its_own_and_asked_twice_it_is_the_same(federation: SmallFederation):
    asked = TrainingRequest(run="weekly", rounds=2, one_run_per_partition=True)
    first, again, next_week = (with_its_run(federation.coordinator, asked, WEDNESDAY + datetime.timedelta(days=days))
                               for days in (0, 3, 6))
    assert (first.run, first.partition, first.rounds) == (f"weekly-{FIRST}", FIRST, 2)
    assert first == again == with_its_run(federation.coordinator, first, WEDNESDAY)
    assert (next_week.run, next_week.partition) == (f"weekly-{SECOND}", SECOND)
    with pytest.raises(ContractError, match="too long"):
        with_its_run(federation.coordinator, asked.model_copy(update={"run": "w" * 38}), WEDNESDAY)


def test_a_federation_that_does_not_tell_rows_apart_has_no_partitions_to_train_on(answered):
    coordinator = answered.federation.coordinator
    with pytest.raises(ContractError, match="does not tell rows apart"):
        partition_asked(coordinator, NextRoundRequest(run="summer", partition=FIRST))
    with pytest.raises(ContractError, match="does not tell rows apart"):
        with_its_run(coordinator, TrainingRequest(run="summer", one_run_per_partition=True), WEDNESDAY)
    assert settled(coordinator, NextRoundRequest(run="summer"), WEDNESDAY).partition is None


@pytest.mark.parametrize(("changes", "says"), [
    ({"privacy": {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 2}}, "under the unit 'site'"),
    ({"drift": {"columns": [{"column": "x2", "edges": [0.0]}], "partitions": {"column": "day", "by": "month"},
                "measurements": 9}}, "both ways overlap"),
    ({"partitions": {"column": "day", "by": "year"}}, "'partitions.by'"),
    ({"partitions": {"column": "day", "wait_days": -1}}, "'partitions.wait_days'")])
def test_what_cannot_be_agreed(changes: dict, says: str):
    with pytest.raises(ContractError, match=says):
        parse(Agreement, settings(**{"privacy": PRIVACY, "partitions": {"column": "day"}, **changes}), "settings")


def test_a_run_begins_with_another_runs_last_model_and_never_with_none(federation: SmallFederation):
    coordinator = federation.coordinator
    last = read_commit(coordinator.store, "spring", 1, coordinator.identity.key).commit
    planned = federation.plan("summer", partition=SECOND, after="spring")
    assert planned.plan.base_model == last.model
    assert federation.plan("summer", after="nothing").digest == planned.digest, "a run that has begun is not begun again"
    for name in ("nothing", "autumn"):
        with pytest.raises(ContractError, match="has no committed round, so run 'autumn' cannot begin with its model"):
            federation.plan("autumn", partition=SECOND, after=name)
    assert federation.plan("autumn", partition=SECOND).plan.base_model != last.model


def test_attack_a_campaign_that_is_cut_into_runs_costs_what_it_costs(federation: SmallFederation):
    """Each run by itself would stay below the bound of promotion.toml."""
    coordinator = federation.coordinator
    store, key = coordinator.store, coordinator.identity.key
    for site in federation.names:
        allow(federation, site, max_epsilon=30.0)
    a_round(federation, federation.plan("summer", partition=SECOND, after="spring"))
    a_round(federation, federation.plan("autumn", partition=FIRST, after="summer"))
    assert json.loads(json.dumps(_as_json(next(verify_run(store, "summer", key)))))["after"]["run"] == "spring"
    own = {run: max(list(verify_run(store, run, key, 1))[-1].epsilons.values()) for run in ("spring", "summer", "autumn")}
    summer, autumn = (certified(store, run, key, 1) for run in ("summer", "autumn"))
    assert [begun.run for begun in autumn.after] == ["summer", "spring"]
    assert summer.epsilon == max(own["spring"], own["summer"])
    assert autumn.epsilon == own["spring"] + own["autumn"]
    assert autumn.signatures > summer.signatures


def test_attack_a_run_that_begins_with_another_model_than_it_says(federation: SmallFederation,
                                                                  monkeypatch: pytest.MonkeyPatch):
    """With one that was trained on rows that nobody was asked for, say."""
    coordinator, real = federation.coordinator, tasks.begin._after

    def lies(*arguments: object, **more: object) -> object:
        return replace(real(*arguments, **more), model=stolen)

    federation.plan("other", partition=SECOND)
    stolen = read_checkpoint(coordinator.store, read_commit(
        coordinator.store, "other", 0, coordinator.identity.key).commit, coordinator.identity.key).model
    monkeypatch.setattr(tasks.begin, "_after", lies)
    federation.plan("summer", partition=SECOND, after="spring")
    with pytest.raises(ChainError, match="is not the one that round 1 of run 'spring' has made"):
        list(verify_run(coordinator.store, "summer", coordinator.identity.key))


@pytest.mark.parametrize("where", ["plan", "plan and checkpoint"])
def test_attack_a_history_whose_second_round_trained_on_another_week(federation: SmallFederation, where: str,
                                                                    monkeypatch: pytest.MonkeyPatch):
    """The coordinator and all sites agree on it, against their own checks. Whoever verifies sees it."""
    coordinator = federation.coordinator
    monkeypatch.setattr(charging, "_refuse_other_rows", lambda *_: None)
    monkeypatch.setattr(tasks.plan, "partition_of", lambda *_: weekly_part(SECOND))
    planned = federation.plan("spring")
    assert planned.plan.asks.partition == weekly_part(SECOND)
    if where == "plan":
        from tasks import publish

        real = publish.Checkpoint
        monkeypatch.setattr(publish, "Checkpoint", lambda **said: real(**{**said, "partition": weekly_part(FIRST)}))
    a_round(federation, planned)
    with pytest.raises(ChainError, match="other rows"):
        list(verify_run(coordinator.store, "spring", coordinator.identity.key))
