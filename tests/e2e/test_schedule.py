"""`fedround deploy` shows what it changes, and leaves what people have set; a pool that somebody deletes is made again."""

from __future__ import annotations

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse

from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait

pytestmark = pytest.mark.stack

# What is scheduled must not fire in the middle of other tests.
NEVER = "0 0 29 2 *"


def schedules(real: Federation) -> list:
    async def read(client):
        return (await client.read_deployment_by_name("federated-round/2-one-more-round-small")).schedules

    return real.ask(read)


def parameters(real: Federation) -> dict:
    async def read(client):
        return (await client.read_deployment_by_name("federated-round/2-one-more-round-small")).parameters

    return real.ask(read)


def deploy(real: Federation, *arguments: str) -> str:
    done = real.here("deploy", "-c", real.machine.coordinator, *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_a_cron_schedule_is_registered_kept_replaced_and_removed(real: Federation):
    said = deploy(real, "--cron", NEVER, "--run", "weekly")
    assert f"schedule: '{NEVER}' (UTC) for run 'weekly'" in said
    assert [(s.schedule.cron, s.schedule.timezone, s.active) for s in schedules(real)] == [(NEVER, "UTC", True)]
    assert parameters(real) == {"request": {"run": "weekly"}}

    assert "schedule" not in deploy(real), "nobody has asked for a change"
    assert [s.schedule.cron for s in schedules(real)] == [NEVER]

    assert f"it was '{NEVER}'" in deploy(real, "--cron", "0 1 29 2 *", "--run", "weekly", "--dry-run")
    assert [s.schedule.cron for s in schedules(real)] == [NEVER], "it was only shown"

    deploy(real, "--cron", "0 1 29 2 *", "--run", "weekly")
    assert [s.schedule.cron for s in schedules(real)] == ["0 1 29 2 *"]

    assert "(Europe/Berlin) for run 'weekly'; it was" in deploy(
        real, "--cron", NEVER, "--run", "weekly", "--time-zone", "Europe/Berlin")
    assert [s.schedule.timezone for s in schedules(real)] == ["Europe/Berlin"]

    assert "schedule: removed" in deploy(real, "--no-cron")
    assert (schedules(real), parameters(real)) == ([], {})


def test_what_a_person_has_paused_stays_paused(real: Federation):
    async def pause(client: PrefectClient, paused: bool) -> None:
        deployment = await client.read_deployment_by_name("federated-round/2-one-more-round-small")
        await client.update_deployment(deployment.id, DeploymentUpdate(paused=paused, tags=["mine"]))
        for schedule in deployment.schedules:
            await client.update_deployment_schedule(deployment.id, schedule.id, active=not paused)

    async def look(client: PrefectClient) -> DeploymentResponse:
        return await client.read_deployment_by_name("federated-round/2-one-more-round-small")

    deploy(real, "--cron", NEVER, "--run", "weekly")
    real.ask(lambda client: pause(client, True))
    try:
        assert "deployed federated-round/2-one-more-round-small: as it was" in deploy(real)
        assert "paused, as it was" in deploy(real, "--cron", "0 1 29 2 *", "--run", "weekly")
        found = real.ask(look)
        assert (found.paused, found.tags, [s.active for s in found.schedules]) == (True, ["mine"], [False])
    finally:
        real.ask(lambda client: pause(client, False))
        deploy(real, "--no-cron")


def test_a_pool_that_somebody_deletes_is_made_again_with_its_deployments(real: Federation, run: str):
    async def pools(client: PrefectClient) -> set[str | None]:
        return {(await client.read_deployment_by_name(name)).work_pool_name for name in (
            "site-round/south", "site-campaign/south-campaigns", "federated-round/2-one-more-round-small",
            "federated-training/1-train-small")}

    async def delete(client: PrefectClient) -> None:
        for pool in ("south", "small-coordinator"):
            await client.delete_work_pool(pool)

    real.ask(delete)
    wait(lambda: real.ask(pools) == {"south", "small-coordinator"}, "deployments with their pools")
    ended = real.ended(real.start("federated-round", run=run, quorum=3))
    assert ended.state.is_completed(), ended.state.message
    assert "as it was" in deploy(real)

    async def delete_one(client: PrefectClient) -> None:
        await client.delete_deployment((await client.read_deployment_by_name("site-round/south")).id)

    real.ask(delete_one)
    said = deploy(real, "--dry-run")
    assert "would be deployed site-round/south: new" in said
    assert "deployed site-round/south: new" in deploy(real)


def test_times_that_were_missed_are_made_up_once(real: Federation, run: str):
    """The schedule fires four times a minute, and the coordinator's process is asleep for a while."""
    from datetime import timedelta

    import psutil
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.schedules import IntervalSchedule

    async def schedule(client: PrefectClient) -> None:
        deployment = await client.read_deployment_by_name("federated-round/2-one-more-round-small")
        await client.update_deployment(deployment.id, DeploymentUpdate(parameters={"request": {"run": run}}))
        await client.create_deployment_schedules(deployment.id, [(IntervalSchedule(interval=timedelta(seconds=15)), True)])

    async def scheduled(client: PrefectClient) -> list:
        deployment = await client.read_deployment_by_name("federated-round/2-one-more-round-small")
        found = await client.read_flow_runs(sort="EXPECTED_START_TIME_ASC", flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(StateType)))))
        return [one for one in found if one.deployment_id == deployment.id and one.auto_scheduled]

    def ended() -> list:
        return [one.state for one in real.ask(scheduled) if one.state.is_final()]

    asleep = psutil.Process(recorded(real.machine.home)["coordinator"])
    asleep.suspend()
    try:
        real.ask(schedule)
        wait(lambda: sum(one.state.name == "Late" for one in real.ask(scheduled)) > 2, "times that are missed")
        missed = sum(one.state.name == "Late" for one in real.ask(scheduled))
    finally:
        asleep.resume()
    try:
        (done, *_) = wait(lambda: [state for state in ended() if not state.is_cancelled()], "a round that makes up for them")
        assert done.is_completed(), done.message
        made_up = [state.message for state in ended() if state.is_cancelled()]
        assert len(made_up) >= missed - 1
        assert set(made_up) == {"its time was missed, and so was a later one, which makes up for both"}
    finally:
        deploy(real, "--no-cron")
