"""What is asked before a promotion: decisions by group, of one model, on rows held out; noised, charged, and agreed on."""

from __future__ import annotations

import json
import secrets
import shutil

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from fedround import layout
from fedround.agreement import Agreement
from fedround.errors import ContractError, QuorumError
from fedround.learning.evaluate import scores
from fedround.learning.tasks import Scored
from fedround.privacy import ledger
from fedround.privacy.spec import GaussianCounts
from fedround.records import Answer, Measure
from fedround.signing import unseal
from fedround.statistics import Decisions, Groups
from fedround_cli.groups_table import show_groups
from infra.documents import read_tensors
from infra.history import read_checkpoint, read_commit
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from tasks.ask import MeasurementRequest, conclude, plan_question
from tasks.catch_up import catch_up, rebuild
from tasks.compare_groups import compared, question, tell
from tasks.group_thresholds import mitigation
from tasks.report import page, records
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import NAMES, SmallFederation, changed
from tests.tasks.conftest import objects

GROUPS = {"threshold": 0.5, "smallest": 5, "watched": [
    {"of": {"column": "x1", "edges": [0.0]}, "words": ["small", "large"], "noise_std": 2.0},
    {"of": {"column": "sex", "values": ["f", "m"]}, "noise_std": 3.0}]}
CANARY = secrets.token_hex(8)


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """One committed round of a federation that watches two attributes; no feature shows the second. Nobody was asked yet."""
    federation = small_federation.make(tmp_path_factory.mktemp("watching"), max_epsilon=8.0, groups=GROUPS)
    for place, name in enumerate(NAMES):
        for part in ("train", "validation"):
            path = federation.root / "data" / name / f"{part}.parquet"
            frame = pd.read_parquet(path)
            frame["sex"] = np.random.default_rng(place).choice(["f", "m", CANARY], len(frame), p=[0.48, 0.48, 0.04])
            frame.to_parquet(path)
    federation.round()
    return federation


@pytest.fixture
def own(watching: SmallFederation, tmp_path) -> SmallFederation:
    return watching.copy(tmp_path)


@pytest.fixture(scope="module")
def told(watching: SmallFederation, tmp_path_factory) -> SmallFederation:
    """All sites were asked, and it is concluded. Its tests change nothing."""
    own = watching.copy(tmp_path_factory.mktemp("told"))
    ask(own)
    return own


def ask(federation: SmallFederation, sites: tuple[str, ...] = NAMES) -> list[str]:
    planned = plan_question(federation.coordinator, question(federation.coordinator, "spring", 1))
    said = [federation.answer(name, planned) for name in sites]
    conclude(federation.coordinator, planned, federation.collect(planned))
    return said


def head(federation: SmallFederation):
    coordinator = federation.coordinator
    return read_commit(coordinator.store, "spring", 1, coordinator.identity.key).commit


def answer_of(federation: SmallFederation, name: str) -> Answer:
    path = federation.root / "store" / layout.answer(name, "spring", 1, 1, "measure")
    return unseal(path.read_bytes(), Answer, federation.site(name).identity.key, name)


def exact(federation: SmallFederation, name: str) -> list[np.ndarray]:
    """The counts without noise, by a loop over the rows that the site holds out."""
    coordinator, commit = federation.coordinator, head(federation)
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.identity.key)
    model = read_tensors(coordinator.store, commit.model, checkpoint.tensors, "model")
    frame = pd.read_parquet(federation.root / "data" / name / "validation.parquet")
    chance_N = scores(coordinator.recipe, model, coordinator.recipe.encode(frame))["score"]
    by_x1, by_sex = np.zeros((3, 2, 2)), np.zeros((3, 2, 2))
    for (_, row), chance in zip(frame.iterrows(), chance_N, strict=True):
        yes = int(chance >= 0.5)
        by_x1[int(row["x1"] >= 0), int(row["y"]), yes] += 1
        by_sex[{"f": 0, "m": 1}.get(row["sex"], 2), int(row["y"]), yes] += 1
    return [by_x1, by_sex]


# -- what a site says --------------------------------------------------------------------------------------------------


def test_what_leaves_is_the_counts_of_held_out_rows_with_the_agreed_noise(told: SmallFederation):
    for name in NAMES:
        said = answer_of(told, name)
        assert [one.mechanism for one in said.releases] == [GaussianCounts(noise_std=2.0), GaussianCounts(noise_std=3.0)]
        for release, cells in zip(said.releases, exact(told, name), strict=True):
            noise = release.table - cells
            assert 0 < np.abs(noise).max() < 6 * release.noise_std
        assert said.update is None


