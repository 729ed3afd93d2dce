"""A small federation whose members' numbers are added up under masks; a question goes its whole way without waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fedround.errors import Cancelled
from fedround.records import Finding
from infra.history import Committed
from infra.settings import load_toml, save_toml
from site_workers import round as site_round
from site_workers.policy import SitePolicy
from tasks.aggregate import aggregate
from tasks.ask import MeasurementRequest, conclude, find, plan_question
from tasks.collect import collect, have_answered
from tasks.collected import Collected
from tasks.plan import Planned
from tasks.publish import publish
from tasks.requests import NextRoundRequest
from tasks.setting_up import next_question
from tasks.unmask import plan_countersign, plan_reveal, suffices, unmask_sum
from tests import small_federation
from tests.small_federation import LABELS, NAMES, X1, SmallFederation

HOW = {"name": "secure_sum", "threshold": 2, "dropouts": 1, "colluders": 0}
STEP = {"name": "union_step", "batch_size": 200, "learning_rate": 0.5}


class Summing(SmallFederation):
    """The folders of everybody; questions go their way step by step."""

    def answer(self, name: str, planned: Planned, running: object = None) -> str:
        """One site answers in a process that ends before anybody asks it to reveal."""
        plan = planned.plan
        try:
            return site_round.answer(running or self.site(name), site_round.SiteRequest(
                run=plan.run, round=plan.round, attempt=plan.attempt, purpose=plan.asks.kind), lambda: True).message
        except Cancelled:
            return "waits"

    def copy(self, root: Path) -> Summing:
        """As `SmallFederation`."""
        return Summing(super().copy(root).root, self.names)

    def keys(self, run: str = "spring", sites: tuple[str, ...] | None = None) -> None:
        """Keys are set up, if none stand. sites: who answers."""
        while (planned := next_question(self.coordinator, NextRoundRequest(run=run))) is not None:
            for name in planned.plan.cohort if sites is None else sites:
                self.answer(name, planned)
            conclude(self.coordinator, planned, self.collect(planned))

    def ask(self, *statistics: object, run: str = "spring") -> Planned:
        """A question about rows, published."""
        return plan_question(self.coordinator, MeasurementRequest(run=run, statistics=statistics or (X1, LABELS)))

    def revealing(self, planned: Planned, answers: Collected | None = None,
                  sites: tuple[str, ...] | None = None, signing: tuple[str, ...] | None = None) -> Collected:
        """The answers that are there, and what their sites reveal. sites: who does; None: all who are asked. signing: who
        signs before, where members do.
        """
        coordinator = self.coordinator
        answers = answers or self.collect(planned)
        listed, signed = None, None
        if planned.plan.agreed.combine.is_signed:
            listed = plan_countersign(coordinator, planned, answers)
            for name in listed.plan.cohort if signing is None else signing:
                self.answer(name, planned)
            signed = self.collect(listed)
        reveal = plan_reveal(coordinator, planned, answers, listed, signed)
        for name in reveal.plan.cohort if sites is None else sites:
            self.answer(name, planned)
        said = asyncio.run(collect(
            coordinator, reveal, lambda among: have_answered(coordinator, reveal, among | set()), lambda _: None,
            enough=lambda so_far: suffices(coordinator, planned, reveal, so_far)))
        return unmask_sum(coordinator, planned, answers, reveal, said)

    def concluded(self, *statistics: object, run: str = "spring", sites: tuple[str, ...] = NAMES) -> Finding:
        """A question goes its whole way."""
        self.keys(run)
        planned = self.ask(*statistics, run=run)
        for name in sites:
            self.answer(name, planned)
        return conclude(self.coordinator, planned, self.revealing(planned))

    def train(self, run: str = "spring", sites: tuple[str, ...] = NAMES) -> Committed:
        """A round goes its whole way."""
        self.keys(run)
        coordinator, planned = self.coordinator, self.plan(run)
        for name in sites:
            self.answer(name, planned)
        collected = self.revealing(planned)
        return publish(coordinator, planned, collected, aggregate(coordinator, planned, collected))

    def found(self, planned: Planned) -> Finding | None:
        """Its finding, if it has one."""
        return find(self.coordinator, planned)


def make(root: Path, **changes: object) -> Summing:
    """Three sites, who may all be asked; one may be missing."""
    made = small_federation.make(root, **{"combine": HOW, "training": STEP, "aggregation": None, **changes})
    for name in made.names:
        path = root / name / "policy.toml"
        save_toml(load_toml(SitePolicy, path).model_copy(update={
            "purposes": ("train", "evaluate", "measure"), "statistics": ("scores", "checks", "histograms", "group_counts"),
            "max_epsilon_alone": 100.0}), path, "measures, too")
    return Summing(root, made.names)
