"""Admission lets honest answers through and says precisely what is wrong with the others."""

import numpy as np
import pytest

from fedround import codec
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.errors import ChainError, ContractError, SignatureError, TrustError
from fedround.federation import SiteEntry
from fedround.learning.spec import FedAvg, LocalTraining, Parts
from fedround.learning.tasks import Classify
from fedround.privacy.calibration import LARGEST_NOISE_MULTIPLIER
from fedround.privacy.spec import DpFtrl, DpSgd, GaussianCounts, NoMechanism, NoPrivacy, PersonPrivacy, RecordPrivacy
from fedround.records import Answer, Evaluate, LogHead, Measure, Plan, Reason, Refusal, Train, Update
from fedround.sightings import sign_sighting
from fedround.signing import Identity, canonical, digest, seal
from fedround.statistics import LARGEST, LOUDEST, Histogram, LocalEvaluation, Release, Scores, Statistic
from fedround.terms import Agreed
from fedround.values import Payload
from tests.small_federation import changed
from validation.payloads import intake_of
from validation.updates import read_answer

IDENTITY = Identity.generate()
LUND = SiteEntry(name="lund", key=IDENTITY.key, weight=1.0)
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, dtype=np.float32)}
BODY = codec.encode(TENSORS)
SCORES = Scores(noise_std=20.0, bins=3)
AGE = Histogram(noise_std=10.0, column="age", edges=(20.0, 40.0))
EXACT = Histogram(noise_std=0.0, column="age", edges=(30.0,))
DP = DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.3, steps=10)

LOG = LogHead(number=1, digest="8" * 64)
PLAN = Plan(
    federation="banks", federation_digest="1" * 64, log=LOG, run="spring", round=3, parent="2" * 64, base_model="3" * 64,
    tensors=codec.schema_of(TENSORS), cohort=("lund", "oslo"), quorum=1, deadline_s=60, tool_version="0.1.0", task=Classify(),
    asks=Train(statistics=(SCORES,)), agreed=Agreed(
        recipe="credit", recipe_digest="4" * 64, contract_digest="5" * 64, training=LocalTraining(local_steps=10),
        privacy=RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20), evaluation=LocalEvaluation(bins=3, noise_std=20.0),
        aggregation=Aggregation(rule=WeightedMean()), optimizer=FedAvg(), compression=None, parts=Parts(), personal=None))
EVALUATION_PLAN = changed(PLAN, asks=Evaluate(statistics=(SCORES,)))
MEASURE_PLAN = changed(PLAN, asks=Measure(statistics=(AGE, EXACT)))
BARE_PLAN = changed(PLAN, privacy=NoPrivacy())


def plan_digest(plan: Plan) -> str:
    return digest(canonical(plan))


def told(statistic: Statistic, **changes) -> Release:
    return Release(statistic=statistic, **({"numbers": tuple(range(int(np.prod(statistic.shape)))),
                                            "mechanism": statistic.mechanism} | changes))


def addressed(plan: Plan, **changes) -> dict:
    return {"federation": "banks", "run": "spring", "round": 3, "attempt": 1, "site": "lund", "asked": plan.asks.kind,
            "plan": plan_digest(plan), "log": LOG, "tool_version": "0.1.0"} | changes


def answer(plan: Plan, **changes) -> Answer:
    return Answer(**addressed(plan), **({"charges": 1, "ledger_head": "6" * 64, "releases": tuple(
        told(statistic) for statistic in plan.asks.statistics),
        "sighting": sign_sighting(plan, plan_digest(plan), "lund", IDENTITY)} | changes))


def update(plan: Plan = PLAN, **changes) -> Answer:
    of_answer = {key: changes.pop(key) for key in ("releases", "sighting", "epsilon") if key in changes}
    return answer(plan, update=Update(**({
        "base_model": "3" * 64, "schema_digest": codec.schema_digest(PLAN.tensors), "payload": codec.payload_of(BODY),
        "mechanism": DP} | changes)), **({"epsilon": 1.2} | of_answer))


def refusal(plan: Plan = PLAN) -> Refusal:
    return Refusal(**addressed(plan), reason=Reason.CONTRACT, checks=("no_missing_age",))


def admit(answer, plan: Plan = PLAN):
    return read_answer(seal(answer, IDENTITY), plan, plan_digest(plan), LUND)


