"""A part of the model that stays at every site, through the whole of it: file, plan, sites, aggregate, commit, proof."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedround import codec, layout
from fedround.errors import ContractError, SetupError, TrustError
from fedround.learning.evaluate import scored_rows, scores
from fedround.learning.guard import UNGUARDED
from fedround.learning.learn import learn
from fedround.learning.lesson import Lesson
from fedround.learning.parts import Rest
from fedround.learning.recipe import schemas
from fedround.learning.train import train
from fedround.privacy.spec import RecordPrivacy
from fedround.rounds import site as work
from fedround.rounds.campaign import mechanism_for
from site_workers import inputs
from site_workers import kept as site_kept
from site_workers import round as site_round
from site_workers.draws import SiteDraws
from site_workers.rows import read_site_rows
from tasks.ask import plan_question
from tasks.requests import RoundRequest
from tests import small_federation
from tests.small_federation import NAMES, RECIPE, SmallFederation

HEAD = {"private": ["2.*"]}
OPEN = {"privacy": {"unit": "none"}, "units": ("record", "none"), "optimizer": {"name": "fedavg"}}
NORMED = RECIPE.replace("nn.Tanh(), ", "nn.BatchNorm1d(4), nn.Tanh(), ")


@pytest.fixture
def make(tmp_path, rows_are_judged_here):
    return lambda **changes: small_federation.make(tmp_path, **{"parts": HEAD, **changes})


def kept(federation: SmallFederation, site: str, number: int) -> bytes:
    """A site's private part after a round."""
    return (federation.root / site / "kept" / "spring" / "private" / f"{number:05d}-01.safetensors").read_bytes()


def in_the_store(federation: SmallFederation) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (federation.root / "store").rglob("*") if path.is_file()}


def numbers_of(body: bytes) -> np.ndarray:
    """The data section of a tensor file."""
    start = 8 + int.from_bytes(body[:8], "little")
    return np.frombuffer(body, dtype="<f4", offset=start)


def test_a_private_head_never_leaves_and_goes_on_from_round_to_round(make):
    """Every byte that lies in the store is searched for every number of every head after every round: raw and as text."""
    federation = make()
    heads = []
    for number in (1, 2, 3):
        commit = federation.round()
        heads += [kept(federation, name, number) for name in NAMES]
        assert len(commit.updates) == 3
    plan = federation.plan().plan
    assert [spec.name for spec in plan.tensors] == ["0.bias", "0.weight"]
    assert len(set(heads)) == 9                                    # every site's, and other ones after every round
    stored = in_the_store(federation)
    assert any(b"0.weight" in body for body in stored.values())
    assert [path.name for path, body in stored.items() if b"2.weight" in body] == [f"{plan.rest}.safetensors"]
    for number in itertools.chain.from_iterable(numbers_of(head) for head in heads):
        assert not any(number.tobytes() in body or repr(float(number)).encode() in body for body in stored.values())
    assert federation.recomputed() == 4


def test_the_sites_own_evaluation_is_of_the_model_with_its_own_head(make, monkeypatch):
    federation = make()
    federation.round()
    planned, seen = federation.plan(), []
    monkeypatch.setattr(work, "scored_rows", lambda recipe, tensors, rows: seen.append(tensors) or scored_rows(
        recipe, tensors, rows))
    federation.answer("north", planned)
    assert np.array_equal(np.concatenate([seen[0][name].ravel() for name in ("2.bias", "2.weight")]),
                          numbers_of(kept(federation, "north", 1)))


@pytest.mark.parametrize("where", ["before it is kept", "before the answer"])
def test_a_site_that_is_killed_ends_with_the_same_update_and_the_same_head(make, tmp_path, where):
    federation = make()
    federation.round()
    planned = federation.plan()
    undisturbed = federation.undisturbed("north", planned, tmp_path / "undisturbed")
    place = (site_kept, "write") if where == "before it is kept" else (site_round.release, "release")
    federation.killed("north", planned, *place)
    federation.answer("north", planned)
    assert kept(federation, "north", 2) == kept(undisturbed, "north", 2)
    delta = layout.delta("north", "spring", 2, 1)
    assert (federation.root / "store" / delta).read_bytes() == (undisturbed.root / "store" / delta).read_bytes()


def test_a_head_that_goes_astray_stops_no_answer_and_leaves_the_last_one_in_place(make, tmp_path, monkeypatch, caplog):
    """Where no noise bounds what a record does to it: whether an answer comes must not tell how it went."""
    federation = make(**OPEN)
    federation.round()
    planned = federation.plan()
    sound = federation.undisturbed("north", planned, tmp_path / "sound")
    with monkeypatch.context() as patch:
        patch.setattr(work, "learn", lambda *given, **more: replace(trained := learn(*given, **more), private={
            name: np.full_like(array, np.inf) for name, array in trained.private.items()}))
        assert federation.answer("north", planned) == "update"
    delta = layout.delta("north", "spring", 2, 1)
    assert (federation.root / "store" / delta).read_bytes() == (sound.root / "store" / delta).read_bytes()
    assert kept(federation, "north", 1) == kept(sound, "north", 1)
    assert not (federation.root / "north" / "kept" / "spring" / "private" / "00002-01.safetensors").exists()
    assert "private part of the model is not finite and not kept" in caplog.text


