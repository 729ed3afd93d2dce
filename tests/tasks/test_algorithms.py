"""Every algorithm through the whole of it: federation file, signed plan, sites, aggregate, commit, proof."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fedround import codec, layout, optimizers
from fedround.errors import ContractError, SetupError, TrustError
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.spec import FedAvg
from fedround.learning.train import train
from fedround.records import named
from fedround.rounds.campaign import mechanism_for
from fedround.rounds.site import shift_of
from infra.settings import load_toml, save_toml
from site_workers import inputs, kept
from site_workers import round as site_round
from site_workers.draws import SiteDraws
from site_workers.policy import Limits, SitePolicy
from site_workers.rows import read_site_rows
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation

TRAINING = {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5}
SCAFFOLD = {**TRAINING, "algorithm": {"name": "scaffold"}}
ADAPTIVE = [{"name": name, "learning_rate": 0.05} for name in ("fedadagrad", "fedadam", "fedyogi")]
LOCAL = [{"algorithm": {"name": "fedprox", "mu": 0.5}}, {"optimizer": "adam", "learning_rate": 0.05},
         {"partial": "keep"}, {"partial": "normalise"}]


@pytest.fixture
def make(tmp_path, rows_are_judged_here):
    return lambda **changes: small_federation.make(tmp_path, **changes)


def tensors(federation: SmallFederation, planned, sha256: str) -> np.ndarray:
    """A model, or something like one, from the store."""
    body = (federation.root / "store" / layout.model(sha256)).read_bytes()
    return codec.flatten(codec.decode(body, planned.plan.tensors, "stored"))


def delta(federation: SmallFederation, planned, site: str) -> np.ndarray:
    """What a site sent."""
    plan = planned.plan
    body = (federation.root / "store" / layout.delta(site, plan.run, plan.round, plan.attempt)).read_bytes()
    return codec.flatten(codec.decode(body, plan.tensors, "sent"))


@pytest.mark.parametrize("optimizer", ADAPTIVE, ids=lambda optimizer: optimizer["name"])
def test_a_server_optimizer_goes_on_from_the_state_that_the_commit_names(make, optimizer):
    federation = make(optimizer=optimizer)
    federation.round()
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    committed = federation.commit(planned).commit
    parent = planned.parent.commit
    assert len({None, parent.blob("optimizer"), committed.blob("optimizer")}) == 3
    schema = optimizers.state_schema(committed.agreed.optimizer, 17)
    before, after = (codec.decode((federation.root / "store" / layout.model(sha256)).read_bytes(), schema, "state")
                     for sha256 in (parent.blob("optimizer"), committed.blob("optimizer")))
    weight = {site.name: site.weight for site in federation.coordinator.federation.sites}
    mean_D = sum(weight[name] * delta(federation, planned, name).astype(np.float64) for name in NAMES) / sum(weight.values())
    model, state = optimizers.step({"w": tensors(federation, planned, parent.model)}, before, mean_D.astype(np.float32),
                                   committed.agreed.optimizer)
    assert model["w"] == pytest.approx(tensors(federation, planned, committed.model), abs=1e-5)
    assert all(state[name] == pytest.approx(after[name], rel=1e-4, abs=1e-7) for name in ("m", "v"))
    assert len(federation.proofs()) == 3


def test_another_optimizer_in_the_federation_file_begins_anew(make):
    federation = make()
    federation.round()
    path = federation.root / "coordinator" / "federation.toml"
    file = federation.coordinator.federation
    save_toml(file.model_copy(update={"optimizer": optimizers.FedYogi(learning_rate=0.05)}), path, "changed")
    committed = federation.round()
    assert committed.agreed.optimizer.name == "fedyogi"
    save_toml(file.model_copy(update={"optimizer": FedAvg()}), path, "changed again")
    assert federation.round().blob("optimizer") is None
    assert len(federation.proofs()) == 4


@pytest.mark.parametrize("changes", LOCAL, ids=str)
def test_a_local_algorithm_makes_two_rounds_that_prove_themselves(make, changes):
    federation = make(training={**TRAINING, **changes})
    first, second = federation.round(), federation.round()
    assert (first.blob("control"), second.blob("control")) == (None, None)
    assert {update.verdict for update in second.updates} == {"used"}
    assert len(federation.proofs()) == 3


# -- SCAFFOLD ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scaffold(make) -> SmallFederation:
    """One round is committed."""
    federation = make(training=SCAFFOLD)
    federation.round()
    return federation


def server_control(planned) -> str | None:
    """What the plan names."""
    return named(planned.plan.asks.state, "control")


def own(federation: SmallFederation, planned, site: str, number: int) -> np.ndarray:
    """A site's control after a round."""
    path = federation.root / site / "kept" / "spring" / "control" / f"{number:05d}-01.safetensors"
    return codec.flatten(codec.decode(path.read_bytes(), planned.plan.tensors, "control"))


