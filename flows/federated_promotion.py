"""Put a committed round's model into use: it is measured, compared with the policy, and a person says yes.

The run is suspended while it waits. It holds no process, other rounds go on, and it survives a restart of every server.
"""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from fedround.bundle import CARD, Approval
from fedround.errors import ContractError
from flows.compare_groups import groups_compared
from tasks.coordinator import Coordinator, current_coordinator
from tasks.promote import PromotionRequest, Proposal, approve, groups_before_and_after, of_version, propose


class Consent(RunInput):
    """The form that the UI shows."""

    approve: bool = Field(default=False, description="Put this model into production.")
    name: str = Field(min_length=1, max_length=200, description="Who says so. It stands in the model's card.")
    note: str = Field(default="", max_length=1000, description="Why, if there is something to say.")


@flow(name="federated-promotion", flow_run_name="{request.run}: round {request.round} into production", persist_result=False)
async def federated_promotion(request: PromotionRequest) -> str:
    """Make the round's bundle, and the candidate if promotion.toml allows. Ask for a yes, then put it into production."""
    coordinator = current_coordinator()
    await groups_compared(coordinator, request.run, request.round)
    proposal = propose(coordinator, request)
    if proposal.version is None:
        raise ContractError(proposal.refusal())
    approval = Approval(by="promotion.toml", through="policy")
    if proposal.policy.approval == "person":
        await _show(coordinator, request, proposal, proposal.version)
        said = await suspend_flow_run(wait_for_input=Consent, key="approval", timeout=None)  # type: ignore[misc]
        if not said.approve:
            return f"{said.name} said no: {proposal.version} stays a candidate"
        approval = Approval(by=said.name, through="prefect", note=said.note)
    return f"{approve(coordinator, proposal.version, approval)} is in production; {approval.by} said yes"


async def _show(coordinator: Coordinator, request: PromotionRequest, proposal: Proposal, version: str) -> None:
    bounds = "\n".join(f"* {one}" for one in proposal.judged) or "* no bound of promotion.toml applies"
    card = of_version(coordinator, version).files[CARD].decode()
    groups = groups_before_and_after(coordinator, version)
    beside = f"## Groups, beside the model in production\n\n{groups}\n" if groups else ""
    await acreate_markdown_artifact(
        key=f"promotion-{request.run}", description=f"Round {request.round} of run {request.run}: into production?",
        markdown=f"## The policy's bounds, all met\n\n{bounds}\n\n{beside}{card.partition('---')[2].partition('---')[2]}")
