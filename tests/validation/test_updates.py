"""Admission lets honest answers through and says precisely what is wrong with the others."""

import numpy as np
import pytest

from fedround import codec
from fedround.aggregation.spec import Aggregation, WeightedMean
from fedround.agreement import SiteEntry
from fedround.errors import ChainError, ContractError, TrustError
from fedround.learning.spec import FedAvg, LocalTraining
from fedround.privacy.spec import DpSgd, NoMechanism, NoPrivacy, RecordPrivacy
from fedround.records import EvaluationAnswer, LogHead, Payload, Plan, Purpose, Reason, Refusal, ScoreCounts, Update
from fedround.sightings import sign_sighting
from fedround.signing import Identity, canonical, digest, seal
from fedround.statistics import LocalEvaluation
from validation.payloads import intake_of
from validation.updates import read_answer

IDENTITY = Identity.generate()
LUND = SiteEntry(name="lund", key=IDENTITY.key, weight=1.0)
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, dtype=np.float32)}
BODY = codec.encode(TENSORS)
COUNTS = ScoreCounts(positives=(1.5, -2.0, 0.0), negatives=(3.0, 4.0, 5.0), noise_std=20.0)
DP = DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.3, steps=10)

LOG = LogHead(number=1, digest="8" * 64)
PLAN = Plan(
    federation="banks", federation_digest="1" * 64, log=LOG, run="spring", round=3, purpose="train", parent="2" * 64,
    base_model="3" * 64, tensors=codec.schema_of(TENSORS), recipe="credit", recipe_digest="4" * 64,
    contract_digest="5" * 64, cohort=("lund", "oslo"), quorum=1, deadline_s=60, tool_version="0.1.0",
    training=LocalTraining(local_steps=10), privacy=RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20),
    evaluation=LocalEvaluation(bins=3, noise_std=20.0), aggregation=Aggregation(rule=WeightedMean()), optimizer=FedAvg())
EVALUATION_PLAN = PLAN.model_copy(update={"purpose": "evaluate"})
BARE_PLAN = PLAN.model_copy(update={"privacy": NoPrivacy()})


def plan_digest(plan: Plan) -> str:
    return digest(canonical(plan))


def addressed(plan: Plan, **changes) -> dict:
    return {"federation": "banks", "run": "spring", "round": 3, "attempt": 1, "site": "lund",
            "plan": plan_digest(plan), "log": LOG, "tool_version": "0.1.0"} | changes


def update(plan: Plan = PLAN, **changes) -> Update:
    return Update(**addressed(plan), **({
        "base_model": "3" * 64, "schema_digest": codec.schema_digest(PLAN.tensors), "payload": codec.payload_of(BODY),
        "mechanism": DP, "evaluation": COUNTS, "epsilon": 1.2, "charges": 1, "ledger_head": "6" * 64,
        "sighting": sign_sighting(plan, plan_digest(plan), "lund", IDENTITY)} | changes))


def evaluation(plan: Plan = EVALUATION_PLAN, **changes) -> EvaluationAnswer:
    return EvaluationAnswer(**addressed(plan), **({"evaluation": COUNTS, "charges": 1, "ledger_head": "6" * 64} | changes))


def refusal(plan: Plan = PLAN) -> Refusal:
    return Refusal(**addressed(plan), reason=Reason.CONTRACT, checks=("no_missing_age",))


def admit(answer, plan: Plan = PLAN):
    return read_answer(seal(answer.kind, answer, IDENTITY), plan, plan_digest(plan), LUND)


@pytest.mark.parametrize(("answer", "plan"), [
    (update(), PLAN),
    (update(evaluation=None), PLAN),
    (update(BARE_PLAN, mechanism=NoMechanism(), epsilon=None), BARE_PLAN),
    (evaluation(), EVALUATION_PLAN),
    (evaluation(evaluation=COUNTS.model_copy(update={"noise_std": 50.0})), EVALUATION_PLAN),
    (refusal(), PLAN),
    (refusal(EVALUATION_PLAN), EVALUATION_PLAN),
], ids=["update", "update without evaluation", "update without privacy", "evaluation", "evaluation with more noise",
        "refusal to train", "refusal to evaluate"])