def test_the_signed_plan_names_the_servers_control_and_it_is_the_mean_of_the_sites(scaffold):
    planned = scaffold.plan()
    assert server_control(planned) == planned.parent.commit.blob("control") is not None
    weight = {site.name: site.weight for site in scaffold.coordinator.federation.sites}
    for number in (1, 2):
        mean_D = sum(weight[name] * own(scaffold, planned, name, number) for name in NAMES) / sum(weight.values())
        assert tensors(scaffold, planned, server_control(planned)) == pytest.approx(mean_D, abs=1e-4)
        assert np.abs(mean_D).max() > 0.01
        scaffold.round()
        planned = scaffold.plan()
    assert len(scaffold.proofs()) == 4


def test_a_sites_control_follows_from_what_it_sent_and_never_leaves(scaffold):
    planned = scaffold.plan()
    server_D, before_D = tensors(scaffold, planned, server_control(planned)), own(scaffold, planned, "north", 1)
    scaffold.answer("north", planned)
    terms = planned.plan.agreed
    keeps = terms.training.algorithm.at_site(server_D - before_D, delta(scaffold, planned, "north"), terms.training)
    expected_D = keeps["control"]
    assert np.array_equal(own(scaffold, planned, "north", 2), expected_D)
    stored = {path.read_bytes() for path in (scaffold.root / "store").rglob("*.safetensors")}
    assert codec.encode(codec.unflatten(expected_D, planned.plan.tensors)) not in stored


@pytest.mark.parametrize("where", ["before the control is kept", "after it, before the answer is"])
def test_killed_and_started_again_it_ends_with_the_same_bytes(scaffold, where, tmp_path):
    planned = scaffold.plan()
    undisturbed = scaffold.undisturbed("north", planned, tmp_path / "copy")
    scaffold.killed("north", planned, *((kept, "write") if where.startswith("before") else (site_round.release, "release")))
    scaffold.answer("north", planned)
    for found in (delta, lambda f, p, s: own(f, p, s, 2)):
        assert np.array_equal(found(scaffold, planned, "north"), found(undisturbed, planned, "north"))


def test_another_control_draws_other_noise_under_the_same_plan(scaffold):
    """Otherwise the difference of two releases would be free of noise, from the second step on."""
    planned, site = scaffold.plan(), scaffold.site("north")
    order, rows = site_round.authorise(site, "spring", 2, 1, "train"), read_site_rows(site)
    given, terms = inputs.read(site, order, rows, lambda: False), planned.plan.agreed
    draws = SiteDraws(site.noise_secret, order.digest, rows.digest)
    mechanism = mechanism_for(terms.privacy, terms.training, terms.evaluation, 300)
    shift_D = shift_of(terms, given.served, given.kept)
    one, same, other = (codec.flatten(train(
        site.recipe, Lesson(given.base, given.train, shift_D=d), terms.training, mechanism, draws.training(d, {}),
        UNGUARDED).delta) + 0.5 * 3 * d for d in (shift_D, shift_D, np.nextafter(shift_D, np.float32(np.inf))))
    assert np.array_equal(one, same)
    assert np.abs(one - other).min() > 1e-6


def test_a_site_that_lost_its_control_begins_it_anew_and_one_that_is_damaged_is_said(scaffold):
    planned = scaffold.plan()
    path = scaffold.root / "north" / "kept" / "spring" / "control" / "00001-01.safetensors"
    path.unlink()
    assert scaffold.answer("north", planned) == "update"
    damaged = scaffold.root / "east" / "kept" / "spring" / "control" / "00001-01.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    with pytest.raises(SetupError, match="begins anew"):
        scaffold.answer("east", planned)


def test_a_control_without_an_answer_does_not_count_and_old_ones_go(scaffold):
    folder = scaffold.root / "north" / "kept" / "spring" / "control"
    scaffold.round()
    left_over = folder / "00002-02.safetensors"          # of an attempt that was never answered
    left_over.write_bytes(b"half a file")
    scaffold.round()
    assert sorted(path.name for path in folder.iterdir()) == [
        "00002-01.safetensors", left_over.name, "00003-01.safetensors"]


def test_a_site_does_not_begin_with_another_server_control_than_the_plan_names(scaffold):
    planned = scaffold.plan()
    path = scaffold.root / "store" / layout.model(server_control(planned))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(TrustError, match="'control' of round 2"):
        scaffold.answer("north", planned)