def test_another_head_draws_other_noise_under_the_same_plan(make):
    """A head that was lost and began anew must not meet the noise of the first try: the difference would have none."""
    federation = make()
    federation.round()
    planned, site = federation.plan(), federation.site("north")
    order, rows, terms = site_round.authorise(site, "spring", 2, 1, "train"), read_site_rows(site), planned.plan.agreed
    given, draws = inputs.read(site, order, rows, lambda: False), SiteDraws(site.noise_secret, order.digest, rows.digest)
    rest, mechanism = given.rest, mechanism_for(terms.privacy, terms.training, terms.evaluation, 300)
    other = Rest({name: np.nextafter(array, np.float32(np.inf)) for name, array in rest.private.items()}, rest.frozen)
    drawn = []

    def draw(found):
        noise = draws.training(None, found.private)
        drawn.append(codec.flatten(train(site.recipe, Lesson(given.base, given.train, found), terms.training, mechanism,
                                         noise, UNGUARDED).delta))

    for found in (rest, rest, other):
        draw(found)
    assert np.array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3       # under the same noise the last bits alone would differ


def test_attack_a_head_that_was_trained_without_noise_is_not_where_a_promise_for_records_begins(make):
    """Two sites that differ in one record: after a round of the unit `site` their heads differ, and with them every row's
    gradient. A round for records that went on from there moved by 3.28 clip norms, and was charged for one."""
    federation = make(privacy={"unit": "site", "epsilon": 5.0, "delta_dp": 1e-5, "clip_norm": 0.5, "rounds": 5},
                      units=("site",), max_epsilon=40.0, max_epsilon_site=5.0)
    federation.round()
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace('unit = "site"', 'unit = "record"').replace("epsilon = 5.0", "epsilon = 20.0"))
    policy = federation.root / "north" / "policy.toml"
    policy.write_text(policy.read_text().replace('["site"]', '["record"]').replace("max_epsilon_site = 5.0", ""))
    planned, site = federation.plan(), federation.site("north")
    assert isinstance(planned.plan.agreed.privacy, RecordPrivacy)
    given = inputs.read(site, site_round.authorise(site, "spring", 2, 1, "train"), read_site_rows(site), lambda: False)
    assert kept(federation, "north", 1) != codec.encode(given.begun.private)
    assert codec.encode(given.rest.private) == codec.encode(given.begun.private)
    assert federation.answer("north", planned) == "update"
    again = site_kept.newest(site.safe, "spring", 3, "private", schemas(site.recipe, planned.plan.agreed.parts).private,
                             "dp_sgd")
    assert again is not None
    assert codec.encode(again) == kept(federation, "north", 2), "and what records protect goes on from round to round"


def test_a_head_that_was_lost_begins_anew_and_a_damaged_one_is_said(make):
    federation = make()
    federation.round()
    planned = federation.plan()
    (federation.root / "north" / "kept" / "spring" / "private" / "00001-01.safetensors").unlink()
    assert federation.answer("north", planned) == "update"
    (federation.root / "east" / "kept" / "spring" / "private" / "00001-01.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(SetupError, match="what it keeps begins anew"):
        federation.answer("east", planned)


def test_private_normalisation_lives_at_the_site_and_its_statistics_never_leave(make):
    """FedBN, where the federation agreed on no privacy for records; the proof holds as ever."""
    federation = make(recipe=NORMED, parts={"private": ["1.*"]}, **OPEN)
    federation.round()
    federation.round()
    assert b"1.running_var" in kept(federation, "north", 2)
    plan = federation.plan().plan
    assert not any(spec.name.startswith("1.") for spec in plan.tensors)
    stored = in_the_store(federation).values()
    for number in numbers_of(kept(federation, "north", 2)):
        assert not any(number.tobytes() in body for body in stored)
    assert federation.recomputed() == 3


@pytest.mark.parametrize(("parts", "says"), [
    ({"private": ["1.*"]}, "'1' is BatchNorm1d"), ({"private": ["head.*"]}, "no parameter that fits the pattern 'head")])
def test_parts_that_the_model_or_the_promise_does_not_allow_make_no_federation(make, tmp_path, parts, says):
    """Under record privacy: batch statistics would mix the records."""
    with pytest.raises(ContractError, match=says):
        make(recipe=NORMED, parts=parts)
    assert not (tmp_path / "coordinator").exists()


def test_batch_statistics_are_refused_before_a_plan_if_the_privacy_is_changed_to_one_of_records(make):
    federation = make(recipe=NORMED, parts={"private": ["1.*"]}, **OPEN)
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace('unit = "none"', 'unit = "record"\nepsilon = 8.0\ndelta_dp = 1e-5\nrounds = 3'))
    with pytest.raises(ContractError, match="'1' is BatchNorm1d"):
        federation.plan()