def test_an_honest_answer_is_read_back(answer, plan):
    assert admit(answer, plan) == answer


FEWER_BINS = COUNTS.model_copy(update={"positives": (1.0,), "negatives": (1.0,)})


@pytest.mark.parametrize(("answer", "plan", "message"), [
    (evaluation(PLAN), PLAN, "answered a plan to train with kind 'evaluation'"),
    (update(EVALUATION_PLAN), EVALUATION_PLAN, "answered a plan to evaluate with kind 'update'"),
    (update(mechanism=NoMechanism()), PLAN, "mechanism dp_sgd, got none"),
    (update(mechanism=DP.model_copy(update={"clip_norm": 2.0})), PLAN, r"clipped to 2\.0, the plan asks for 1\.0"),
    (update(mechanism=DP.model_copy(update={"steps": 9})), PLAN, "took 9 steps, the plan asks for 10"),
    (update(BARE_PLAN), BARE_PLAN, "no noise, got dp_sgd"),
    (update(evaluation=FEWER_BINS), PLAN, "in 1 bins, the plan asks for 3"),
    (evaluation(evaluation=FEWER_BINS), EVALUATION_PLAN, "in 1 bins, the plan asks for 3"),
    (evaluation(evaluation=COUNTS.model_copy(update={"noise_std": 19.9})), EVALUATION_PLAN, r"noise 19\.9"),
    (update(payload=Payload(sha256="0" * 64, size_bytes=len(BODY) + 4, chunks=("0" * 64,))), PLAN, f"{len(BODY) + 4} bytes"),
    (update(payload=Payload(sha256="0" * 64, size_bytes=2 ** 52, chunks=())), PLAN, f"{2 ** 52} bytes"),
    (update(payload=codec.payload_of(BODY).model_copy(update={"chunks": ()})), PLAN, "digests of 0 chunks, expected 1"),
    (update(schema_digest="0" * 64), PLAN, "its schema is another"),
], ids=["evaluation for update", "update for evaluation", "no mechanism", "clip norm", "steps", "noise unasked",
        "bins of an update", "bins", "too little noise", "payload size", "huge payload", "chunks", "schema"])
def test_what_the_plan_did_not_ask_for_is_refused(answer, plan, message):
    with pytest.raises(ContractError, match=message) as error:
        admit(answer, plan)
    assert "site 'lund' round 3" in str(error.value)


@pytest.mark.parametrize("make", [update, evaluation, refusal])
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"site": "oslo"}, TrustError, "in the name of 'oslo'"),
    ({"federation": "insurers"}, ChainError, "for federation 'insurers', expected 'banks'"),
    ({"run": "autumn"}, ChainError, "for run 'autumn', expected 'spring'"),
    ({"round": 2}, ChainError, "for round '2', expected '3'"),
    ({"attempt": 2}, ChainError, "for attempt '2', expected '1'"),
    ({"plan": "9" * 64}, ChainError, "another plan"),
    ({"log": LogHead(number=2, digest="8" * 64)}, ChainError, "another head of the federation log"),
], ids=["site", "federation", "run", "round", "attempt", "plan", "log"])
def test_every_kind_of_answer_must_be_to_this_plan(make, change, error, message):
    plan = EVALUATION_PLAN if make is evaluation else PLAN
    with pytest.raises(error, match=message):
        admit(make(plan).model_copy(update=change), plan)


def test_a_site_that_was_not_invited_is_not_heard():
    plan = PLAN.model_copy(update={"cohort": ("oslo",)})
    with pytest.raises(TrustError, match="did not invite"):
        admit(update(plan), plan)


def test_an_honest_payload_is_found_where_its_data_begin():
    intake = intake_of(update(), PLAN)
    intake.take(BODY)
    intake.done()
    assert np.array_equal(np.frombuffer(BODY, dtype="<f4", offset=intake.offset), codec.flatten(TENSORS))
