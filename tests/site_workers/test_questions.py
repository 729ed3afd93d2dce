"""[questions] of a site's policy: the form of what may be asked, and attacks by asking."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import beta

from fedround import layout
from fedround.drift.spec import DriftWatch, Watched
from fedround.privacy import ledger
from fedround.privacy.accounting import epsilon
from fedround.privacy.noise import stream
from fedround.privacy.spec import GaussianCounts
from fedround.records import Measure
from fedround.signing import seal
from fedround.statistics import Bounded, DyadicCounts, GroupCounts, Levels, Moments, OneOf, Present, Ranges, release
from fedround.statistics.partitions import Partition
from site_workers import round as site_round
from site_workers.draws import SiteDraws
from site_workers.question_form import QuestionForm
from site_workers.rows import read_site_rows
from tests.site_workers.test_measure import allow, answer, ask, refusal, rows_of, said
from tests.small_federation import SmallFederation, changed

ALL = ("scores", "checks", "histograms", "group_counts", "moments", "quantiles", "missing")
X1 = Bounded(column="x1", low=-9.0, high=9.0)
MEAN = Moments(of=(X1,), degree=1, noise_std=4.0)
COUNT = GroupCounts(by=(Levels(column="y", values=(0, 1)),), noise_std=4.0)
DRIFT = DriftWatch(columns=(Watched(column="x1", edges=(0.0,)),), noise_std=4.0)


def form(federation: SmallFederation, **says: object) -> None:
    allow(federation, "north", statistics=ALL, questions=QuestionForm(**says))


def charges(federation: SmallFederation) -> tuple[ledger.Charge, ...]:
    return ledger.read(federation.site("north").ledger).charges


def test_every_kind_of_question_is_answered_and_charged(federation: SmallFederation):
    form(federation, columns=("x1", "y"), min_noise_std=4.0, share=0.9, askers=None)
    asked = (MEAN, COUNT, Present(of=("x1", "y"), noise_std=4.0), DyadicCounts(of=X1, depth=4, noise_std=4.0))
    plan = ask(federation, *asked)
    assert answer(federation) == "answer"
    (charge,) = charges(federation)
    assert charge.mechanisms == (GaussianCounts(noise_std=4.0),) * 4
    site, frame = federation.site("north"), rows_of(federation, "north")
    draws = SiteDraws(site.noise_secret, plan, read_site_rows(site).digest)
    evidence = SimpleNamespace(column=lambda name: frame[name].to_numpy())
    assert said(federation).releases == tuple(release(one, evidence, draws.statistic(place, {}))
                                              for place, one in enumerate(asked)), "the same bytes wherever it is computed"


@pytest.mark.parametrize(("says", "statistic", "why"), [
    ({"columns": ("y",)}, MEAN, "column 'x1'"),
    ({"columns": ("x1",)}, Moments(of=(X1,), degree=1, noise_std=4.0, by=(Levels(column="y", values=(1,)),)), "column 'y'"),
    ({"columns": ("x1",)}, Moments(of=(X1,), degree=1, noise_std=4.0, where=(OneOf(column="y", values=(1,)),)), "column 'y'"),
    ({"columns": ("x1",)}, Present(of=("x1", "y"), noise_std=4.0), "column 'y'"),
    ({"most_numbers": 8}, DyadicCounts(of=X1, depth=3, noise_std=4.0), "14 numbers in one answer are more than the 8"),
    ({}, GroupCounts(noise_std=4.0, by=(Ranges(column="x1", edges=tuple(np.linspace(-9, 9, 99).tolist())),
                                        Ranges(column="x2", edges=tuple(np.linspace(-9, 9, 97).tolist())))),
     "9999 numbers in one answer are more than the 1000"),
    ({"min_noise_std": 4.5}, MEAN, "noise of 4 is less than the 4.5"),
    ({"askers": ("ward-team",)}, MEAN, "without an asker")])
def test_attack_a_question_of_another_form_is_refused_and_nothing_is_charged(federation: SmallFederation, says: dict,
                                                                            statistic: object, why: str):
    form(federation, **says)
    ask(federation, statistic)
    assert answer(federation) == "refusal"
    assert refusal(federation)["reason"] == "policy"
    assert why in refusal(federation)["detail"]
    assert charges(federation) == ()


@pytest.mark.parametrize("changes", [
    {"asks": Measure(statistics=(COUNT,), partition=Partition(column="x1", by="value", name="7"))},
    {"asks": Measure(statistics=DRIFT.statistics), "drift": DRIFT}], ids=["partition", "drift"])
def test_attack_a_column_that_may_not_be_named_is_named_by_a_partition_or_by_terms(federation: SmallFederation,
                                                                               changes: dict):
    """The coordinator writes both."""
    form(federation, columns=("y",), askers=("ward-team",) if "drift" in changes else None)
    plan = changed(federation.plan().plan, round=0, **changes)
    federation.coordinator.store.put_once(layout.plan("spring", 0, 1, "measure"), seal(plan, federation.coordinator.identity))
    assert answer(federation) == "refusal"
    assert "column 'x1'" in refusal(federation)["detail"]
    assert charges(federation) == ()
    form(federation, columns=("x1", "y"), askers=("ward-team",) if "drift" in changes else None)
    assert answer(federation) == "answer", "nobody in particular asks what terms ask"


@pytest.mark.parametrize(("asker", "answers"), [("ward-team", True), ("night-team", False)])
def test_who_may_ask_is_who_the_policy_names(federation: SmallFederation, asker: str, answers: bool):
    form(federation, askers=("ward-team",))
    planned = federation.plan()
    plan = changed(planned.plan, round=0, asks=Measure(statistics=(MEAN,), asker=asker))
    federation.coordinator.store.put_once(layout.plan("spring", 0, 1, "measure"), seal(plan, federation.coordinator.identity))
    assert answer(federation) == ("answer" if answers else "refusal")


def test_between_two_questions_time_passes_and_a_retry_is_no_second_question(federation: SmallFederation):
    form(federation, hours_between=24.0)
    ask(federation, MEAN)
    assert answer(federation) == "answer"
    assert "the same bytes were sent again" in answer(federation)
    ask(federation, COUNT, attempt=2)
    assert answer(federation, attempt=2) == "refusal"
    site = federation.site("north")
    later = dataclasses.replace(site, clock=lambda: site.clock() + timedelta(hours=25))
    asked = site_round.SiteRequest(run="spring", round=0, attempt=2, purpose="measure")
    assert site_round.answer(later, asked, lambda: False).message == "answer"


def test_attack_overlapping_questions_add_up_in_the_ledger_until_their_share_is_spent(federation: SmallFederation):
    """Young women, women, the young: whoever hopes that each is about other records pays for all of them."""
    once = epsilon([GaussianCounts(noise_std=4.0)], 1e-5)
    form(federation, share=0.25)
    asked = [GroupCounts(by=(Levels(column="y", values=(1,)),), noise_std=4.0),
             GroupCounts(by=(Ranges(column="x1", edges=(0.0,)),), noise_std=4.0),
             GroupCounts(by=(Levels(column="y", values=(1,)), Ranges(column="x1", edges=(0.0,))), noise_std=4.0)]
    told = []
    for attempt, statistic in enumerate((*asked, *asked), start=1):
        ask(federation, statistic, attempt=attempt)
        told.append(answer(federation, attempt=attempt))
    spent = ledger.spent(ledger.read(federation.site("north").ledger), 1e-5)
    assert told.count("answer") == len(charges(federation)) >= 3
    assert told[-1] == "refusal"
    alone = GaussianCounts(noise_std=4.0 / math.sqrt(len(charges(federation))))
    assert spent == pytest.approx(epsilon([alone], 1e-5), rel=5e-3)
    assert once < spent <= 0.25 * federation.site("north").policy.max_epsilon


# -- what an analyst can learn of one person ---------------------------------------------------------------------------


class People:
    """A site's records."""

    def __init__(self, count: int):
        generator = np.random.default_rng(3)
        self._columns = {"age": generator.uniform(20, 80, 200)[:count], "id": np.arange(200)[:count]}
        self._columns["age"][count - 1:] = 100.0            # the last is unlike the others

    def column(self, name):
        return self._columns[name]