def test_who_is_missing_stays_in_the_servers_control(scaffold):
    """c moves by the share of those whose updates were used (Karimireddy et al. 2020: |S|/N)."""
    planned = scaffold.plan()
    before_D = tensors(scaffold, planned, server_control(planned))
    for name in ("north", "east"):
        scaffold.answer(name, planned)
    after = scaffold.commit(planned).commit
    weight = {"north": 300.0, "east": 200.0, "south": 150.0}
    mean_D = (300 * delta(scaffold, planned, "north") + 200 * delta(scaffold, planned, "east")) / 500
    expected_D = (1 - 500 / 650) * before_D - 500 / 650 * mean_D / 1.5
    assert sum(weight.values()) == 650
    assert tensors(scaffold, planned, after.blob("control")) == pytest.approx(expected_D, abs=1e-5)


@pytest.mark.parametrize(("changes", "says"), [
    ({"training": SCAFFOLD, "aggregation": {"gate": {"f": 0}, "rule": {"name": "weighted_mean"}}}, "gate"),
    ({"training": {**TRAINING, "optimizer": "adam"}, "aggregation": {"gate": {"f": 0}, "rule": {"name": "weighted_mean"}}},
     "gate"),
    ({"training": SCAFFOLD, "aggregation": {"history": 0.5, "rule": {"name": "weighted_mean"}}}, "history")])
def test_a_law_that_would_be_lost_is_a_refused_federation_file(make, changes, says):
    with pytest.raises(ContractError, match=says):
        make(**changes)


def test_without_a_law_the_default_is_the_rule_that_needs_none(tmp_path, rows_are_judged_here):
    names = tuple(f"site-{n}" for n in range(5))
    with pytest.raises(ContractError):
        small_federation.make(tmp_path / "a", quorum=5, aggregation=None, training=SCAFFOLD, optimizer={"name": "sgd"})
    federation = small_federation.make(tmp_path / "b", names=names, quorum=2, aggregation=None, training=SCAFFOLD)
    file = federation.coordinator.federation.model_copy(update={"quorum": 5})
    assert str(file.how_to_aggregate()) == "spectral_filter(f=1)"


# -- partial work ------------------------------------------------------------------------------------------------------


def slow(federation: SmallFederation, name: str, seconds_a_look: float, limit: int):
    """A site whose clock goes on by so much each time it is looked at, and whose policy gives one plan `limit` seconds."""
    path = federation.root / name / "policy.toml"
    policy = load_toml(SitePolicy, path)
    save_toml(policy.model_copy(update={"limits": Limits(seconds=limit)}), path, "less time")
    ticks = iter(range(10_000))
    begin = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
    return dataclasses.replace(federation.site(name), clock=lambda: begin + timedelta(seconds=seconds_a_look * next(ticks)))


@pytest.mark.parametrize("partial", ["keep", "normalise"])
def test_a_site_whose_time_is_nearly_over_sends_what_it_did_and_pays_for_all(make, partial):
    federation = make(training={**TRAINING, "local_steps": 30, "partial": partial})
    planned = federation.plan()
    assert federation.answer("north", planned, running=slow(federation, "north", 1.0, 20)) == "update"
    for name in ("east", "south"):
        federation.answer(name, planned)
    collected = federation.collect(planned)
    said = collected.admitted["north"].answer.update
    assert 1 < said.steps < 10
    assert said.mechanism.steps == 30
    assert collected.admitted["east"].answer.update.steps is None
    assert federation.commit(planned).commit.updates[1].verdict == "used"
    louder = collected.admitted["north"].row.law.variance / collected.admitted["east"].row.law.variance
    assert louder == pytest.approx({"keep": said.steps / 30, "normalise": 30 / said.steps}[partial], rel=0.5)


def test_where_the_plan_refuses_partial_work_a_slow_site_refuses(make):
    federation = make(training={**TRAINING, "local_steps": 30})
    assert federation.answer("north", federation.plan(), running=slow(federation, "north", 1.0, 20)) == "refusal"


def test_steps_that_the_plan_does_not_let_a_site_leave_out_are_not_admitted(make):
    federation = make(training={**TRAINING, "partial": "keep"})
    planned = federation.plan()
    for name in NAMES:
        federation.answer(name, planned)
    federation.lie("north", planned, lambda honest_D: honest_D, steps=3)
    federation.lie("east", planned, lambda honest_D: honest_D, steps=2)
    collected = federation.collect(planned)
    assert set(collected.rejected) == {"north"}
    assert "declares 3 steps" in collected.rejected["north"].reason
