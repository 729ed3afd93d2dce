"""Which columns matter at the sites: asked about one model, charged, refused where not allowed, told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from fedround import layout
from fedround.errors import ContractError, QuorumError
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.replaced import replaced
from fedround.privacy import ledger
from fedround.privacy.spec import GaussianCounts
from fedround.records import Answer
from fedround.signing import unseal
from fedround_cli import campaign
from infra.history import read_commit
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from tasks.ask import MeasurementRequest, conclude, plan_question
from tasks.catch_up import catch_up
from tasks.explain import _whole, explained
from tasks.importance import question
from tasks.report import page
from tasks.verify import verify_run
from tests import small_federation
from tests.small_federation import NAMES, RECIPE, SmallFederation, changed
from tests.tasks.conftest import objects
from tests.tasks.test_explain import fedround

NOISE = 1.5
DECLARED = '''"""Amounts, of columns that are declared."""
from torch import nn
from fedround.learning.columns import Numeric
from fedround.learning.tasks import Regress

NAME = "amounts"
COLUMNS = (Numeric("x1", low=-9, high=9), Numeric("x2", low=-9, high=9))
TARGET = "y"
TASK = Regress(bounds=(0.0, 1.0))


def build_model(features):
    return nn.Linear(features, 1)
'''


def make(root: Path, recipe: str) -> SmallFederation:
    """One committed round; the sites' rows to train on and held out pay apart, and policies allow the question."""
    federation = small_federation.make(root, recipe=recipe, apart=True)
    for name in NAMES:
        path = root / name / "policy.toml"
        policy = load_toml(SitePolicy, path)
        save_toml(policy.model_copy(update={"purposes": ("train", "evaluate", "measure"),
                                            "statistics": (*policy.statistics, "importance")}), path, "columns, too")
    federation.round()
    return federation


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    return make(tmp_path_factory.mktemp("columns"), RECIPE)


