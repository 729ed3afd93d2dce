"""The schedule of a federation: one more round, or a campaign on the last partition that is complete, at certain times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule
from pydantic import ValidationError

from fedround.errors import ContractError
from fedround.federation import Federation
from fedround.privacy.spec import NoPrivacy
from flows.deployment_names import full_name
from flows.federated_round import federated_round
from flows.federated_training import federated_training
from flows.forms import grouped
from infra import deploying
from infra.deploying import Change
from tasks.requests import NextRoundRequest, TrainingRequest


@dataclass(frozen=True)
class AskedByDate:
    """What is to happen at the scheduled times."""

    flow: str
    cron: CronSchedule
    request: dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """One more round of `run` at these times; if the federation tells rows apart, a campaign in a run of its own.

    In a time zone that has summer time, an hour that comes twice is taken once, and one that does not come is moved.
    """

    cron: str
    run: str
    time_zone: str = "UTC"
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """`epsilon` and `rule` of a new run, where the federation file lets them be chosen."""

    def asked(self, federation: Federation) -> AskedByDate:
        """The same for this federation. Raises ContractError for a schedule or a run that cannot be."""
        how = federation.partitions
        privacy = federation.chosen(federation.offer.choice(self.chosen.get("epsilon"), self.chosen.get("rule"))).privacy
        if how is not None and how.by == "value":
            raise ContractError("partitions by value have no order, so no schedule can choose one: ask for each campaign "
                                "with 'fedround train run --partition'")
        try:
            cron = CronSchedule(cron=self.cron, timezone=self.time_zone)
        except ValidationError as error:
            if any("timezone" in problem["loc"] for problem in error.errors()):
                raise ContractError(f"--time-zone '{self.time_zone}' is not known: expected a name like 'Europe/Berlin'"
                                    ) from None
            raise ContractError("--cron is not a schedule: expected five fields, for example '0 3 * * 1'") from None
        try:
            if how is None:
                one_more = NextRoundRequest(run=self.run, **self.chosen)
                return AskedByDate(federated_round.name, cron, one_more.model_dump(exclude_none=True))
            campaign = TrainingRequest(run=self.run, one_run_per_partition=True, **self.chosen,
                                       **{} if isinstance(privacy, NoPrivacy) else {"rounds": privacy.rounds})
            return AskedByDate(federated_training.name, cron, campaign.model_dump(exclude_none=True))
        except ValidationError:
            raise ContractError("--run is not the name of a run: lower-case letters, digits and inner hyphens") from None


async def reschedule(client: PrefectClient, federation: Federation, asked: AskedByDate | None, *, dry: bool) -> Change:
    """Put this schedule in the place of all others; None: there is to be none. What a person has paused stays paused."""
    names = [full_name(flow, federation.name) for flow in (federated_round.name, federated_training.name)]
    found = [one for name in names if (one := await deploying.existing(client, name)) is not None]
    was = [_in_words(one, schedule.schedule) for one in found for schedule in one.schedules]
    active = not was or any(schedule.active for one in found for schedule in one.schedules)
    wanted = None if asked is None else f"'{asked.cron.cron}' ({asked.cron.timezone}) for run '{asked.request['run']}'"
    if was == ([] if wanted is None else [wanted]):
        return Change("schedule", "")
    if not dry:
        for one in found:
            await _clear(client, one)
        if asked is not None:
            deployment = await client.read_deployment_by_name(full_name(asked.flow, federation.name))
            await client.update_deployment(deployment.id, DeploymentUpdate(
                parameters={"request": grouped(asked.request)}, tags=deployment.tags))
            schedules: list[tuple[SCHEDULE_TYPES, bool]] = [(asked.cron, active)]
            await client.create_deployment_schedules(deployment.id, schedules)
    before = f"; it was {' and '.join(was)}" if was else ""
    paused = "" if active or wanted is None else "; paused, as it was"
    return Change("schedule", f"{wanted or 'removed'}{before}{paused}")


async def _clear(client: PrefectClient, found: DeploymentResponse) -> None:
    """No schedule, and no parameters that it needed."""
    for one in found.schedules:
        await client.delete_deployment_schedule(found.id, one.id)
    if found.schedules:
        await client.update_deployment(found.id, DeploymentUpdate(parameters={}, tags=found.tags))


def _in_words(found: DeploymentResponse, schedule: object) -> str:
    request = (found.parameters or {}).get("request")
    run = request.get("run", "") if isinstance(request, dict) else ""
    return f"'{getattr(schedule, 'cron', schedule)}' ({getattr(schedule, 'timezone', None) or 'UTC'}) for run '{run}'"