def at_least(statistic, noise_std: float, times: int = 1000, delta_dp: float = 1e-5) -> float:
    """What epsilon the best attack shows, in 95 of 100 experiments: is the last record there? By the answers with it and
    without it, of as many draws each (Clopper-Pearson bounds on both rates).
    """
    with_it, without = People(200), People(199)
    quiet = statistic.model_copy(update={"noise_std": 0.0})
    direction = (quiet.noised(with_it, None) - quiet.noised(without, None)).ravel()
    length = np.linalg.norm(direction)
    loud = statistic.model_copy(update={"noise_std": noise_std})
    seen = {who: np.array([(loud.noised(rows, stream(bytes(32), b"attack", f"{who}{draw}".encode()))
                            - quiet.noised(without, None)).ravel() @ direction / length for draw in range(times)])
            for who, rows in (("in", with_it), ("out", without))}
    found = 0.0
    for threshold in np.linspace(-1, 3, 9) * max(noise_std, length / 2):
        caught, false = ((seen[who] > threshold).sum() for who in ("in", "out"))
        low, high = beta.ppf(0.025, caught, times - caught + 1), beta.ppf(0.975, false + 1, times - false)
        if caught and false < times and low > delta_dp:
            found = max(found, math.log((low - delta_dp) / high))
    return found


AGE = Bounded(column="age", low=0.0, high=100.0)


@pytest.mark.parametrize("statistic", [
    Moments(of=(AGE,), degree=1, noise_std=1.5), DyadicCounts(of=AGE, depth=5, noise_std=1.5),
    GroupCounts(by=(Ranges(column="age", edges=(50.0, 90.0)),), noise_std=1.5)], ids=lambda one: one.kind)
def test_attack_one_record_out_a_thousand_times_shows_no_more_than_was_charged(statistic):
    charged = epsilon([statistic.mechanism], 1e-5)
    assert 0 < at_least(statistic, 1.5) <= charged
    assert at_least(statistic, 0.15) > charged, "with a tenth of the noise the same attack shows it: the test can fail"


def test_attack_a_filter_on_one_person_changes_nothing_beyond_noise():
    """The datashield attack: all records but one, and all of them. Here also: only that one."""
    of_one = GroupCounts(by=(Ranges(column="age", edges=(50.0,)),), noise_std=1.5, where=(OneOf(column="id", values=(199,)),))
    assert at_least(of_one, 1.5) <= epsilon([of_one.mechanism], 1e-5)
    told = [release(of_one, rows, stream(bytes(32), b"one", str(draw).encode())).table
            for rows in (People(200), People(199)) for draw in range(500)]
    there, gone = np.array(told[:500]), np.array(told[500:])
    assert np.abs(there.mean(axis=0) - gone.mean(axis=0)).max() < 1 + 5 * 1.5 / math.sqrt(250)
    assert there.std() == pytest.approx(math.hypot(1.5, np.array([0, 1, 0]).std()), rel=0.1)