@pytest.fixture(scope="module", params=[RECIPE, DECLARED], ids=["two classes", "a number"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
         rows_are_judged_here: None) -> SmallFederation:
    """All sites were asked. Its tests change nothing."""
    federation = make(tmp_path_factory.mktemp("told"), request.param)
    ask(federation)
    return federation


def ask(federation: SmallFederation, noise_std: float = NOISE) -> list[str]:
    planned = plan_question(federation.coordinator, question(federation.coordinator, "spring", 1, noise_std))
    said = [federation.answer(name, planned) for name in NAMES]
    conclude(federation.coordinator, planned, federation.collect(planned))
    return said


def answer_of(federation: SmallFederation, name: str) -> Answer:
    path = federation.root / "store" / layout.answer(name, "spring", 1, 1, "measure")
    return unseal(path.read_bytes(), Answer, federation.site(name).identity.key, name)


def test_what_leaves_is_what_the_task_says_of_held_out_rows_with_columns_of_public_rows(told: SmallFederation):
    """The recipe and the model on changed rows, table by table, and the noise that was asked for."""
    coordinator = told.coordinator
    model = _whole(coordinator, read_commit(coordinator.store, "spring", 1, coordinator.identity.key).commit)
    for name in NAMES:
        release, = answer_of(told, name).releases
        asked = release.statistic
        assert release.mechanism == GaussianCounts(noise_std=NOISE)
        assert [one.column for one in asked.of] == ["x1", "x2"]
        held_out = coordinator.recipe.encode(pd.read_parquet(told.root / "data" / name / "validation.parquet"))
        public_KP, key = np.array(asked.public), bytes.fromhex(asked.model)
        for table, places in zip(release.table, [None, *(one.places for one in asked.of)], strict=True):
            rows = held_out if places is None else replaced(held_out, public_KP, places, key)
            found = scores(coordinator.recipe, model, rows)
            cells = asked.judged.cells(_Told(found)) if asked.judged.kind == "scores" else (
                coordinator.recipe.task.summands(found).sum(axis=0))
            noise = (table - cells) / asked.judged.scale
            assert 0 < np.abs(noise).max() < 6 * asked.noise_of_one


class _Told:
    def __init__(self, found):
        self.scores = lambda: found


def test_public_values_are_those_of_public_rows_and_only_what_a_column_makes_is_its_own(told: SmallFederation):
    coordinator = told.coordinator
    asked, = question(coordinator, "spring", 1, NOISE).statistics
    encoded = coordinator.recipe.encode(pd.read_parquet(coordinator.folder / "test.parquet"))
    assert len(asked.public) == 100
    assert (np.array(asked.public, np.float32) == encoded.table_NF[:100]).all()
    places = [place for one in asked.of for place in one.places]
    assert sorted(places) == list(range(encoded.table_NF.shape[1]))
    assert question(coordinator, "spring", 1, NOISE, ["x2"]).statistics[0].of == asked.of[1:]


def test_held_out_rows_pay_and_the_whole_run_is_proven_with_it(told: SmallFederation):
    for name in NAMES:
        book = ledger.read(told.site(name).ledger)
        assert book.charges[-1].mechanisms == (GaussianCounts(noise_std=NOISE),)
        assert book.charges[-1].rows == ("validation",)
    *_, proof = verify_run(told.coordinator.store, "spring", told.coordinator.identity.key)
    assert [(one.asked, one.answers) for one in proof.findings] == [("measure", tuple(sorted(NAMES)))]


def test_another_processors_last_bit_is_no_new_question(told: SmallFederation):
    """Edges between scores come from the model. They are no reason to ask, and to charge, everybody again."""
    asked, = question(told.coordinator, "spring", 1, NOISE).statistics
    standing = plan_question(told.coordinator, MeasurementRequest(run="spring", statistics=(asked,)))
    if asked.judged.kind == "scores":
        edges = tuple(float(np.nextafter(edge, 1)) for edge in asked.judged.edges)
        assert edges
        asked = asked.model_copy(update={"judged": asked.judged.model_copy(update={"edges": edges})})
    again = plan_question(told.coordinator, MeasurementRequest(run="spring", statistics=(asked,)))
    assert (again.plan, again.digest) == (standing.plan, standing.digest)


def test_a_column_matters_at_the_sites_as_it_does_without_noise(told: SmallFederation):
    """The noise-free drop of all sites' rows, changed in the same way, lies within twice what is told of the noise."""
    coordinator = told.coordinator
    found = explained(coordinator, "spring", 1).at_sites
    asked, = question(coordinator, "spring", 1, NOISE).statistics
    model = _whole(coordinator, read_commit(coordinator.store, "spring", 1, coordinator.identity.key).commit)
    frame = pd.concat([pd.read_parquet(told.root / "data" / name / "validation.parquet") for name in NAMES])
    rows, task = coordinator.recipe.encode(frame), coordinator.recipe.task

    def worth(examples: Examples) -> float:
        return task.worth(scores(coordinator.recipe, model, examples))

    assert found is not None
    assert found.sites == 3
    for one in asked.of:
        exact = worth(rows) - worth(replaced(rows, np.array(asked.public), one.places, bytes.fromhex(asked.model)))
        said, = (drop for drop in found.drops if drop.column == one.column)
        assert abs(said.value - exact) < 2 * said.margin + 0.03     # and what the width of a bin hides


def test_who_does_not_allow_it_is_not_asked_twice_and_pays_nothing(two_classes: SmallFederation, tmp_path: Path):
    own = two_classes.copy(tmp_path)
    for name in NAMES:
        path = own.root / name / "policy.toml"
        save_toml(load_toml(SitePolicy, path).model_copy(update={"statistics": ("scores", "checks")}), path, "not that")
    before = [ledger.read(own.site(name).ledger).head for name in NAMES]
    with pytest.raises(QuorumError, match="how good the model is with columns replaced do not leave here"):
        ask(own)
    assert [ledger.read(own.site(name).ledger).head for name in NAMES] == before
    assert explained(own.coordinator, "spring", 1).at_sites is None


def test_more_than_the_run_promises_is_refused(two_classes: SmallFederation, tmp_path: Path):
    with pytest.raises(QuorumError, match=r"\(budget: "):
        ask(two_classes.copy(tmp_path), noise_std=0.3)


def test_a_plan_is_about_the_model_that_is_asked_about_and_of_its_task(two_classes: SmallFederation, tmp_path: Path):
    own = two_classes.copy(tmp_path)
    planned = plan_question(own.coordinator, question(own.coordinator, "spring", 1, NOISE))
    asked, = planned.plan.asks.statistics
    three = asked.judged.model_copy(update={"outcomes": ("a", "b", "c")})
    for lie, says in (({"model": "0" * 64}, "importance of model"), ({"judged": three}, "say nothing about")):
        asks = planned.plan.asks.model_copy(update={"statistics": (asked.model_copy(update=lie),)})
        with pytest.raises(ValidationError, match=says):
            type(planned.plan).model_validate(changed(planned.plan, asks=asks).model_dump())


def test_what_cannot_be_asked_is_said(two_classes: SmallFederation, tmp_path: Path):
    own = two_classes.copy(tmp_path)
    with pytest.raises(ContractError, match="nothing of a column 'age'; it knows x1, x2"):
        question(own.coordinator, "spring", 1, NOISE, ["age"])
    with pytest.raises(ContractError, match="noise"):
        question(own.coordinator, "spring", 1, -1.0)
    own.round()
    with pytest.raises(ContractError, match="has round 2: ask about that one"):
        question(own.coordinator, "spring", 1, NOISE)


def test_the_command_asks_once_and_the_page_shows_it(two_classes: SmallFederation, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch):
    own, seen = two_classes.copy(tmp_path), []
    monkeypatch.setenv("COLUMNS", "140")
    catch_up(own.coordinator, "spring")

    async def carry_out(coordinator: object, flow: str, asked: dict, *, quiet: bool = False) -> None:
        def concluded() -> None:
            planned = plan_question(own.coordinator, MeasurementRequest.model_validate_json(json.dumps(asked)))
            for name in NAMES:
                own.answer(name, planned)
            conclude(own.coordinator, planned, own.collect(planned))

        seen.append(flow)
        await asyncio.to_thread(concluded)

    monkeypatch.setattr(campaign, "show_campaign", carry_out)
    wanted = ("models", "explain", "spring/round-00001", "-c", own.coordinator.folder, "--at-sites", "--noise", str(NOISE))
    text = " ".join(fedround(*wanted).split())
    for words in ("columns at the sites", "loss if replaced", "At 3 sites", "100 public rows"):
        assert words in text, words
    before = objects(own.coordinator.store)
    drops = json.loads(fedround(*wanted, "--json"))["at_sites"]["drops"]
    assert {one["column"] for one in drops} == {"x1", "x2"}
    assert seen == ["federated-measurement"]
    assert objects(own.coordinator.store) == before, "asked before: nobody is asked again"
    shown = page(own.coordinator, "spring", 1).read_text()
    assert "Loss if a column is replaced, at the sites" in shown