LOUDER = told(SCORES, mechanism=GaussianCounts(noise_std=50.0))


@pytest.mark.parametrize(("answer", "plan"), [
    (update(), PLAN),
    (update(releases=()), PLAN),
    (update(BARE_PLAN, mechanism=NoMechanism(), epsilon=None), BARE_PLAN),
    (answer(EVALUATION_PLAN), EVALUATION_PLAN),
    (answer(EVALUATION_PLAN, releases=(LOUDER,)), EVALUATION_PLAN),
    (answer(MEASURE_PLAN), MEASURE_PLAN),
    (refusal(), PLAN),
    (refusal(EVALUATION_PLAN), EVALUATION_PLAN),
    (refusal(MEASURE_PLAN), MEASURE_PLAN),
], ids=["update", "update without scores", "update without privacy", "evaluation", "evaluation with more noise",
        "measurement", "refusal to train", "refusal to evaluate", "refusal to measure"])
def test_an_honest_answer_is_read_back(answer, plan):
    assert admit(answer, plan) == answer


FEWER_BINS = Scores(noise_std=20.0, bins=2)
QUIETER = told(SCORES, mechanism=GaussianCounts(noise_std=19.9))
COUNTED = DP.model_copy(update={"count_noise_std": 10.0})


@pytest.mark.parametrize(("answer", "plan", "message"), [
    (answer(PLAN), PLAN, "answered a plan to train without an update"),
    (update(EVALUATION_PLAN), EVALUATION_PLAN, "answered a plan to evaluate with an update"),
    (update(MEASURE_PLAN), MEASURE_PLAN, "answered a plan to measure with an update"),
    (update(mechanism=NoMechanism()), PLAN, "mechanism dp_sgd, got none"),
    (update(mechanism=DP.model_copy(update={"clip_norm": 2.0})), PLAN, r"clipped to 2\.0, the plan asks for 1\.0"),
    (update(mechanism=DP.model_copy(update={"steps": 9})), PLAN, "took 9 steps, the plan asks for 10"),
    (update(BARE_PLAN), BARE_PLAN, "no noise, got dp_sgd"),
    (update(mechanism=COUNTED, within_clip=0.5), PLAN, r"counted gradients with noise 10\.0, the plan asks for None"),
    (update(within_clip=0.5), PLAN, "told where the plan has them counted, and only there"),
    (update(payload=Payload(sha256="0" * 64, size_bytes=len(BODY) + 4, chunks=("0" * 64,))), PLAN, f"{len(BODY) + 4} bytes"),
    (update(payload=Payload(sha256="0" * 64, size_bytes=2 ** 52, chunks=())), PLAN, f"{2 ** 52} bytes"),
    (update(payload=codec.payload_of(BODY).model_copy(update={"chunks": ()})), PLAN, "digests of 0 chunks, expected 1"),
    (update(schema_digest="0" * 64), PLAN, "its schema is another"),
    (update(releases=(told(FEWER_BINS),)), PLAN, "a statistic that the plan does not ask for"),
    (update(releases=(told(AGE),)), PLAN, "a statistic that the plan does not ask for"),
    (update(releases=(told(SCORES), told(SCORES))), PLAN, "one twice"),
    (update(releases=(QUIETER,)), PLAN, r"noise 19\.9, the plan asks for at least 20\.0"),
    (update(releases=(told(SCORES, mechanism=NoMechanism()),)), PLAN, "mechanism none, the plan asks for gaussian_counts"),
    (answer(EVALUATION_PLAN, releases=()), EVALUATION_PLAN, "released 0 statistics, the plan asks for 1 and needs all"),
    (answer(EVALUATION_PLAN, releases=(told(FEWER_BINS),)), EVALUATION_PLAN, "a statistic that the plan does not ask for"),
    (answer(EVALUATION_PLAN, releases=(QUIETER,)), EVALUATION_PLAN, r"noise 19\.9"),
    (answer(MEASURE_PLAN, releases=(told(AGE),)), MEASURE_PLAN, "released 1 statistics, the plan asks for 2"),
    (answer(MEASURE_PLAN, releases=(told(EXACT), told(AGE))), MEASURE_PLAN, "out of order"),
    (answer(MEASURE_PLAN, releases=(told(AGE), told(EXACT, mechanism=GaussianCounts(noise_std=5.0)))), MEASURE_PLAN,
     "statistic 2 of its answer was released with the mechanism gaussian_counts, the plan asks for none"),
    (answer(MEASURE_PLAN, releases=(told(AGE, numbers=(5.0, 5.0, -121.0, 5.0)), told(EXACT))), MEASURE_PLAN,
     "numbers that no records make"),
    (answer(MEASURE_PLAN, releases=(told(AGE), told(EXACT, numbers=(1.0, 2.0, -1.0)))), MEASURE_PLAN,
     "numbers that no records make"),
], ids=["no update", "update for evaluation", "update for measurement", "no mechanism", "clip norm", "steps", "noise unasked",
        "count unasked", "share unasked", "payload size", "huge payload", "chunks", "schema", "bins of an update",
        "statistic unasked", "twice", "too little noise with an update", "no noise with an update", "no scores", "bins",
        "too little noise", "one of two", "other order", "noise where none was asked for", "counts below 0",
        "exact counts below 0"])
