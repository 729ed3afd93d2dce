"""A campaign in the Prefect UI, in a real browser: suspended, resumed and cancelled by its buttons, and its page."""

from __future__ import annotations

from uuid import UUID

from tests.e2e.conftest import Federation, wait
from tests.e2e.test_ui import Browser, browser, pytestmark

__all__ = ["browser", "pytestmark"]

CLOSE = "//button[contains(@class,'p-modal__close-button')]"
CONFIRM = f"{CLOSE}/preceding-sibling::button | {CLOSE}/following-sibling::button"


def press(browser: Browser, button: str) -> None:
    """Press a button of the flow run's page, and say yes."""
    browser.click(f"//button[normalize-space()='{button}']")
    browser.click(CONFIRM)


def begun(real: Federation, browser: Browser, run: str) -> UUID:
    """A campaign whose first round waits for north, and its page."""
    started = real.start("federated-training", run=run, rounds=2)
    wait(lambda: real.charges("south", run), "the first round")
    browser.open(f"/runs/flow-run/{started}")
    browser.see("Running", f"{run}: 2 rounds")
    return started


def test_a_campaign_is_suspended_and_resumed_by_its_buttons_and_has_a_page(real: Federation, browser: Browser):
    run = "by-buttons"
    with real.held(real.machine.site("north")):
        started = begun(real, browser, run)
        press(browser, "Suspend")
        wait(lambda: real.flow_run(started).state.name == "Suspended", "the button's effect")
    wait((real.machine.coordinator / "reports" / run / "00001.json").exists, "the end of the round in progress")
    browser.open(f"/runs/flow-run/{started}")
    browser.see("Suspended")
    browser.keep("suspended")
    press(browser, "Resume")
    assert real.ended(started).state.is_completed()

    browser.open(f"/artifacts/key/campaign-{run}")
    browser.see(f"campaign-{run}", "2 of 2 rounds")
    browser.keep("campaign")


def test_a_campaign_is_cancelled_by_its_button_and_says_who_was_charged(real: Federation, browser: Browser):
    run = "by-a-button"
    with real.held(real.machine.site("north")):
        started = begun(real, browser, run)
        press(browser, "Cancel")
        wait(lambda: real.flow_run(started).state.name == "Cancelled", "the button's effect")
    assert "may have been charged" in real.flow_run(started).state.message
    browser.open(f"/runs/flow-run/{started}")
    browser.see("Cancelled")
    browser.keep("cancelled")
