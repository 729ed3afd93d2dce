"""Simulation equals production: the same campaign, simulated and run live, gives the same model bytes in every round.

Live: three to seven sites in folders of their own, with keys, ledgers, policies and a store (`tests.small_federation`). The
simulator gets the sites' noise secrets, so it draws what they drew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from fedround import codec
from fedround.agreement import Agreement
from fedround.learning.recipe import load_recipe
from fedround.privacy import ledger
from fedround.privacy.noise import stream
from fedround.selection import Chance
from fedround.signing import digest
from fedround.simulation.campaign import simulate
from fedround.simulation.measuring import measure
from fedround.simulation.result import Result
from fedround.simulation.sites import Site
from fedround.statistics import WORDS, GroupCounts, Histogram, Levels, Scores
from infra.history import read_commit, read_plan
from infra.settings import load_toml, save_toml
from site_workers.policy import SitePolicy
from site_workers.rows import read_columns, read_site_rows
from tasks.ask import MeasurementRequest, conclude, plan_question
from tests import small_federation
from tests.small_federation import SmallFederation

pytestmark = pytest.mark.usefixtures("rows_are_judged_here")

RECORD = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 4}
NONE = {"unit": "none"}
MEAN = {"rule": {"name": "weighted_mean"}}
SEVEN = ("north", "east", "south", "west", "hill", "vale", "isle")
RUN = "spring"


def of(private) -> tuple[bytes, ...]:
    return (hashlib.sha256(codec.encode(private)).digest(),) if private else ()


@dataclass(frozen=True)
class OfSite:
    """What one live site draws for one plan: its secret, the plan, its rows, and what else the release depends on."""

    secret: bytes
    plan: str
    rows: bytes

    def _stream(self, *purpose: bytes):
        return stream(self.secret, self.plan.encode(), self.rows, *purpose)

    def statistic(self, place: int, private):
        return self._stream(b"statistic", bytes([place]), *of(private))

    def training(self, shift_D, private):
        return self._stream(b"training", *(() if shift_D is None else (shift_D.tobytes(),)), *of(private))

    def compression(self):
        return self._stream(b"compression")

    def personal(self):
        return self._stream(b"personal")


@dataclass(frozen=True)
class Live:
    """What a live federation drew."""

    federation: SmallFederation
    asked: str | None = None
    """The plan of a question that made no model; None: every round's own."""

    def initial(self) -> int:
        return int(digest(f"{self.federation.coordinator.federation.name}/{RUN}".encode())[:8], 16)

    def cohort(self, number: int, names: Sequence[str], count: int) -> tuple[str, ...]:
        return tuple(names)

    def selection(self, number: int) -> Chance:
        federation = self.federation.coordinator.federation
        return Chance("fedround selection", federation.name, federation.coordinator, RUN, number, 1)

    def _plan(self, number: int) -> str:
        if self.asked is not None:
            return self.asked
        coordinator = self.federation.coordinator
        return read_commit(coordinator.store, RUN, number, coordinator.identity.key).commit.plan

    def of(self, number: int, site: str) -> OfSite:
        running = self.federation.site(site)
        return OfSite(running.noise_secret, self._plan(number), read_site_rows(running).digest)

    def together(self, number: int, chunk: int) -> int:
        return chunk

    def plan(self, number: int) -> bytes:
        return bytes.fromhex(self._plan(number))

    def root(self, number: int):
        return stream(bytes(32), self._plan(number).encode(), b"root set")


def world(federation: SmallFederation):
    """What was agreed, the recipe, and the sites with their rows."""
    agreed, recipe = federation.coordinator.federation, load_recipe(federation.root / "agreed" / "recipe.py")
    sites = {}
    for name in federation.names:
        site = federation.site(name)
        found, columns = read_site_rows(site), read_columns(site, ("x1", "x2", "y"))
        sites[name] = Site(found.train, found.validation, agreed.site(name).weight, columns)
    return Agreement.model_validate(agreed.model_dump(include=set(Agreement.model_fields))), recipe, sites


def simulated(federation: SmallFederation, rounds: int, *, apart: bool = False):
    """The campaign with the live federation's draws."""
    agreement, recipe, sites = world(federation)
    test = recipe.encode(pd.read_parquet(federation.root / "agreed" / "test.parquet"))
    root = federation.root / "coordinator" / "root.parquet"
    return simulate(agreement, recipe, sites, rounds=rounds, chance=Live(federation), test=test,
                    root=recipe.encode(pd.read_parquet(root)) if root.exists() else None, apart=apart)


