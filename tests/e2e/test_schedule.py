"""`fedround deploy` registers a schedule, and takes it away."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Federation

pytestmark = pytest.mark.stack

# What is scheduled must not fire in the middle of other tests.
NEVER = "0 0 29 2 *"


def schedules(real: Federation) -> list:
    async def read(client):
        return (await client.read_deployment_by_name("federated-round/small")).schedules

    return real.ask(read)


def parameters(real: Federation) -> dict:
    async def read(client):
        return (await client.read_deployment_by_name("federated-round/small")).parameters

    return real.ask(read)


def deploy(real: Federation, *arguments: str) -> None:
    done = real.here("deploy", "-c", real.machine.coordinator, *arguments)
    assert done.exit_code == 0, done.stderr


def test_a_cron_schedule_is_registered_replaced_and_removed(real: Federation):
    deploy(real, "--cron", NEVER, "--run", "weekly")
    assert [(s.schedule.cron, s.schedule.timezone, s.active) for s in schedules(real)] == [(NEVER, "UTC", True)]
    assert parameters(real) == {"request": {"run": "weekly"}}

    deploy(real, "--cron", "0 1 29 2 *", "--run", "weekly")
    assert [s.schedule.cron for s in schedules(real)] == ["0 1 29 2 *"]

    deploy(real)
    assert (schedules(real), parameters(real)) == ([], {})
