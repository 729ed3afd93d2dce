"""The form and the schedule in the Prefect UI, in a real browser: what cannot be is refused where it was typed."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

from tests.e2e.conftest import Federation, wait
from tests.e2e.test_schedule import NEVER, deploy, schedules
from tests.e2e.test_ui import Browser, browser, pytestmark

__all__ = ["browser", "pytestmark"]

RUN = "(//*[normalize-space(text())='Run']/following::textarea)[1]"


def one_more_round(real: Federation) -> UUID:
    """The deployment whose form asks for one more round."""
    return real.ask(lambda client: client.read_deployment_by_name("federated-round/2-one-more-round-small")).id


def asked_for(real: Federation) -> int:
    """How many rounds somebody has asked for."""
    only = DeploymentFilter(id=DeploymentFilterId(any_=[one_more_round(real)]))
    return len(real.ask(lambda client: client.read_flow_runs(deployment_filter=only)))


def test_a_wrong_name_is_refused_in_the_form_and_nothing_is_asked(real: Federation, browser: Browser):
    before = asked_for(real)
    browser.open(f"/deployments/deployment/{one_more_round(real)}/run")
    browser.see("Lower-case letters, digits and inner hyphens, at most 40")
    browser.click(RUN)
    browser.find(RUN).send_keys("Not a name")
    browser.click("//button[normalize-space()='Submit']")
    browser.see("does not match")
    browser.keep("form-refused")
    assert browser.driver.current_url.endswith("/run"), "the form is still there"
    assert asked_for(real) == before


def test_a_campaigns_form_says_what_a_run_may_have_and_what_that_costs(real: Federation, browser: Browser):
    campaign = real.ask(lambda client: client.read_deployment_by_name("federated-training/1-train-small")).id
    with browser.tall():
        browser.open(f"/deployments/deployment/{campaign}/run")
        text = browser.see("Rounds", "Patience", "Privacy and rule", "weighted_mean if nothing is said",
                           "Costs each record at most epsilon 20 or 16 at delta 1e-05")
        places = [text.index(field) for field in ("Rounds", "Patience", "Partition", "Privacy target (epsilon)", "Quorum")]
        assert places == sorted(places)
        browser.find(RUN).send_keys("from-the-ui")
        for field, kind in (("Privacy target (epsilon)", "float"), ("Rule", "str")):
            browser.click(f"(//*[contains(text(),'{field}')]/following::button[normalize-space()='{kind}'])[1]")
        browser.keep("campaign-form")


@pytest.fixture
def scheduled(real: Federation) -> Iterator[None]:
    deploy(real, "--cron", NEVER, "--run", "weekly")
    yield
    deploy(real, "--no-cron")


def test_the_schedule_is_shown_and_paused_where_it_stands(real: Federation, browser: Browser, scheduled: None):
    browser.open(f"/deployments/deployment/{one_more_round(real)}")
    browser.see("Schedules", "on day 29 of the month", "February")
    browser.keep("schedule")
    browser.click("(//*[normalize-space(text())='Schedules']/following::*[@role='switch' or @type='checkbox'])[1]")
    wait(lambda: [one.active for one in schedules(real)] == [False], "the switch's effect")
    assert "as it was" in deploy(real)
    assert [one.active for one in schedules(real)] == [False], "a deployment leaves what a person has paused"