def assert_same(federation: SmallFederation, rounds: int = 2, *, apart: bool = False) -> Result:
    """The last model continues all others, so it alone is compared. rounds: three where one leaves to the next what it made
    of what the one before had left. Returns the simulated campaign.
    """
    torch.set_num_threads(1)
    commits = [federation.round(RUN) for _ in range(rounds)]
    found = simulated(federation, rounds, apart=apart)
    assert digest(codec.encode(found.model)) == commits[-1].model
    assert len({commit.model for commit in commits}) == rounds
    return found


@pytest.mark.parametrize(("privacy", "rounds"), [
    (NONE, 2), ({**RECORD, "mechanism": "dp_ftrl"}, 3), ({**RECORD, "adaptive": {}}, 3), ({**RECORD, "unit": "site"}, 2)],
    ids=["none", "ftrl", "adaptive", "site"])
def test_under_every_privacy(tmp_path: Path, privacy, rounds):
    """Noise for a record is in all tests below."""
    unit = privacy["unit"]
    assert_same(small_federation.make(
        tmp_path / "live", privacy=privacy, units=(unit,), aggregation=MEAN, max_epsilon=100.0,
        max_epsilon_site=8.0 if unit == "site" else None), rounds)


def test_where_rows_to_train_on_and_rows_held_out_pay_apart(tmp_path: Path):
    """Less noise, the same bytes, and the epsilon that every site's ledger has set aside."""
    promise = {**RECORD, "epsilon": 2.0, "rounds": 2}
    federation = small_federation.make(tmp_path / "live", privacy=promise, aggregation=MEAN, apart=True,
                                       evaluation={"bins": 10, "noise_std": 4.0})
    found = assert_same(federation, apart=True)
    books = [ledger.read(federation.site(name).ledger) for name in federation.names]
    assert found.epsilon == max(ledger.held(book, 1e-5) for book in books) <= 2.0
    for name, mechanism in simulated(federation, 2).mechanisms.items():
        assert mechanism.noise_multiplier > 1.3 * found.mechanisms[name].noise_multiplier


@pytest.mark.parametrize("optimizer", [
    {"name": "fedavg"}, {"name": "fedavg", "momentum": 0.9, "learning_rate": 0.7},
    {"name": "fedadagrad", "learning_rate": 0.1}, {"name": "fedadam", "learning_rate": 0.1},
    {"name": "fedyogi", "learning_rate": 0.1}], ids=lambda value: value["name"])
def test_with_every_server_optimizer(tmp_path: Path, optimizer):
    assert_same(small_federation.make(tmp_path / "live", privacy=RECORD, optimizer=optimizer, aggregation=MEAN),
                rounds=2 if optimizer == {"name": "fedavg"} else 3)


@pytest.mark.parametrize(("training", "rounds"), [
    ({"algorithm": {"name": "fedprox", "mu": 0.1}}, 2), ({"algorithm": {"name": "scaffold"}}, 3), ({"optimizer": "adam"}, 2),
    ({"momentum": 0.5, "partial": "normalise"}, 2)], ids=["fedprox", "scaffold", "adam", "momentum"])
def test_with_every_local_algorithm(tmp_path: Path, training, rounds):
    training = {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5, **training}
    assert_same(small_federation.make(tmp_path / "live", privacy=RECORD, training=training, aggregation=MEAN), rounds)


@pytest.mark.parametrize("compression", [
    {"name": "quantised", "bits": 8}, {"name": "top_k", "share": 0.3}, {"name": "count_sketch", "size": 0.5, "share": 0.2}],
    ids=lambda value: value["name"])
def test_with_every_compression(tmp_path: Path, compression):
    assert_same(small_federation.make(tmp_path / "live", privacy=RECORD, compression=compression, aggregation=MEAN))


@pytest.mark.parametrize("privacy", [NONE, RECORD], ids=["none", "record"])
def test_with_the_default_rule_and_its_history(tmp_path: Path, privacy):
    """Seven sites of which the default bears one liar: gate, mixing, trimmed mean and, with noise, a moving average."""
    federation = small_federation.make(
        tmp_path / "live", names=SEVEN, privacy=privacy, units=(privacy["unit"],), aggregation=None, quorum=5)
    assert federation.coordinator.federation.how_to_aggregate().history == (0.5 if privacy is RECORD else 0.0)
    assert_same(federation, rounds=3)