def test_it_was_set_aside_with_the_campaign_and_stays_within_its_promise(told: SmallFederation):
    """The run's epsilon is spent to the last; still a promotion's question is paid, and nothing else is."""
    for name in NAMES:
        book = ledger.read(told.site(name).ledger)
        train, measured = book.charges
        assert (train.purpose, measured.purpose, measured.campaign) == ("train", "measure", train.campaign)
        assert ledger.held(book, 1e-5, run="spring") <= 8.0
    planned = plan_question(told.coordinator, question_again(told))
    assert told.answer("north", planned) == "refusal"
    assert ledger.read(told.site("north").ledger).charges == (train_of(told), measured_of(told))


def train_of(federation):
    return ledger.read(federation.site("north").ledger).charges[0]


def measured_of(federation):
    return ledger.read(federation.site("north").ledger).charges[1]


def question_again(federation: SmallFederation):
    """The same with other noise: another release, for which nothing was set aside."""
    groups = Groups.model_validate({**GROUPS, "watched": [{**GROUPS["watched"][0], "noise_std": 0.5}]}, strict=False)
    return MeasurementRequest(run="spring", statistics=groups.about(head(federation).model))


def test_nothing_else_of_the_attribute_leaves(told: SmallFederation):
    """A value that only rows have is in no object of the store, and in no bundle's words."""
    for path in (told.root / "store").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in compared(told.coordinator, head(told)).model_dump_json()


def test_a_site_whose_policy_does_not_name_decisions_refuses_and_pays_nothing(own: SmallFederation):
    for name in ("north", "east"):
        path = own.root / name / "policy.toml"
        allowed = load_toml(SitePolicy, path).model_copy(update={"statistics": ("scores", "checks", "group_counts")})
        save_toml(allowed, path, "decisions stay")
    before = len(ledger.read(own.site("north").ledger).charges)
    with pytest.raises(QuorumError):
        ask(own)
    refused = sorted((own.root / "store" / layout.refusals("north", "spring", 1, 1, "measure")).parent.glob("refusal-*"))
    assert "counts of decisions by group do not leave" in json.loads(refused[-1].read_bytes())["body"]["detail"]
    assert len(ledger.read(own.site("north").ledger).charges) == before


def test_a_plan_names_the_model_that_it_is_about_and_no_other(own: SmallFederation):
    plan = own.plan().plan
    other = Decisions(noise_std=2.0, model="0" * 64, of={"column": "sex", "values": ("f",)}, threshold=0.5)
    with pytest.raises(ValidationError, match="decisions of model 0000000000000000 are asked for"):
        type(plan).model_validate(changed(plan, asks=Measure(statistics=(other,))).model_dump())


# -- what the coordinator makes of it ----------------------------------------------------------------------------------


def test_the_finding_is_found_again_by_its_model_and_nobody_is_asked_twice(told: SmallFederation):
    assert question(told.coordinator, "spring", 1) is None
    found = compared(told.coordinator, head(told))
    assert found == compared(told.coordinator, head(told)), "the same finding, the same intervals"
    assert [site.site for site in found.sites] == sorted(NAMES)
    assert {(one.attribute, one.group) for one in found.rates} == {
        ("x1", "small"), ("x1", "large"), ("x1", "missing"), ("sex", "f"), ("sex", "m"), ("sex", "other")}
    cells_G22 = np.sum([exact(told, name)[0] for name in NAMES], axis=0)
    for group in (0, 1):
        selected = cells_G22[group, :, 1].sum() / cells_G22[group].sum()
        assert found.rates[group].selection.value == pytest.approx(selected, abs=0.25), "noise of five standard deviations"
    assert found.gap("demographic_parity").high > 0
    assert verify_run(told.coordinator.store, "spring", told.coordinator.identity.key)


def test_the_terminal_shows_groups_and_gaps_and_of_whom_too_little_is_known(told: SmallFederation, capsys):
    show_groups(compared(told.coordinator, head(told)), "demographic_parity")
    shown = capsys.readouterr().out
    assert "x1: small" in shown
    assert "gaps in demographic parity" in shown
    of_whom = " ".join(shown.split()).partition("too few records to say everything of: ")[2]
    assert {"x1 missing", "sex other"} <= set(of_whom.split(", ")), "of whom else, the noise decides"


