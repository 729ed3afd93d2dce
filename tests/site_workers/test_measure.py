"""A plan that measures, at a site: what leaves is noised and charged, and only what the policy names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedround import layout
from fedround.errors import ContractError, PrivacyError
from fedround.learning.persons import ids_of
from fedround.privacy import ledger
from fedround.privacy.spec import GaussianCounts
from fedround.records import Answer, Measure
from fedround.signing import digest, seal, unseal
from fedround.statistics import GroupCounts, Histogram, Levels
from infra.settings import load_toml, save_toml
from site_workers import outbox, release
from site_workers import round as site_round
from site_workers.policy import SitePolicy
from tests.small_federation import SmallFederation, changed
from validation import encoding

EDGES = (-1.0, 0.0, 1.0)
X1 = Histogram(column="x1", edges=EDGES, noise_std=4.0)
LABELS = GroupCounts(by=(Levels(column="y", values=(0, 1)),), noise_std=6.0)


def allow(federation: SmallFederation, name: str, **changes: object) -> None:
    path = federation.root / name / "policy.toml"
    save_toml(load_toml(SitePolicy, path).model_copy(update={
        "purposes": ("train", "evaluate", "measure"), "statistics": ("scores", "checks", "histograms", "group_counts"),
        **changes}), path, "changed")


def ask(federation: SmallFederation, *statistics: object, attempt: int = 1) -> str:
    """The coordinator signs a question about the run's initial model; returns the plan's digest."""
    planned = federation.plan()
    plan = changed(planned.plan, round=0, attempt=attempt, asks=Measure(statistics=statistics))
    document = seal(plan, federation.coordinator.identity)
    federation.coordinator.store.put_once(layout.plan("spring", 0, attempt, "measure"), document)
    return digest(document)


def answer(federation: SmallFederation, name: str = "north", attempt: int = 1) -> str:
    return site_round.answer(federation.site(name), site_round.SiteRequest(
        run="spring", round=0, attempt=attempt, purpose="measure"), lambda: False).message


def said(federation: SmallFederation, name: str = "north", attempt: int = 1) -> Answer:
    key = layout.answer(name, "spring", 0, attempt, "measure")
    return unseal((federation.root / "store" / key).read_bytes(), Answer, federation.site(name).identity.key, name)


def refusal(federation: SmallFederation, name: str = "north") -> dict:
    prefix = federation.root / "store" / layout.refusals(name, "spring", 0, 1, "measure")
    return json.loads(sorted(prefix.parent.glob("refusal-*"))[-1].read_bytes())["body"]


def rows_of(federation: SmallFederation, name: str) -> pd.DataFrame:
    data = federation.root / "data" / name
    return pd.concat([pd.read_parquet(data / f"{part}.parquet") for part in ("train", "validation")])


def test_what_leaves_is_the_counts_with_the_noise_that_was_asked_and_nothing_else(federation: SmallFederation):
    allow(federation, "north")
    plan = ask(federation, X1, LABELS)
    assert answer(federation) == "answer"
    told, frame = said(federation), rows_of(federation, "north")
    assert (told.plan, told.asked, told.update) == (plan, "measure", None)
    exact = [np.array([*np.histogram(frame["x1"], bins=[-np.inf, *EDGES, np.inf])[0], 0]),
             np.array([(frame["y"] == 0).sum(), (frame["y"] == 1).sum(), 0])]
    for release_, counts in zip(told.releases, exact, strict=True):
        noise = release_.table - counts
        assert np.abs(noise).max() < 6 * release_.noise_std
        assert np.abs(noise).min() > 0
    book = ledger.read(federation.site("north").ledger)
    (charge,) = book.charges
    assert charge.mechanisms == told.mechanisms == (GaussianCounts(noise_std=4.0), GaussianCounts(noise_std=6.0))
    assert (charge.purpose, charge.plan) == ("measure", plan)
    assert not (federation.root / "store" / layout.delta("north", "spring", 0, 1)).exists()


def test_columns_are_the_same_here_and_from_a_process_of_its_own_whatever_they_hold(tmp_path: Path):
    """Numbers with gaps, truths with gaps, categories, dates, texts among numbers: a number is a number, a gap is None."""
    frame = pd.DataFrame({
        "whole": pd.array([1, None, 3], dtype="Int64"), "real": [0.5, None, 2.0],
        "truth": pd.array([True, None, False], dtype="boolean"), "kind": pd.Categorical(["a", None, "b"]),
        "day": pd.to_datetime(["2026-01-01", None, "2026-01-03"]), "text": ["x", None, "1"]})
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    here, there = (read([path, path], [*frame.columns, "gone"])
                   for read in (encoding.columns, encoding.columns_in_subprocess))
    assert here.keys() == there.keys() == set(frame.columns)
    for name, values in here.items():
        assert [str(value) for value in values.tolist()] == [str(value) for value in there[name].tolist()], name
    assert here["whole"].tolist() == [1, None, 3] * 2
    assert here["kind"].tolist() == ["a", None, "b"] * 2


@pytest.mark.parametrize("last", ['""', "0.5", "9"])
def test_attack_one_record_changes_no_long_number_of_another(tmp_path: Path, last: str):
    """A fraction or a gap in one row would make fractions of all: other people's ids, and other buckets of a sketch."""
    path = tmp_path / "rows.csv"
    path.write_text("id\n" + "".join(f"{2 ** 60 + place}\n" for place in range(9)) + last + "\n")
    (told,) = encoding.columns([path], ["id"]).values()
    assert told.tolist()[:9] == [2 ** 60 + place for place in range(9)]
    assert told.tolist()[9] == (None if last == '""' else float(last))
    assert ids_of(told)[:9] == [str(2 ** 60 + place) for place in range(9)]


