"""The other promises on a real federation: a unit for the whole site, a clip norm that follows a quantile, a fixed order."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from fedround import layout
from fedround.errors import ContractError
from fedround.privacy import ledger
from fedround.privacy.spec import DpFtrl, GaussianUpdate, RecordPrivacy
from fedround.terms import Agreed
from fedround.values import parse
from tasks.ask import plan_question
from tasks.evaluate import evaluate
from tasks.report import page, report
from tasks.requests import RoundRequest
from tests import small_federation
from tests.small_federation import SmallFederation

pytestmark = pytest.mark.usefixtures("rows_are_judged_here")

DELTA = 1e-5
SITE = {"unit": "site", "epsilon": 5.0, "delta_dp": DELTA, "clip_norm": 0.5, "rounds": 3}
RECORD = {"unit": "record", "epsilon": 8.0, "delta_dp": DELTA, "clip_norm": 1.0, "rounds": 3}


def answer_of(federation: SmallFederation, site: str, number: int) -> dict:
    where = site, "spring", number, 1, "train"
    path = federation.root / "store" / layout.answer(*where)
    if not path.exists():
        path = sorted((federation.root / "store" / layout.refusals(*where)).parent.glob("refusal-*"))[-1]
    return json.loads(path.read_bytes())["body"]


def book_of(federation: SmallFederation, site: str) -> ledger.Ledger:
    return ledger.read(federation.site(site).ledger)


# -- the unit `site` -----------------------------------------------------------------------------------------------------


@pytest.fixture
def by_site(tmp_path) -> SmallFederation:
    return small_federation.make(tmp_path, privacy=SITE, max_epsilon=15.0, units=("site",), max_epsilon_site=5.0)


def test_a_site_campaign_keeps_both_promises_and_a_round_more_is_refused(by_site: SmallFederation):
    for _ in range(3):
        assert len(by_site.round().updates) == 3
    book = book_of(by_site, "north")
    assert all(isinstance(charge.mechanisms[0], GaussianUpdate) and len(charge.mechanisms) == 1 for charge in book.charges)
    assert 4.9 < ledger.spent(book, DELTA, unit="site") <= 5.0 < ledger.spent(book, DELTA) <= 15.0
    planned = by_site.plan()
    assert by_site.answer("north", planned) == "refusal"
    assert answer_of(by_site, "north", 4)["reason"] == "budget"


def test_the_page_of_a_round_says_what_is_protected_and_counts_no_rows(by_site: SmallFederation):
    """No counts of scores leave: the page has nothing of the sites' own rows, and says so with dashes and no chart."""
    planned, coordinator = by_site.plan(), by_site.coordinator
    for name in planned.plan.cohort:
        by_site.answer(name, planned)
    committed = by_site.commit(planned, coordinator)
    record = report(coordinator, planned, by_site.collect(planned, coordinator), committed,
                    evaluate(coordinator, committed.commit), 1.5)
    text = " ".join(page(coordinator, "spring", 1).read_text().split())
    assert "site level (all that a site contributes, or nothing), epsilon &lt;= 5" in text
    assert "Round 1 reached AUC" in text
    assert "at the sites, noised" not in text
    assert all(row.outcome == "updated" and row.local is None and 0 < row.epsilon <= 5 for row in record.sites)


def test_nothing_that_a_site_signs_depends_on_how_many_rows_it_has(by_site: SmallFederation):
    """North has 300 rows, south 150: their answers say the same of privacy, and count nothing."""
    by_site.round()
    north, south = (answer_of(by_site, name, 1) for name in ("north", "south"))
    assert (north["epsilon"], north["releases"]) == (south["epsilon"], south["releases"])
    for key in ("mechanism", "rows", "steps", "within_clip"):
        assert north["update"][key] == south["update"][key]
    assert (north["update"]["rows"], north["releases"]) == (None, [])
    assert north["update"]["mechanism"] == {"kind": "gaussian_update", "noise_multiplier": 1.545, "clip_norm": 0.5}