def test_what_the_plan_did_not_ask_for_is_refused(answer, plan, message):
    with pytest.raises(ContractError, match=message) as error:
        admit(answer, plan)
    assert "site 'lund' round 3" in str(error.value)


WHOLE = DP.model_copy(update={"sampling_rate": 1.0})
FTRL_PLAN = changed(PLAN, privacy=RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20, mechanism="dp_ftrl"))
FTRL = DpFtrl(noise_multiplier=4.4, clip_norm=1.0, batch_size=128, steps=10)
PARTIAL_PLAN = changed(PLAN, privacy=NoPrivacy(), training=LocalTraining(local_steps=10, partial="keep"))
BARE = {"mechanism": NoMechanism(), "epsilon": None}
FAINT_PLAN = changed(PLAN, privacy=RecordPrivacy(epsilon=0.05, delta_dp=1e-5, rounds=20))
LOUD = WHOLE.model_copy(update={"noise_multiplier": LARGEST_NOISE_MULTIPLIER})
RARE = DP.model_copy(update={"noise_multiplier": 0.3, "sampling_rate": 128 / LARGEST})
PERSON_PLAN = changed(PLAN, privacy=PersonPrivacy(
    epsilon=5.0, delta_dp=1e-5, rounds=20, person="customer", rows_per_person=3))
OF_PERSONS = DP.model_copy(update={"rows_per_person": 3})


def of_persons(plan: Plan, mechanism: DpSgd, rows: int | None) -> dict:
    """An update that says of its counts that so many rows of a person are in them."""
    counted = GaussianCounts(noise_std=20.0, rows_per_person=rows)
    return {"mechanism": mechanism, "releases": tuple(told(one, mechanism=counted) for one in plan.asks.statistics)}


