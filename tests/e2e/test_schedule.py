"""`fedround deploy` registers a schedule, and takes it away."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Federation

pytestmark = pytest.mark.stack

# A year in which nobody runs this test: what is scheduled must not fire in the middle of the others.
NEVER = "0 0 29 2 *"


def schedules(real: Federation) -> list:
    async def read(client):
        return (await client.read_deployment_by_name("federated-round/small")).schedules

    return real.ask(read)


def parameters(real: Federation) -> dict:
    async def read(client):
        return (await client.read_deployment_by_name("federated-round/small")).parameters

    return real.ask(read)


def deploy(real: Federation, *arguments: str):
    return real.command("deploy", "-c", str(real.machine.coordinator), *arguments)


def test_a_cron_schedule_is_registered_replaced_and_removed(real: Federation):
    done = deploy(real, "--cron", NEVER, "--run", "weekly")
    assert done.returncode == 0, done.stderr
    assert [(s.schedule.cron, s.schedule.timezone, s.active) for s in schedules(real)] == [(NEVER, "UTC", True)]
    assert parameters(real) == {"request": {"run": "weekly"}}

    assert deploy(real, "--cron", "0 1 29 2 *", "--run", "weekly").returncode == 0
    assert [s.schedule.cron for s in schedules(real)] == ["0 1 29 2 *"]

    assert deploy(real).returncode == 0
    assert (schedules(real), parameters(real)) == ([], {})


@pytest.mark.parametrize("cron", ["every day", "* * * *", "99 * * * *"])
def test_a_schedule_that_is_none_is_one_sentence_and_leaves_the_old_one(real: Federation, cron: str):
    done = deploy(real, "--cron", cron)
    assert done.returncode == 1
    assert "five fields" in done.stderr
    assert "Traceback" not in done.stderr
    assert schedules(real) == []


def test_a_schedule_for_a_run_that_cannot_be_is_refused(real: Federation):
    done = deploy(real, "--cron", NEVER, "--run", "Every Day")
    assert done.returncode == 1
    assert "--run" in done.stderr
    assert schedules(real) == []
