"""What happens when drift is found: an automation of Prefect starts a new campaign, or the event only warns."""

from __future__ import annotations

from datetime import timedelta

from prefect import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from fedround.federation import Federation
from flows.deployment_names import full_name
from flows.drift import ALARM, resource_of
from flows.federated_training import federated_training


async def retrain_on_alarm(federation: Federation, rounds: int | None) -> bool:
    """Let each alarm start a campaign of so many rounds, in a new run; None: alarms only warn.

    Returns whether there was another setting before. The automation starts the training deployment with the run that the
    event names. All that a person's request is checked for holds for it, too. Raises httpx errors of the API.
    """
    name = f"drift in {federation.name}"
    async with get_client() as client:
        before = await client.read_automations_by_name(name)
        for automation in before:
            await client.delete_automation(automation.id)
        if rounds is not None:
            deployment = await client.read_deployment_by_name(full_name(federated_training.name, federation.name))
            run = {"__prefect_kind": "jinja", "template": "{{ event.payload.next_run }}"}
            await client.create_automation(AutomationCore(
                name=name, description="Written by 'fedround drift act'",
                trigger=EventTrigger(expect={ALARM}, match={"prefect.resource.id": resource_of(federation.name)},
                                     posture=Posture.Reactive, threshold=1, within=timedelta(0)),
                actions=[RunDeployment(source="selected", deployment_id=deployment.id,
                                       parameters={"request": {"run": run, "rounds": rounds}})]))
    return bool(before)

