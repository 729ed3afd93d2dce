"""The unit `person` on a real federation: whoever has many rows is one person, and the ledger pays for the person."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedround import layout
from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpSgd, GaussianCounts
from fedround.records import Measure
from fedround.signing import seal
from fedround.statistics.partitions import Partition
from flows.rehearsal import rehearse
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from site_workers.preflight import preflight
from tests import small_federation
from tests.site_workers.test_measure import LABELS, X1, ask
from tests.site_workers.test_measure import answer as measured
from tests.site_workers.test_measure import said as told
from tests.site_workers.test_units import answer_of, book_of
from tests.small_federation import SmallFederation, changed

pytestmark = pytest.mark.usefixtures("rows_are_judged_here")

DELTA = 1e-5
PERSON = {"unit": "person", "epsilon": 5.0, "delta_dp": DELTA, "clip_norm": 1.0, "rounds": 2, "person": "customer",
          "rows_per_person": 2}
TERMS = {"privacy": PERSON, "evaluation": {"bins": 10, "noise_std": 40.0}}


@pytest.fixture
def by_person(tmp_path: Path) -> SmallFederation:
    return small_federation.make(tmp_path, max_epsilon=13.0, units=("person",), max_epsilon_person=5.0, **TERMS)


def rows_of(federation: SmallFederation, file: str = "train") -> pd.DataFrame:
    return pd.read_parquet(federation.root / "data" / "north" / f"{file}.parquet")


def write(federation: SmallFederation, frame: pd.DataFrame, file: str = "train") -> None:
    frame.to_parquet(federation.root / "data" / "north" / f"{file}.parquet")


def test_a_campaign_keeps_its_promise_to_persons_and_a_round_more_is_refused(by_person: SmallFederation):
    for _ in range(2):
        assert len(by_person.round().updates) == 3
    book, persons = book_of(by_person, "north"), rows_of(by_person)["customer"].nunique()
    training, counts = book.charges[0].mechanisms
    assert isinstance(training, DpSgd)
    assert isinstance(counts, GaussianCounts)
    assert training.sampling_rate == pytest.approx(32 / persons)
    assert (training.rows_per_person, counts.rows_per_person) == (2, 2)
    assert 4.9 < ledger.held(book, DELTA, unit="person") <= 5.0 < ledger.held(book, DELTA, unit="record") < 13.0
    answer = answer_of(by_person, "north", 2)
    assert answer["epsilon"] == ledger.spent(book, DELTA, unit="person", run="spring")
    planned = by_person.plan()
    assert by_person.answer("north", planned) == "refusal"
    assert answer_of(by_person, "north", 3)["reason"] == "budget"


def test_a_table_of_counts_is_charged_for_all_rows_of_a_person(by_person: SmallFederation):
    _allow(by_person)
    ask(by_person, X1.model_copy(update={"noise_std": 8.0}), LABELS.model_copy(update={"noise_std": 9.0}))
    assert measured(by_person) == "answer"
    one, other = told(by_person).releases
    assert (one.mechanism.rows_per_person, other.mechanism.rows_per_person) == (2, 2)
    assert told(by_person).mechanisms == book_of(by_person, "north").charges[0].mechanisms
    assert ledger.spent(book_of(by_person, "north"), DELTA, unit="person") == epsilon(
        [GaussianCounts(noise_std=4.0), GaussianCounts(noise_std=4.5)], DELTA)


def test_few_persons_are_too_few_however_many_rows_they_have(by_person: SmallFederation):
    frame = rows_of(by_person)
    write(by_person, frame.assign(customer=frame.index % 40))
    assert by_person.answer("north", by_person.plan()) == "refusal"
    assert answer_of(by_person, "north", 1)["detail"] == "fewer persons than the site's policy asks for"
    (found,) = [one for one in preflight(by_person.root / "north") if one.check == "rows"]
    assert not found.ok
    assert "40 persons have training rows" in found.detail


@pytest.mark.parametrize("ill", [0, 49, 50])
def test_attack_no_refusal_tells_how_many_persons_a_partition_has(by_person: SmallFederation, ill: int):
    """A question about those with a diagnosis, or about one person: were it refused to fewer than 100, that would tell."""
    for file in ("train", "validation"):
        frame = rows_of(by_person, file)
        write(by_person, frame.assign(ill=["yes" if place < ill else "no" for place in range(len(frame))], customer=[
            f"{file} {place}" for place in range(len(frame))]), file)
    _allow(by_person, min_rows=100)
    loud = LABELS.model_copy(update={"noise_std": 9.0})
    plan = changed(by_person.plan().plan, round=0, asks=Measure(
        statistics=(loud,), partition=Partition(column="ill", by="value", name="yes")))
    by_person.coordinator.store.put_once(layout.plan("spring", 0, 1, "measure"), seal(plan, by_person.coordinator.identity))
    assert measured(by_person) == "answer"


def test_attack_a_coordinator_that_calls_each_row_a_person_is_refused(tmp_path: Path):
    """Which column names persons is the site's to say: by a column of its rows' numbers, nobody would have two."""
    federation = small_federation.make(tmp_path, max_epsilon=13.0, units=("person",), max_epsilon_person=5.0,
                                       **{**TERMS, "privacy": {**PERSON, "person": "x2"}})
    assert federation.answer("north", federation.plan()) == "refusal"
    assert answer_of(federation, "north", 1)["detail"] == "persons are told apart by another column here"
    assert book_of(federation, "north").charges == ()


@pytest.mark.parametrize(("units", "policy"), [
    (("record",), {}), (("site",), {"max_epsilon_site": 5.0})], ids=["records", "the site"])
def test_a_site_that_protects_others_refuses_persons(tmp_path: Path, units, policy):
    federation = small_federation.make(tmp_path, units=units, max_epsilon=8.0, **policy, **TERMS)
    assert federation.answer("north", federation.plan()) == "refusal"
    assert "unit 'person' is not what the policy asks for" in answer_of(federation, "north", 1)["detail"]


def test_rows_without_a_person_are_nobodys_and_never_used(by_person: SmallFederation):
    frame = rows_of(by_person)
    frame["customer"] = frame["customer"].astype("Int64")
    frame.loc[frame.index % 2 == 0, "customer"] = pd.NA
    write(by_person, frame)
    _allow(by_person, min_rows=20)
    assert by_person.answer("north", by_person.plan()) == "update"
    assert book_of(by_person, "north").charges[0].mechanisms[0].sampling_rate == pytest.approx(32 / 50)
    (found,) = [one for one in preflight(by_person.root / "north") if one.check == "rows"]
    assert "of 50 persons, 3 of one of them; 150 are nobody's" in found.detail


def test_without_the_column_nothing_is_charged(by_person: SmallFederation):
    write(by_person, rows_of(by_person).drop(columns="customer"))
    assert by_person.answer("north", by_person.plan()) == "refusal"
    assert answer_of(by_person, "north", 1)["detail"] == "the rows have no column 'customer'"
    assert book_of(by_person, "north").charges == ()


def test_a_rehearsal_costs_what_the_round_will(by_person: SmallFederation):
    by_person.coordinator.publish_federation()
    found = rehearse(by_person.site("north"))
    assert found.carried_out, found.decision
    by_person.answer("north", by_person.plan())
    assert found.mechanisms == book_of(by_person, "north").charges[0].mechanisms


def _allow(federation: SmallFederation, **changes: object) -> None:
    path = federation.root / "north" / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update={
        "purposes": ("train", "evaluate", "measure"), "statistics": ("scores", "checks", "histograms", "group_counts"),
        **changes}), path, "changed")