def test_asked_again_it_sends_the_same_bytes_and_pays_once(federation: SmallFederation):
    allow(federation, "north")
    ask(federation, X1)
    answer(federation)
    first = said(federation)
    answer(federation)
    assert said(federation) == first
    assert len(ledger.read(federation.site("north").ledger).charges) == 1


def test_another_question_draws_other_noise_and_is_paid_too(federation: SmallFederation):
    """Otherwise the difference of two answers would tell the rows."""
    allow(federation, "north")
    ask(federation, X1)
    ask(federation, X1, LABELS, attempt=2)
    answer(federation)
    answer(federation, attempt=2)
    one, other = said(federation).releases[0], said(federation, attempt=2).releases[0]
    assert np.abs(one.table - other.table).min() > 0
    assert len(ledger.read(federation.site("north").ledger).charges) == 2


@pytest.mark.parametrize(("changes", "says"), [
    ({"purposes": ("train", "evaluate")}, "plans to measure are not allowed"),
    ({"statistics": ("scores", "histograms")}, "counts of groups do not leave"),
    ({"statistics": ()}, "histograms of columns do not leave")])
def test_a_policy_that_does_not_name_it_refuses_and_nothing_is_charged(federation: SmallFederation, changes: dict, says: str):
    allow(federation, "north", **changes)
    ask(federation, X1, LABELS)
    assert answer(federation) == "refusal"
    assert refusal(federation)["reason"] == "policy"
    assert says in refusal(federation)["detail"]
    assert ledger.read(federation.site("north").ledger).charges == ()


def test_a_new_site_measures_nothing(federation: SmallFederation):
    ask(federation, X1)
    assert answer(federation) == "refusal"


def test_a_column_that_is_not_there_is_a_refusal_before_any_charge(federation: SmallFederation):
    allow(federation, "north")
    ask(federation, Histogram(column="income", edges=EDGES, noise_std=4.0))
    assert answer(federation) == "refusal"
    assert (refusal(federation)["reason"], "'income'" in refusal(federation)["detail"]) == ("data", True)
    assert ledger.read(federation.site("north").ledger).charges == ()


@pytest.mark.parametrize("others", [(X1,), (LABELS,), (Histogram(column="income", edges=EDGES, noise_std=4.0),)])
def test_a_plan_to_train_cannot_ask_on_the_side(federation: SmallFederation, others: tuple):
    """Not which columns there are, and nothing else that [questions] of the policy would judge: no such plan can be read."""
    planned = federation.plan()
    plan = planned.plan.model_copy(update={"attempt": 2, "asks": planned.plan.asks.model_copy(update={"statistics": others})})
    with pytest.raises(ContractError, match="nobody could read"):
        seal(plan, federation.coordinator.identity)


def test_over_the_budget_it_is_refused(federation: SmallFederation):
    allow(federation, "north")
    ask(federation, Histogram(column="x1", edges=EDGES, noise_std=0.35))
    assert answer(federation) == "refusal"
    assert refusal(federation)["reason"] == "budget"


@pytest.mark.parametrize("change", [
    lambda told: told.model_copy(update={"releases": told.releases * 2}),
    lambda told: told.model_copy(update={"releases": (told.releases[0].model_copy(
        update={"mechanism": GaussianCounts(noise_std=0.5)}),)}),
    lambda told: told.model_copy(update={"plan": "0" * 64})], ids=["one more", "quieter", "another plan"])
def test_an_answer_that_is_noised_otherwise_than_charged_does_not_leave(federation: SmallFederation, monkeypatch, change):
    """Whatever goes wrong on the way to it: the door compares what the answer says with what the ledger was charged."""
    allow(federation, "north")
    ask(federation, X1)
    real = site_round._answer
    monkeypatch.setattr(site_round, "_answer", lambda *arguments: change(real(*arguments)))
    with pytest.raises(PrivacyError, match="nothing leaves"):
        answer(federation)
    assert not list(outbox.entries(federation.site("north").safe))
    assert not (federation.root / "store" / "sites" / "north").exists()


def test_the_door_opens_for_no_answer_without_a_ledger(federation: SmallFederation):
    allow(federation, "north")
    ask(federation, X1)
    answer(federation)
    site = federation.site("north")
    order = site_round.authorise(site, "spring", 0, 1, "measure")
    with pytest.raises(PrivacyError, match="nothing leaves"):
        release.release(site, order.plan, said(federation))


def test_killed_between_charge_and_outbox_the_bytes_are_the_same(federation: SmallFederation, tmp_path: Path, monkeypatch):
    allow(federation, "north")
    ask(federation, X1, LABELS)
    undisturbed = federation.copy(tmp_path / "undisturbed")
    answer(undisturbed)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(site_round, "_answer", die)
        with pytest.raises(KeyboardInterrupt):
            answer(federation)
    answer(federation)
    assert said(federation).releases == said(undisturbed).releases
    assert len(ledger.read(federation.site("north").ledger).charges) == 1
