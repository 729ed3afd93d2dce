"""The end of the demonstration: the last model is put into production, and scores clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fedround.spoken import how_many
from fedround_cli.compare_groups import compare_groups
from fedround_cli.output import out

if TYPE_CHECKING:
    from fedround.fairness_of_groups import Measure
    from flows.one_machine import OneMachine
    from tasks.coordinator import Coordinator

WATCH = "watch"


def show_drift(machine: OneMachine, coordinator: Coordinator, run: str) -> None:
    """What the campaign's last measurement of drift says; where rows have dates, what later months' rows say."""
    from fedround_cli import drift
    from tasks.drift import judgements
    from tasks.report import records

    watch = coordinator.federation.drift
    if watch is not None and watch.partitions is not None:
        _watch_later_months(machine, coordinator)
        drift.show_drift(judgements(coordinator, WATCH)[-1])
    elif (found := records(coordinator, run)[-1].drift) is not None:
        drift.show_drift(found)


def _watch_later_months(machine: OneMachine, coordinator: Coordinator) -> None:
    """New loans arrive at the banks, month by month, and are counted. A bank that has fewer than its policy asks for refuses;
    so a majority is enough here.
    """
    from fedround.sightings import needed
    from fedround_cli.campaign import show_campaign
    from fedround_examples.carloan.later import MONTHS, deliver
    from tasks.drift import judgements
    from tasks.reporting.drift import in_a_sentence

    members = len(coordinator.federation.sites)
    for month in MONTHS:
        with out.status(f"the loans of {month} arrive, and are counted …"):
            deliver(month, machine.home / "data")
            asyncio.run(show_campaign(coordinator, "federated-drift", {
                "run": WATCH, "partition": month, "quorum": needed(coordinator.federation)}, quiet=True))
        found = judgements(coordinator, WATCH)[-1]
        few = members - len(found.sites)
        out.say("loans of     {}: {}{}", month, in_a_sentence(found),
                f"; {how_many(few, 'bank', 'has', 'have')} too few loans of that month, and refused" if few else "")


def _show_groups(coordinator: Coordinator, run: str, number: int, measure: Measure) -> None:
    """How the model decides about groups, if the federation watches any."""
    from fedround_cli.groups_table import show_groups
    from infra.history import read_commit
    from tasks.compare_groups import compared

    found = compared(coordinator, read_commit(coordinator.store, run, number, coordinator.key).commit)
    if found is not None:
        show_groups(found, measure)


def put_to_use(machine: OneMachine, coordinator: Coordinator, run: str, number: int) -> None:
    """Compare groups, hold the model against the policy, approve it in the demonstration's name, and score rows with it.

    It does not read the labels of these rows.
    """
    from fedround.bundle import Approval
    from site_workers.policy import Limits
    from site_workers.scoring import score
    from tasks.promote import PromotionRequest, approve, of_version, propose

    compare_groups(coordinator, run, number)
    with out.status("making a bundle of the last model, and holding it against the policy …"):
        proposal = propose(coordinator, PromotionRequest(run=run, round=number))
    _show_groups(coordinator, run, number, proposal.policy.fairness_measure)
    if proposal.version is None:
        out.say("promotion    {}", proposal.refusal())
        return
    with out.status("scoring the public clients with it …"):
        version = approve(coordinator, proposal.version, Approval(
            by="the demonstration", through="command line", note="Nobody has looked at it."))
        rows = machine.home / "data" / "public_test.parquet"
        done = score(of_version(coordinator, version), rows, machine.home / "scores.csv", limits=Limits())
    out.say("promotion    round {} is {}, in production: it met the policy, and the demonstration said yes", number, version)
    out.say("scored       {} clients in {}, without their labels", f"{done.rows:,}", done.out)