def test_an_older_round_is_not_asked_about(own: SmallFederation):
    own.round()
    assert question(own.coordinator, "spring", 1) is None
    assert question(own.coordinator, "spring", 2) is not None
    assert compared(own.coordinator, head(own)) is None


def test_where_nothing_is_watched_nobody_is_asked(federation: SmallFederation):
    federation.round()
    assert question(federation.coordinator, "spring", 1) is None
    assert compared(federation.coordinator, head(federation)) is None


def test_the_round_that_was_compared_shows_it_on_its_page_and_so_do_the_rounds_after_it(own: SmallFederation):
    ask(own)
    catch_up(own.coordinator, "spring")
    tell(own.coordinator, head(own))
    shown = page(own.coordinator, "spring", 1).read_text()
    assert "Groups, by the model of round 1" in shown
    assert shown.count("<circle class=\"dot\"") >= 4
    assert "large" in shown
    own.round()
    catch_up(own.coordinator, "spring")
    assert "Groups, by the model of round 1" in page(own.coordinator, "spring", 2).read_text()
    before = records(own.coordinator, "spring")
    shutil.rmtree(own.coordinator.reports / "spring")
    list(rebuild(own.coordinator, "spring"))
    assert records(own.coordinator, "spring")[0].fairness == before[0].fairness, "it is in the bucket"


@pytest.mark.parametrize(("changes", "says"), [
    ({"groups": {**GROUPS, "watched": []}}, "at least 1"),
    ({"groups": {**GROUPS, "watched": GROUPS["watched"][:1] * 2}}, "watched twice"),
    ({"groups": {**GROUPS, "watched": [{**GROUPS["watched"][0], "words": ["one"]}]}}, "2 groups and 1 word for them"),
    ({"groups": {**GROUPS, "watched": [{**GROUPS["watched"][0], "noise_std": 0}]}}, "without noise keep no promise"),
    ({"privacy": {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}, "groups": GROUPS},
     "under the unit 'site' no counts leave")])
def test_what_cannot_be_agreed_on_is_a_sentence(changes: dict, says: str):
    with pytest.raises(ValidationError, match=says):
        Agreement.model_validate_json(json.dumps(small_federation.settings(**changes)))


# -- a mitigation ------------------------------------------------------------------------------------------------------


def test_thresholds_chosen_on_public_rows_close_the_gap_there_and_ask_no_site(own: SmallFederation, monkeypatch):
    coordinator = own.coordinator
    before = objects(coordinator.store)
    x1_N = pd.read_parquet(coordinator.folder / coordinator.settings.test_set)["x1"].to_numpy()
    y_N = (x1_N + np.random.default_rng(0).normal(size=len(x1_N)) > 0).astype(np.int64)
    scored = Scored({"score": 1 / (1 + np.exp(-2 * x1_N)), "truth": y_N})
    monkeypatch.setattr("tasks.group_thresholds.public_scores", lambda *_: scored)
    found = mitigation(coordinator, "spring", 1, "x1", "demographic_parity")
    assert objects(coordinator.store) == before
    assert found.before.gaps["demographic_parity"] > 0.3
    assert found.after.gaps["demographic_parity"] < 0.05
    assert found.after.accuracy < found.before.accuracy, "x1 explains the label"
    assert found.after.selected == pytest.approx(found.before.selected, abs=0.05)
    small, large, missing = found.own.at
    assert (small < 0.5 < large, missing) == (True, 0.5)
    with pytest.raises(ContractError, match="does not watch 'x2'"):
        mitigation(coordinator, "spring", 1, "x2", "demographic_parity")
    with pytest.raises(ContractError, match="no column 'sex'"):
        mitigation(coordinator, "spring", 1, "sex", "demographic_parity")


def test_where_thresholds_are_agreed_sites_count_by_them():
    """One table for all: whoever is asked by other thresholds is asked something else."""
    own = {"of": {"column": "x1", "edges": [0.0]}, "at": [0.2, 0.9, 0.5]}
    plain, told = (Groups.model_validate_json(json.dumps({**GROUPS, **more})) for more in ({}, {"own": own}))
    assert plain.about("0" * 64) != told.about("0" * 64)
    assert {one.columns for one in told.about("0" * 64)} == {("x1",), ("sex", "x1")}
    with pytest.raises(ValidationError, match="3 groups, all others included, and 2"):
        Groups.model_validate_json(json.dumps({**GROUPS, "own": {**own, "at": [0.1, 0.2]}}))