def test_attack_a_site_of_ten_and_one_of_a_hundred_thousand_rows_sign_the_same(by_site: SmallFederation, tmp_path):
    """All that is signed, but for the digests of the noised numbers themselves. `min_rows` is 50, and is not told either."""
    planned, said = by_site.plan(), []
    for count in (10, 300, 100_000):
        copy = by_site.copy(tmp_path / str(count))
        for name, rows in (("train", count), ("validation", count // 5)):
            small_federation.rows(rows, 1).to_parquet(copy.root / "data" / "north" / f"{name}.parquet")
        north = copy.site("north")
        path = north.folder / "site.toml"
        path.write_text(path.read_text().replace(f"{by_site.root}/data", f"{copy.root}/data"))
        running = replace(copy.site("north"), clock=lambda: datetime(2026, 5, 1, tzinfo=UTC))
        assert copy.answer("north", planned, running) == "update"
        body = answer_of(copy, "north", 1)
        said.append((body, [body["update"]["payload"].pop(key) for key in ("sha256", "chunks")]))
    assert said[0][0] == said[1][0] == said[2][0]
    assert said[0][0]["update"]["payload"]["size_bytes"] > 0
    assert len({str(digests) for _, digests in said}) == 3


@pytest.mark.parametrize("partial", ["keep", "normalise"])
def test_attack_how_many_steps_a_sites_time_sufficed_for_is_not_asked_under_the_unit_site(tmp_path, partial):
    """300 rows did 2,679 steps in three seconds, a million rows 193: signed, and charged nothing."""
    training = {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5, "partial": partial}
    with pytest.raises(ContractError, match="how many rows there are"):
        small_federation.make(tmp_path / "agreed", privacy=SITE, training=training)
    agreed = small_federation.make(tmp_path / "asked", privacy=SITE).plan().plan.agreed
    with pytest.raises(ContractError, match="how many rows there are"):      # a plan that asks for it is no plan
        parse(Agreed, {**agreed.model_dump(), "training": training}, "plan")


def test_no_evaluation_is_asked_or_answered_under_the_unit_site(by_site: SmallFederation):
    by_site.round()
    with pytest.raises(ContractError, match="no counts leave"):
        plan_question(by_site.coordinator, RoundRequest(run="spring"))


def test_a_policy_for_records_refuses_a_plan_for_sites(tmp_path):
    federation = small_federation.make(tmp_path, privacy=SITE, max_epsilon=15.0)
    assert federation.answer("north", federation.plan()) == "refusal"
    assert answer_of(federation, "north", 1)["reason"] == "policy"
    assert book_of(federation, "north").charges == ()


def test_too_small_a_bound_for_records_refuses_a_site_plan_by_budget(tmp_path):
    """The update protects each record, too, but at twice its clip norm: the operator must have allowed that."""
    federation = small_federation.make(tmp_path, privacy=SITE, max_epsilon=5.0, units=("site",), max_epsilon_site=5.0)
    assert federation.answer("north", federation.plan()) == "refusal"
    assert answer_of(federation, "north", 1)["reason"] == "budget"


# -- adaptive clipping ---------------------------------------------------------------------------------------------------


def test_the_clip_norm_follows_the_median_of_what_the_sites_counted(tmp_path):
    adaptive = {"quantile": 0.5, "learning_rate": 1.0, "noise_std": 5.0}
    federation = small_federation.make(tmp_path, privacy={**RECORD, "clip_norm": 100.0, "rounds": 6, "adaptive": adaptive})
    norms = []
    for number in range(1, 4):
        planned = federation.plan()
        assert isinstance(planned.plan.agreed.privacy, RecordPrivacy)
        norms.append(planned.plan.agreed.privacy.clip_norm)
        for name in planned.plan.cohort:
            federation.answer(name, planned)
        said = {name: answer_of(federation, name, number) for name in planned.plan.cohort}
        assert all(body["update"]["mechanism"]["clip_norm"] == norms[-1] for body in said.values())
        federation.commit(planned)
        median = float(np.median([body["update"]["within_clip"] for body in said.values()]))
        following = federation.plan()
        moved = norms[-1] * np.exp(-(min(max(median, 0), 1) - 0.5))
        assert following.plan.agreed.privacy.clip_norm == pytest.approx(moved, rel=1e-5)
        assert federation.plan().digest == following.digest        # composed again after a crash, it is the same plan
    assert norms == sorted(norms, reverse=True), "a hundred is far too long for these gradients"
    assert book_of(federation, "north").charges[0].mechanisms[0].count_noise_std == 5.0


def test_an_adaptive_campaign_stays_within_its_budget(tmp_path):
    federation = small_federation.make(tmp_path, privacy={**RECORD, "rounds": 2, "adaptive": {"noise_std": 4.0}})
    for _ in range(2):
        federation.round()
    assert 6 < ledger.spent(book_of(federation, "north"), DELTA) <= 8.0


def test_other_privacy_in_the_federation_file_begins_anew(tmp_path):
    federation = small_federation.make(tmp_path, privacy={**RECORD, "clip_norm": 50.0, "adaptive": {}})
    federation.round()
    moved = federation.plan().plan.agreed.privacy.clip_norm
    assert moved < 50.0
    path = federation.root / "coordinator" / "federation.toml"
    path.write_text(path.read_text().replace("clip_norm = 50.0", "clip_norm = 2.0").replace("epsilon = 8.0", "epsilon = 7.0"))
    assert federation.plan().plan.agreed.privacy.clip_norm == 2.0


# -- DP-FTRL -------------------------------------------------------------------------------------------------------------


def test_sites_that_cannot_sample_keep_the_same_promise(tmp_path):
    federation = small_federation.make(tmp_path, privacy={**RECORD, "mechanism": "dp_ftrl"})
    for _ in range(3):
        assert len(federation.round().updates) == 3
    mechanism = book_of(federation, "south").charges[0].mechanisms[0]
    assert isinstance(mechanism, DpFtrl)
    assert (mechanism.steps, mechanism.batch_size) == (3, 32)
    assert mechanism.rows == 150                    # 96 a round: in three rounds a record is in two, and pays for two
    assert [charge.times for charge in book_of(federation, "south").charges] == [(1, 1), (1, 1), (0, 1)]
    assert 7 < ledger.spent(book_of(federation, "south"), DELTA) <= 8.0
    assert federation.answer("south", federation.plan()) == "refusal"


def test_an_answer_of_another_mechanism_than_was_asked_is_not_admitted(tmp_path):
    federation = small_federation.make(tmp_path, privacy={**RECORD, "mechanism": "dp_ftrl"})
    planned = federation.plan()
    for name in planned.plan.cohort:
        federation.answer(name, planned)
    federation.lie("east", planned, lambda delta: delta, mechanism=GaussianUpdate(noise_multiplier=1.0, clip_norm=1.0))
    assert set(federation.collect(planned).rejected) == {"east"}
