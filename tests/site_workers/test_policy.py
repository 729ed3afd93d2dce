"""The policy file: its text says what the value says, hours are wall-clock hours, and every key can say no."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError
from fedround.hours import WEEK, Hours
from fedround.privacy.spec import NoPrivacy, RecordPrivacy, SitePrivacy
from fedround.records import Evaluate, Measure, Plan, Question, Reason
from fedround.statistics import WORDS, GroupCounts, Histogram, Levels, LocalEvaluation, Scores
from fedround.values import Purpose, parse
from infra.settings import load_toml
from site_workers.authorise import authorise
from site_workers.grants import Grant
from site_workers.policy import Leaves, Limits, SitePolicy, objection, policy_text
from site_workers.question_form import QuestionForm
from tests.small_federation import SmallFederation, changed
from validation.quotes import Enclave

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)      # a Wednesday
LEAST = {"recipes": (), "contracts": (), "max_epsilon": 5.0, "delta_dp": 1e-5}
GRANTS = tuple(Grant(
    peer="shop", key="ed25519:" + "3b" * 32, purpose=purpose, gives=("ids", what), id="a \"b\"", most=5, until="2027-01-31",
    times=3, label="default" if what == "labels" else None, columns=("x", "y")) for purpose, what in (
        ("credit-risk", "labels"), ("fraud", "scores")))
TIMES = st.times().map(lambda time: f"{time:%H:%M}")


# -- the file ----------------------------------------------------------------------------------------------------------


@st.composite
def policies(draw) -> SitePolicy:
    unit = draw(st.sampled_from([("record",), ("site",), ("record", "none"), ("none",)]))
    largest = draw(st.floats(0, 1000))
    return SitePolicy(**{**LEAST, "max_epsilon": largest, "units": unit,
                         "max_epsilon_site": draw(st.floats(0, 1000)) if "site" in unit else None,
                         "max_epsilon_per_run": draw(st.none() | st.floats(0, largest)),
                         "max_epsilon_alone": draw(st.none() | st.floats(largest, 1000)),
                         "purposes": draw(st.sampled_from([("train",), ("evaluate", "train")])),
                         "statistics": draw(st.sampled_from([(), ("scores",), ("checks", "scores")])),
                         "min_rows": draw(st.integers(1, 10**6)),
                         "max_epsilon_label": draw(st.none() | st.floats(0, 1000)),
                         "vertical": draw(st.sampled_from([(), GRANTS[:1], GRANTS])),
                         "questions": QuestionForm(
                             columns=draw(st.sampled_from([None, (), ("age", "a \"b\""), ("x",)])),
                             askers=draw(st.sampled_from([None, (), ("ward-team",)])),
                             most_numbers=draw(st.integers(1, 9999)), min_noise_std=draw(st.floats(0, 100)),
                             share=draw(st.floats(0.01, 1)), hours_between=draw(st.floats(0, 100))),
                         "limits": Limits(threads=draw(st.integers(1, 256)), nice=draw(st.integers(0, 19)),
                                          memory_mb=draw(st.none() | st.integers(256, 10**6)),
                                          seconds=draw(st.integers(1, 604_800))),
                         "hours": draw(st.none() | st.builds(Hours, time_zone=st.just("Asia/Tokyo"), start=TIMES, end=TIMES,
                                                             days=st.just(WEEK[2:4])))})


@given(policies())
def test_what_is_written_is_what_is_read(policy: SitePolicy):
    assert parse(SitePolicy, tomllib.loads(policy_text(policy)), "policy.toml") == policy


def test_every_key_is_explained_in_the_file_and_in_the_guide():
    text, guide = policy_text(SitePolicy(**LEAST)), (Path(__file__).parents[2] / "docs" / "operating" / "site.md").read_text()
    for kind in (SitePolicy, Limits, Hours, QuestionForm, Grant, Enclave):
        for key in set(kind.model_fields) - {"limits", "hours", "questions", "vertical", "enclave"}:
            assert f"{key} = " in text, key
            assert f"`{key}`" in guide, key
    assert "[[vertical]]" in text
    assert "[limits]" in text
    assert "[questions]" in text
    assert "[hours]" in text
    assert "[enclave]" in text


@pytest.mark.parametrize(("change", "says"), [
    ({"unit": ["record"]}, "unknown key 'unit'"), ({"units": []}, "'units'"), ({"units": ["people"]}, "'units.0'"),
    ({"units": ["record", "site"], "max_epsilon_site": 1.0}, "promises nothing for a person"),
    ({"units": ["record", "person"], "max_epsilon_person": 1.0, "person": "id"}, "promises nothing for a person"),
    ({"units": ["person"], "person": "id"}, "give all three or none"), ({"person": "id"}, "give all three or none"),
    ({"units": ["person"], "max_epsilon_person": 1.0}, "give all three or none"),
    ({"units": ["site"]}, "give both or neither"), ({"max_epsilon_site": 1.0}, "give both or neither"),
    ({"max_epsilon_alone": 4.0}, "a site alone never spends less"),
    ({"max_epsilon_per_run": 6.0}, "a campaign is part of the whole"), ({"max_epsilon": -1.0}, "'max_epsilon'"),
    ({"delta_dp": 0.5}, "'delta_dp'"), ({"statistics": ["rows"]}, "'statistics.0'"),
    ({"purposes": ["shell"]}, "'purposes.0'"),
    ({"limits": {"threads": 0}}, "'limits.threads'"), ({"limits": {"nice": -5}}, "'limits.nice'"),
    ({"limits": {"memory_mb": 1}}, "'limits.memory_mb'"), ({"limits": {"cores": 1}}, "unknown key 'limits.cores'"),
    ({"hours": {"time_zone": "UTC", "start": "25:00", "end": "06:00"}}, "'hours.start'"),
    ({"hours": {"time_zone": "../../etc/passwd", "start": "20:00", "end": "06:00"}}, "is not known"),
    ({"hours": {"time_zone": "Mars/Olympus", "start": "20:00", "end": "06:00"}}, "is not known"),
    ({"hours": {"time_zone": "UTC", "start": "20:00", "end": "06:00", "days": []}}, "'hours.days'"),
    ({"hours": {"time_zone": "UTC", "start": "20:00", "end": "06:00", "days": ["monday"]}}, "'hours.days.0'"),
], ids=str)
def test_what_cannot_be_meant_is_refused(change: dict, says: str):
    with pytest.raises(ContractError) as refusal:
        parse(SitePolicy, {**LEAST, **change}, "policy.toml")
    assert says in str(refusal.value)


def test_alone_no_more_may_be_spent_than_with_others_unless_the_operator_says_so():
    person = {"units": ("person",), "person": "id", "max_epsilon_person": 2.0}
    assert SitePolicy(**LEAST).alone == ("record", 5.0)
    assert SitePolicy(**LEAST, max_epsilon_alone=25.0).alone == ("record", 25.0)
    assert SitePolicy(**LEAST, **person).alone == ("person", 2.0)
    assert SitePolicy(**LEAST, **person, max_epsilon_alone=9.0).alone == ("person", 9.0)


# -- hours -------------------------------------------------------------------------------------------------------------


@given(start=TIMES, end=TIMES, minute=st.integers(0, 7 * 24 * 60 - 1))
def test_on_all_days_it_is_open_from_start_to_end_and_closed_the_rest(start: str, end: str, minute: int):
    """Against the slow twin: walk back minute by minute to the last start or end."""
    now = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(minutes=minute)
    back = now
    while f"{back:%H:%M}" not in (start, end):
        back -= timedelta(minutes=1)
    assert Hours(time_zone="UTC", start=start, end=end).open(now) == (f"{back:%H:%M}" == start)


@pytest.mark.parametrize(("utc", "is_open"), [
    ("2026-03-06 18:59", False), ("2026-03-06 19:00", True),       # Friday 20:00 in Berlin
    ("2026-03-07 04:59", True), ("2026-03-07 05:00", False),       # to Saturday 06:00
    ("2026-03-07 19:30", False), ("2026-03-08 01:00", False),      # Saturday's night does not begin
    ("2026-07-03 18:00", True), ("2026-07-03 17:59", False)])      # in summer Berlin's 20:00 is another hour
def test_a_night_belongs_to_the_day_on_which_it_starts_by_the_clock_on_the_wall(utc: str, is_open: bool):
    hours = Hours(time_zone="Europe/Berlin", start="20:00", end="06:00", days=WEEK[:5])
    assert hours.open(datetime.fromisoformat(utc).replace(tzinfo=UTC)) is is_open
    assert hours.open(datetime.fromisoformat(utc).replace(tzinfo=UTC).astimezone(ZoneInfo("Asia/Tokyo"))) is is_open


# -- what it says to a plan --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    from tests import small_federation

    federation: SmallFederation = small_federation.make(tmp_path_factory.mktemp("policy"))
    federation.plan()
    return authorise(federation.site("north"), "spring", 1, 1, "train").plan


def said(plan: Plan, now: datetime = NOON, **changes: object) -> tuple[Reason, str] | None:
    policy = SitePolicy(**{**LEAST, "recipes": (plan.agreed.recipe_digest,),
                            "contracts": (plan.agreed.contract_digest,), **changes})
    return objection(policy, plan, plan.agreed.recipe_digest, plan.agreed.contract_digest, now)


RECORD = RecordPrivacy(epsilon=3.0, delta_dp=1e-5, rounds=3)
SITE = SitePrivacy(epsilon=3.0, delta_dp=1e-5, rounds=3)
EVALUATE = Evaluate(statistics=(Scores(bins=10, noise_std=5.0),))
AGES = Histogram(column="age", edges=(20.0, 40.0, 60.0), noise_std=5.0)
MEASURE = Measure(statistics=(AGES, GroupCounts(by=(Levels(column="sex", values=(1, 2)),), noise_std=5.0)))
BARE = Measure(statistics=(AGES.model_copy(update={"noise_std": 0.0}),))


@pytest.mark.parametrize(("asked", "allowed", "reason", "says"), [
    ({}, {}, None, ""),
    ({"recipe_digest": "1" * 64}, {"recipes": ("2" * 64,)}, Reason.POLICY, "recipe 1111111111111111 is not approved"),
    ({"contract_digest": "1" * 64}, {"contracts": ("2" * 64,)}, Reason.POLICY, "contract 1111111111111111 is not approved"),
    ({}, {"purposes": ("evaluate",)}, Reason.POLICY, "plans to train are not allowed"),
    ({"asks": EVALUATE}, {"purposes": ("train",)}, Reason.POLICY, "plans to evaluate are not allowed"),
    ({"privacy": NoPrivacy()}, {}, Reason.POLICY, "without differential privacy"),
    ({"privacy": NoPrivacy()}, {"units": ("none",)}, None, ""),
    ({"privacy": SITE}, {}, Reason.POLICY, "the unit 'site'"),
    ({"privacy": SITE}, {"units": ("site",), "max_epsilon_site": 5.0}, None, ""),
    ({"privacy": RECORD}, {"units": ("site",), "max_epsilon_site": 5.0}, Reason.POLICY, "the unit 'record'"),
    ({"privacy": RECORD}, {"units": ("none",)}, Reason.POLICY, "the unit 'record'"),
    ({"privacy": RECORD}, {"delta_dp": 1e-6}, Reason.POLICY, "delta_dp 1e-05 is above the 1e-06"),
    ({"privacy": RECORD}, {"max_epsilon_per_run": 2.0}, Reason.POLICY, "epsilon 3 for one run is above the 2"),
    ({"privacy": RECORD}, {"max_epsilon_per_run": 3.0}, None, ""),
    ({"evaluation": LocalEvaluation(noise_std=0.0)}, {}, Reason.POLICY, "counts of scores without noise"),
    ({"evaluation": LocalEvaluation(noise_std=0.0)}, {"statistics": ()}, None, ""),
    ({"asks": EVALUATE}, {"statistics": ("checks",)}, Reason.POLICY, "counts of scores do not leave"),
    ({"asks": MEASURE}, {"statistics": WORDS}, Reason.POLICY, "plans to measure are not allowed"),
    ({"asks": MEASURE}, {"purposes": ("measure",)}, Reason.POLICY, "histograms of columns do not leave"),
    ({"asks": MEASURE}, {"purposes": ("measure",), "statistics": ("histograms",)}, Reason.POLICY, "counts of groups do not"),
    ({"asks": MEASURE}, {"purposes": ("measure",), "statistics": ("histograms", "group_counts")}, None, ""),
    ({"asks": MEASURE, "privacy": SITE}, {"purposes": ("measure",), "statistics": WORDS, "units": ("site",),
                                          "max_epsilon_site": 5.0}, Reason.POLICY, "histograms of columns do not leave"),
    ({"asks": BARE}, {"purposes": ("measure",), "statistics": WORDS}, Reason.POLICY, "histograms of columns without noise"),
    ({"asks": BARE}, {"purposes": ("measure",), "statistics": WORDS, "units": ("record", "none")}, None, ""),
    ({}, {"hours": Hours(time_zone="UTC", start="20:00", end="06:00")}, Reason.HOURS,
     "not now: plans are carried out here from 20:00 to 06:00 UTC"),
    ({}, {"hours": Hours(time_zone="UTC", start="09:00", end="17:00")}, None, ""),
], ids=lambda value: str(value)[:60])
def test_every_key_says_no_for_its_own_reason_and_yes_otherwise(plan: Plan, asked: dict, allowed: dict,
                                                                reason: Reason | None, says: str):
    found = said(changed(plan, **asked), **allowed)
    assert (None if found is None else found[0]) == reason
    assert found is None or says in found[1]
    assert found is None or len(found[1]) <= 300


def test_a_policy_knows_every_statistic_and_every_question_by_a_word():
    assert set(get_args(Leaves)) == {*WORDS, "checks"}
    kinds = [question.model_fields["kind"].default for question in get_args(get_args(Question)[0])]
    assert sorted(kinds) == sorted(get_args(Purpose))


def test_a_file_that_is_approved_and_is_not_the_current_one_is_not_used(plan: Plan):
    policy = SitePolicy(**{**LEAST, "recipes": (plan.agreed.recipe_digest,),
                            "contracts": (plan.agreed.contract_digest,)})
    assert objection(policy, plan, "1" * 64, plan.agreed.contract_digest, NOON) is not None
    assert objection(policy, plan, plan.agreed.recipe_digest, "1" * 64, NOON) is not None


def test_a_new_site_reads_its_generated_policy(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(policy_text(SitePolicy(**LEAST)))
    assert load_toml(SitePolicy, path) == SitePolicy(**LEAST)
