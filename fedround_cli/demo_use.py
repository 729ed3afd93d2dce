"""The end of the demonstration: the last model is put into production, and scores clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedround_cli.compare_groups import compare_groups
from fedround_cli.output import out

if TYPE_CHECKING:
    from fedround.fairness_of_groups import Measure
    from flows.one_machine import OneMachine
    from tasks.coordinator import Coordinator


def _show_groups(coordinator: Coordinator, run: str, number: int, measure: Measure) -> None:
    """How the model decides about groups, if the federation watches any."""
    from fedround_cli.groups_table import show_groups
    from infra.history import read_commit
    from tasks.compare_groups import compared

    found = compared(coordinator, read_commit(coordinator.store, run, number, coordinator.identity.key).commit)
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