TRAINING = {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5}


@pytest.mark.parametrize("changes", [
    {"training": {**TRAINING, "algorithm": {"name": "scaffold"}}, "compression": {"name": "quantised", "bits": 8}},
    {"compression": {"name": "top_k", "share": 0.5}, "aggregation": {"rule": {"name": "trimmed_mean", "f": 1}}, "quorum": 3},
    {"privacy": {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 2},
     "units": ("site",), "max_epsilon_site": 8.0, "max_epsilon": 20.0},
    {"privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "rounds": 2, "mechanism": "dp_ftrl"}},
], ids=["scaffold, quantised", "top-k, trimmed mean", "unit site", "dp-ftrl"])
def test_a_private_part_goes_with_the_other_agreements(make, changes):
    """Two rounds, proven byte for byte, and both the body and the heads have moved."""
    federation = make(**changes)
    first, second = federation.round(), federation.round()
    assert len({first.model, second.model}) == 2
    assert kept(federation, "north", 1) != kept(federation, "north", 2)
    assert federation.recomputed() == 3


def test_an_evaluation_of_a_round_uses_the_head_as_that_round_left_it(make, monkeypatch):
    federation, seen = make(), []
    federation.round()
    federation.round()
    planned = plan_question(federation.coordinator, RoundRequest(run="spring"))
    monkeypatch.setattr(work, "scored_rows", lambda recipe, tensors, rows: seen.append(tensors) or scored_rows(
        recipe, tensors, rows))
    assert federation.answer("north", planned) == "answer"
    assert np.array_equal(seen[0]["2.weight"].ravel(), numbers_of(kept(federation, "north", 2))[1:])


def test_what_travels_cannot_change_within_a_run(make):
    federation = make()
    federation.round()
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace('"2.*"', '"2.bias"'))
    with pytest.raises(ContractError, match="cannot change within a run"):
        federation.plan()
    assert federation.plan(run="summer").plan.agreed.parts.private == ("2.bias",)


def test_a_rule_that_needs_an_update_of_the_coordinators_goes_with_no_private_part(make):
    with pytest.raises(ContractError, match="fltrust"):
        make(aggregation={"rule": {"name": "fltrust"}})


def test_a_rest_that_is_not_the_named_one_is_noticed_by_sites_and_by_the_proof(make):
    federation = make()
    planned = federation.plan()
    stored = federation.root / "store" / layout.model(planned.plan.rest)
    honest = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(honest[:-4] + np.float32(7).tobytes())
    with pytest.raises(TrustError, match="not those that the plan names"):
        federation.answer("north", planned)
    stored.write_bytes(honest)
    federation.answer("north", planned)
    stored.write_bytes(honest[:-4] + np.float32(7).tobytes())
    assert federation.answer("north", federation.plan()).startswith("answered before")     # its own copy is good
    with pytest.raises(TrustError, match="rest of the model"):
        federation.recomputed()


def test_sites_that_contradict_each_other_are_all_well_served_by_heads_of_their_own(tmp_path, rows_are_judged_here):
    """What FedPer is for: one site's labels mean the opposite. No one model is right at both; one body with two heads is."""
    worst = {}
    for name, agreed in (("one for all", {"private": []}), ("own heads", HEAD)):
        federation = small_federation.make(
            tmp_path / name, parts=agreed, names=("north", "east"), quorum=2,
            training={"local_steps": 20, "batch_size": 32, "learning_rate": 0.5}, **OPEN)
        for (seed, part), member in itertools.product(enumerate(("train", "validation")), federation.names):
            frame = small_federation.rows(300, seed)
            above = (frame["x1"] > frame["x2"]).astype(int)
            frame.assign(y=above if member == "north" else 1 - above).to_parquet(
                tmp_path / name / "data" / member / f"{part}.parquet")
        for _ in range(4):
            federation.round()
        planned, accuracy = federation.plan(), []
        for member in federation.names:
            site = federation.site(member)
            order, rows = site_round.authorise(site, "spring", 5, 1, planned.plan.asks.kind), read_site_rows(site)
            given = inputs.read(site, order, rows, lambda: False)
            found = scores(site.recipe, {**given.base, **given.rest.whole}, rows.validation)
            accuracy.append(float(((found["score"] > 0.5) == found["truth"]).mean()))
        worst[name] = min(accuracy)
    assert worst["one for all"] < 0.65 < 0.85 < worst["own heads"], worst


def test_schemas_are_the_recipes(make):
    federation = make()
    found = schemas(federation.site("north").recipe, federation.coordinator.federation.parts)
    assert found.shared == federation.plan().plan.tensors
    assert json.loads(json.dumps([spec.name for spec in found.rest])) == ["2.bias", "2.weight"]