@pytest.mark.parametrize(("plan", "within", "beyond", "message"), [
    (PLAN, {}, {"mechanism": DP.model_copy(update={"steps": 11})}, "took 11 steps, the plan asks for 10"),
    (PLAN, {}, {"schema_digest": "f" * 64}, "its schema is another"),
    (FTRL_PLAN, {"mechanism": FTRL}, {"mechanism": FTRL.model_copy(update={"batch_size": 129})}, "batches of 129 rows"),
    (FTRL_PLAN, {"mechanism": FTRL.model_copy(update={"batch_size": 7})},
     {"mechanism": FTRL.model_copy(update={"batch_size": 320})}, "batches of 320 rows"),
    (PLAN, {"mechanism": WHOLE, "rows": 128}, {"mechanism": WHOLE, "rows": 129}, "declares 129 rows"),
    (PLAN, {"mechanism": WHOLE, "rows": 7}, {"mechanism": DP, "rows": 7}, "declares 7 rows"),
    (PARTIAL_PLAN, {**BARE, "steps": 9}, {**BARE, "steps": 10}, "for fewer only if time is up"),
    (PARTIAL_PLAN, {**BARE, "steps": 1}, {**BARE, "steps": 11}, "declares 11 steps, the plan asks for 10"),
    (BARE_PLAN, BARE, {**BARE, "steps": 9}, "declares 9 steps, the plan asks for 10 and no fewer"),
    (FAINT_PLAN, {"mechanism": LOUD, "rows": 100},
     {"mechanism": LOUD.model_copy(update={"noise_multiplier": 1000.1}), "rows": 100}, "no promise calls for more than 1000"),
    (FTRL_PLAN, {"mechanism": FTRL.model_copy(update={"rows": int(LARGEST)})},
     {"mechanism": FTRL.model_copy(update={"rows": int(LARGEST) + 1})}, "in their order, as if of more"),
    (PLAN, {"mechanism": RARE}, {"mechanism": RARE.model_copy(update={"sampling_rate": 127 / LARGEST})},
     "draws a row with chance 1.27e-08, as if of more"),
    (PERSON_PLAN, of_persons(PERSON_PLAN, OF_PERSONS, 3), of_persons(PERSON_PLAN, DP, 3), "at most None rows of a person"),
    (PERSON_PLAN, of_persons(PERSON_PLAN, OF_PERSONS, 3), of_persons(PERSON_PLAN, OF_PERSONS, 4),
     "statistic 1 of its answer: at most 4 rows of a person, the plan asks for 3"),
    (PLAN, {}, of_persons(PLAN, OF_PERSONS, None), "at most 3 rows of a person, the plan asks for None"),
    (PLAN, {"releases": (told(SCORES, mechanism=GaussianCounts(noise_std=LOUDEST)),)},
     {"releases": (told(SCORES, mechanism=GaussianCounts(noise_std=LOUDEST + 1)),)}, "noise beyond 10000"),
    (PLAN, {"releases": (told(SCORES, numbers=(LARGEST,) * 6),)}, {"releases": (told(SCORES, numbers=(2 * LARGEST,) * 6),)},
     r"numbers beyond 1e\+10"),
    (BARE_PLAN, BARE, {**BARE, "epsilon": 0.0}, "says what it spent"),
], ids=["more steps", "schema", "larger batches", "many times larger", "as many rows as a batch", "rows of a part",
        "all steps", "more steps than all", "fewer steps", "noise", "rows in order", "sampling rate",
        "persons not told apart", "more rows of a person", "persons told apart",
        "noise of counts", "counts", "epsilon without privacy"])
def test_what_is_declared_has_a_bound_and_all_within_it_is_admitted(plan, within, beyond, message):
    admit(update(plan, **within), plan)
    with pytest.raises(ContractError, match=message):
        admit(update(plan, **beyond), plan)


PLANS = {update: PLAN, answer: EVALUATION_PLAN, refusal: PLAN}


@pytest.mark.parametrize("make", PLANS, ids=["update", "evaluation", "refusal"])
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"site": "oslo"}, TrustError, "in the name of 'oslo'"),
    ({"federation": "insurers"}, ChainError, "for federation 'insurers', expected 'banks'"),
    ({"run": "autumn"}, ChainError, "for run 'autumn', expected 'spring'"),
    ({"round": 2}, ChainError, "for round '2', expected '3'"),
    ({"attempt": 2}, ChainError, "for attempt '2', expected '1'"),
    ({"asked": "measure"}, ChainError, "is to a plan to measure, expected one to"),
    ({"plan": "9" * 64}, ChainError, "another plan"),
    ({"log": LogHead(number=2, digest="8" * 64)}, ChainError, "another head of the federation log"),
], ids=["site", "federation", "run", "round", "attempt", "question", "plan", "log"])
def test_every_kind_of_answer_must_be_to_this_plan(make, change, error, message):
    with pytest.raises(error, match=message):
        admit(make(PLANS[make]).model_copy(update=change), PLANS[make])


@pytest.mark.parametrize("plan", [PLAN, EVALUATION_PLAN, MEASURE_PLAN], ids=lambda plan: plan.asks.kind)
def test_every_answer_carries_the_sites_word_that_it_was_shown_the_plan(plan: Plan):
    make = update if plan is PLAN else answer
    with pytest.raises(SignatureError, match="its sighting of the plan is not signed by it"):
        admit(make(plan, sighting=sign_sighting(plan, "9" * 64, "lund", IDENTITY)), plan)


def test_a_site_that_was_not_invited_is_not_heard():
    plan = changed(PLAN, cohort=("oslo",))
    with pytest.raises(TrustError, match="did not invite"):
        admit(update(plan), plan)


def test_an_honest_payload_is_found_where_its_data_begin():
    intake = intake_of(update().update, PLAN, "lund")
    intake.take(BODY)
    intake.done()
    assert np.array_equal(np.frombuffer(BODY, dtype="<f4", offset=intake.offset), codec.flatten(TENSORS))