@pytest.mark.parametrize("rule", [
    {"rule": {"name": "centered_clipping", "radius": 0.1}},
    {"mixing": [{"name": "bucketing", "size": 2}], "rule": {"name": "coordinate_median"}},
    {"rule": {"name": "weighted_mean"}, "fairness": {"name": "q_ffl", "q": 2.0, "cap": 3.0}},
    {"rule": {"name": "weighted_mean"}, "fairness": {"name": "afl", "rate": 0.3, "cap": 3.0}}],
    ids=["clipping", "bucketing", "q_ffl", "afl"])
def test_with_rules_that_remember_draw_or_weigh(tmp_path: Path, rule):
    assert_same(small_federation.make(tmp_path / "live", privacy=RECORD, aggregation=rule), rounds=3)


@pytest.mark.parametrize("parts", [{"private": ["2.*"]}, {"frozen": ["0.*"]}], ids=["private", "frozen"])
def test_with_parts_that_do_not_travel(tmp_path: Path, parts):
    assert_same(small_federation.make(tmp_path / "live", privacy=RECORD, parts=parts, aggregation=MEAN))


@pytest.mark.parametrize("parts", [{}, {"frozen": ["0.*"]}], ids=["all travels", "frozen"])
def test_with_personal_models_beside_it(tmp_path: Path, parts):
    """The shared model's bytes, and those that every site keeps for itself."""
    federation = small_federation.make(tmp_path / "live", privacy=RECORD, aggregation=MEAN, parts=parts,
                                       personal={"name": "ditto", "pull": 0.1})
    found = assert_same(federation, rounds=3)
    for name in federation.names:
        kept = (federation.root / name / "kept" / RUN / "personal" / "00003-01.safetensors").read_bytes()
        assert codec.encode(found.personal[name]) == kept
    assert set(found.personal_at_sites) == set(federation.names)


def test_where_sites_choose_among_models(tmp_path: Path):
    """By the same noised scores, so the same models, and the same choices in the last round."""
    federation = small_federation.make(tmp_path / "live", privacy=RECORD, optimizer={"name": "fedavg"}, aggregation=MEAN,
                                       evaluation={"bins": 10, "noise_std": 5.0, "clusters": 2})
    found = assert_same(federation)
    store, key = federation.coordinator.store, federation.coordinator.key
    assert found.picked == {update.site: update.cluster for update in read_commit(store, RUN, 2, key).commit.updates}


def test_a_question_that_makes_no_model(tmp_path: Path):
    """Every number that each site released, and what all say together."""
    federation = small_federation.make(tmp_path / "live", privacy=RECORD, aggregation=MEAN, max_epsilon=100.0)
    federation.round(RUN)
    statistics = (Histogram(column="x1", edges=(-1.0, 0.0, 1.0), noise_std=4.0),
                  GroupCounts(by=(Levels(column="y", values=(0, 1)),), noise_std=6.0), Scores(bins=5, noise_std=3.0))
    for name in federation.names:
        path = federation.root / name / "policy.toml"
        save_toml(load_toml(SitePolicy, path).model_copy(update={
            "purposes": ("train", "evaluate", "measure"), "statistics": (*WORDS, "checks")}), path, "changed")
    planned = plan_question(federation.coordinator, MeasurementRequest(run=RUN, statistics=statistics))
    assert {federation.answer(name, planned) for name in federation.names} == {"answer"}
    collected = federation.collect(planned)
    finding = conclude(federation.coordinator, planned, collected)
    model = simulated(federation, 1).model
    found = measure(*world(federation), statistics, chance=Live(federation, planned.digest), number=1, model=model)
    assert found.at_sites == {name: answer.releases for name, answer in collected.answers.items()}
    assert found.totals == finding.totals
    assert len({release.numbers for releases in found.at_sites.values() for release in releases}) == 9


def test_other_rows_give_another_model(tmp_path: Path):
    """So the comparison can fail."""
    federation = small_federation.make(tmp_path / "live", privacy=RECORD, aggregation=MEAN)
    commit = federation.round(RUN)
    assert digest(codec.encode(simulated(federation, 1).model)) == commit.model
    rows = pd.read_parquet(federation.root / "data" / "east" / "train.parquet")
    rows.iloc[1:].to_parquet(federation.root / "data" / "east" / "train.parquet")
    assert digest(codec.encode(simulated(federation, 1).model)) != commit.model


