"""`fedround deploy` shows what it changes, and leaves what people have set; a pool that somebody deletes is made again."""

from __future__ import annotations

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse

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
