"""A plan is made once, and made anew only when something else would be asked."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fedround.errors import ContractError, SignatureError
from fedround.learning.tasks import Classify
from fedround.signing import Identity, seal
from fedround.statistics import Scores
from tasks.ask import plan_question
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest, RoundRequest, TrainingRequest
from tests.small_federation import NAMES, SmallFederation


def edit_federation(federation: SmallFederation, old: str, new: str) -> None:
    path = federation.root / "coordinator" / "federation.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_coordinator_that_starts_again_finds_its_plan(federation: SmallFederation):
    assert federation.plan().digest == federation.plan().digest


def test_a_plan_asks_what_the_federation_file_says_unless_the_request_says_more(federation: SmallFederation):
    plan = federation.plan().plan
    assert (plan.quorum, plan.deadline_s, plan.attempt) == (2, 60, 1)
    changed = federation.plan(quorum=3, deadline_s=7).plan
    assert (changed.quorum, changed.deadline_s, changed.attempt) == (3, 7, 2)


def test_a_request_that_was_made_before_gets_the_plan_that_it_got_before(federation: SmallFederation):
    first, other = federation.plan(), federation.plan(quorum=3)
    assert first.digest != other.digest
    assert federation.plan().digest == first.digest
    assert federation.plan(quorum=3).digest == other.digest


def test_a_changed_federation_file_is_a_new_attempt_that_sites_accept(federation: SmallFederation):
    """And answers to the old attempt do not count for the new one."""
    planned = federation.plan()
    federation.answer("north", planned)
    edit_federation(federation, "deadline_s = 60", "deadline_s = 61")
    again = federation.plan()
    assert (again.plan.attempt, again.plan.round) == (2, 1)
    assert federation.collect(again).missing == ("east", "north", "south")
    assert [federation.answer(name, again) for name in NAMES] == ["update"] * 3
    commit = federation.commit(again).commit
    assert commit.plan == again.digest
    assert len(commit.updates) == 3


def test_a_request_below_what_the_rule_tolerates_is_refused_before_any_site_is_asked(tmp_path):
    """Trimmed mean with f = 1 needs three updates: a form that says "quorum 1" must not talk a round out of that."""
    from tests import small_federation

    federation = small_federation.make(tmp_path, quorum=3, aggregation={"rule": {"name": "trimmed_mean", "f": 1}})
    with pytest.raises(ContractError, match="trimmed_mean"):
        federation.plan(quorum=1)
    assert not list(federation.coordinator.store.list("runs/spring/rounds/00001/"))


def test_a_quorum_above_the_number_of_members_is_refused_before_any_site_is_asked(federation: SmallFederation):
    with pytest.raises(ContractError, match="quorum 4 can never be met by 3 sites"):
        federation.plan(quorum=4)
    assert not list(federation.coordinator.store.list("runs/spring/rounds/00001/"))


def test_a_plan_in_our_place_by_another_key_stops_us(federation: SmallFederation):
    planned = federation.plan()
    path = federation.root / "store/runs/spring/rounds/00001/plan-01.json"
    path.unlink()
    path.write_bytes(seal(planned.plan, Identity.generate()))
    with pytest.raises(SignatureError, match="signed by another key"):
        federation.plan()


def test_a_plan_to_train_asks_what_the_terms_give(federation: SmallFederation):
    plan = federation.plan().plan
    assert plan.agreed == federation.coordinator.federation.agreed()
    assert (plan.asks.kind, plan.asks.state) == ("train", ())
    (scores,) = plan.asks.statistics
    assert (scores.bins, scores.noise_std, len(scores.edges)) == (10, 5.0, 9)


@pytest.mark.parametrize("ask", [plan_round, plan_question], ids=["a round", "an evaluation"])
def test_another_processors_last_bit_is_no_new_question(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch, ask):
    """Edges come from a model's scores. A new attempt would charge every site twice, for a bit that nobody asked for."""
    federation.round()
    standing = ask(federation.coordinator, NextRoundRequest(run="spring"))
    real = Classify.statistic

    def statistic(task: Classify, *arguments: object) -> Scores:
        asked = real(task, *arguments)
        return asked.model_copy(update={"edges": tuple(float(np.nextafter(edge, 1)) for edge in asked.edges)})

    monkeypatch.setattr(Classify, "statistic", statistic)
    again = ask(federation.coordinator, NextRoundRequest(run="spring"))
    assert (again.plan, again.digest) == (standing.plan, standing.digest)
    assert standing.plan.asks.statistics[0].edges != ()


def test_another_noise_is_another_question(federation: SmallFederation):
    first = federation.plan()
    edit_federation(federation, "noise_std = 5.0", "noise_std = 6.0")
    assert federation.plan().plan.attempt == first.plan.attempt + 1


def test_two_runs_have_two_first_models_and_one_run_has_one(federation: SmallFederation):
    assert federation.plan("spring").plan.base_model != federation.plan("autumn").plan.base_model


def test_there_is_nothing_to_evaluate_before_the_first_round(federation: SmallFederation):
    federation.plan()
    with pytest.raises(ContractError, match="no committed round to evaluate"):
        plan_question(federation.coordinator, RoundRequest(run="spring"))


def test_an_evaluation_asks_about_the_last_model_and_commits_nothing(federation: SmallFederation):
    commit = federation.round()
    planned = plan_question(federation.coordinator, RoundRequest(run="spring"))
    assert (planned.plan.asks.kind, planned.plan.round, planned.plan.base_model) == ("evaluate", 1, commit.model)
    assert [federation.answer(name, planned) for name in NAMES] == ["answer"] * 3
    assert federation.plan().plan.round == 2


@pytest.mark.parametrize("request_data", [
    {}, {"run": "Spring"}, {"run": "spring", "quorum": 0}, {"run": "spring", "deadline_s": 0},
    {"run": "spring", "aggregation": "median"}, {"run": "../spring"}, {"run": "spring", "quorum": 1001}])
def test_a_request_is_bounded(request_data: dict):
    with pytest.raises(ValidationError):
        RoundRequest.model_validate(request_data)
    with pytest.raises(ValidationError):
        TrainingRequest.model_validate({"rounds": 2, **request_data})


def test_every_field_of_the_form_says_what_it_is():
    for name, field in TrainingRequest.model_json_schema()["properties"].items():
        assert field.get("title"), name
        assert len(field.get("description", "")) > 20, name


def test_a_hundredth_attempt_says_what_to_do(federation: SmallFederation, monkeypatch: pytest.MonkeyPatch):
    import tasks.plan

    monkeypatch.setattr(tasks.plan, "MAX_ATTEMPTS", 2)
    federation.plan()
    federation.plan(deadline_s=61)
    with pytest.raises(ContractError, match="begin a new run"):
        plan_round(federation.coordinator, NextRoundRequest(run="spring", deadline_s=62))