def test_late_answers(tmp_path: Path):
    """Four rounds in which east answers one round late and south two: live by hand, simulated by a clock."""
    torch.set_num_threads(1)
    federation = small_federation.make(
        tmp_path / "federation", privacy=RECORD, quorum=1, enough=1, pace={"max_age": 3},
        compression={"name": "top_k", "share": 0.5}, aggregation={"rule": {"name": "weighted_mean"}})
    order = [("north",), ("north", "east"), ("north", "south"), ("north", "east")]
    commits = []
    for names in order:
        planned = federation.plan(RUN)
        for name in names:
            federation.answer(name, planned.of(name))
        commits.append(federation.commit(planned).commit)
    assert [[(one.site, one.ticket) for one in commit.updates] for commit in commits] == [
        [("north", None)], [("east", 1), ("north", None)], [("north", None), ("south", 1)], [("east", 3), ("north", None)]]
    agreement, recipe, sites = world(federation)
    found = simulate(agreement, recipe, sites, rounds=4, chance=Live(federation),
                     seconds={"north": 1.0, "east": 2.0, "south": 3.0})
    assert digest(codec.encode(found.model)) == commits[-1].model
    assert [len(one.answered) for one in found.rounds] == [1, 2, 2, 2]


STEPS = {"local_steps": 4, "batch_size": 32, "learning_rate": 0.5}


@pytest.mark.parametrize("selection", [
    {"name": "random", "sites": 3, "within": 3}, {"name": "reliable", "sites": 3},
    {"name": "power_of_choice", "sites": 3, "candidates": 5, "within": 3}], ids=lambda value: value["name"])
def test_whom_each_round_asks(tmp_path: Path, selection):
    """The same members, by the losses that their noised counts told, and the same bytes."""
    federation = small_federation.make(tmp_path / "live", names=SEVEN, quorum=3, privacy=RECORD, aggregation=MEAN,
                                       selection=selection, evaluation={"bins": 10, "noise_std": 3.0})
    found = assert_same(federation, rounds=4)
    store, key = federation.coordinator.store, federation.coordinator.identity.key
    plans = [read_plan(store, read_commit(store, RUN, number, key).commit, key) for number in range(1, 5)]
    assert [set(one.unasked) for one in found.rounds] == [set(plan.unasked) for plan in plans]
    assert len({plan.cohort for plan in plans}) > 1
    assert sum(part.asked for part in found.participation.parts) == 12


@pytest.mark.parametrize(("rule", "levels"), [
    ({"name": "decay", "every": 1}, 3), ({"name": "decay", "of": "local_steps", "every": 1}, 3),
    ({"name": "plateau", "of": "local_steps", "patience": 1, "least": 0.1}, 2)], ids=["rate", "steps", "plateau"])
def test_rules_of_training(tmp_path: Path, rule, levels):
    """A plateau is seen in the noised scores: the rate is too small for any gain."""
    rate = 1e-6 if rule["name"] == "plateau" else 0.5
    federation = small_federation.make(tmp_path / "live", privacy=RECORD, aggregation=MEAN,
                                       evaluation={"bins": 10, "noise_std": 3.0},
                                       training={**STEPS, "learning_rate": rate, "rule": rule})
    assert_same(federation, rounds=3)
    store, key = federation.coordinator.store, federation.coordinator.identity.key
    trained = {read_commit(store, RUN, number, key).commit.agreed.training for number in (1, 2, 3)}
    assert len(trained) == levels, "so the rule has acted"


def test_a_slow_site_that_does_fewer_steps(tmp_path: Path):
    """East needs 20 of the 60 s for a step, by its own notes: it does one of four, and its noise is made for one."""
    federation = small_federation.make(tmp_path / "live", privacy=RECORD, aggregation=MEAN,
                                       training={**STEPS, "partial": "normalise", "fewest_steps": 1})
    torch.set_num_threads(1)
    site = federation.site("east")
    (site.folder / "speed.json").write_text(json.dumps(
        {"recipe": site.recipe.digest, "batch_size": 32, "seconds_a_step": 20.0}))
    commits = [federation.round(RUN) for _ in range(2)]
    agreement, recipe, sites = world(federation)
    found = simulate(agreement, recipe, sites, rounds=2, chance=Live(federation),
                     seconds={"north": 1.0, "east": 80.0, "south": 1.0})
    assert digest(codec.encode(found.model)) == commits[-1].model
    assert {name: one.steps for name, one in found.mechanisms.items()} == {"north": 4, "east": 1, "south": 4}
