"""What a person does in the Prefect UI, in a real browser: fill in the form, read the report, go to the sites and back.

Screenshots of every page lie in pytest's folder of the session, below `screenshots`, or in the folder FEDROUND_SCREENSHOTS
(`docs_site/screenshots.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.e2e.conftest import Federation, wait
from tests.small_federation import NAMES

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1400,1600")

pytestmark = [
    pytest.mark.stack, pytest.mark.browser,
    pytest.mark.skipif((CHROMIUM is None or DRIVER is None) and "FEDROUND_REQUIRE_BROWSER" not in os.environ,
                       reason="no chromium and chromedriver on this machine (Debian: chromium, chromium-driver)")]


@dataclass(frozen=True)
class Browser:
    """A browser that looks at one federation's UI."""

    driver: webdriver.Chrome
    real: Federation
    screenshots: Path

    def open(self, path: str) -> None:
        """Go to a page of the UI."""
        self.driver.get(self.real.api_url.removesuffix("/api") + path)

    def see(self, *texts: str) -> str:
        """Wait until all of `texts` can be read on the page; returns all that can be read."""
        def seen() -> str | None:
            text = self.driver.find_element(By.TAG_NAME, "body").text
            return text if all(part in text for part in texts) else None

        return self._when(seen, f"{texts} on {self.driver.current_url}")

    def find(self, xpath: str) -> WebElement:
        """Wait for a part of the page."""
        return self._when(lambda: self._shown(xpath), xpath)

    def click(self, xpath: str) -> None:
        """Wait for a part of the page and click on it."""
        def clicked() -> bool:
            if (shown := self._shown(xpath)) is not None:
                shown.click()
            return shown is not None

        self._when(clicked, f"a click on {xpath}")

    @contextmanager
    def tall(self) -> Iterator[None]:
        """A window in which a whole form is seen."""
        self.driver.set_window_size(1400, 2600)
        try:
            yield
        finally:
            self.driver.set_window_size(1400, 1600)

    def keep(self, name: str) -> None:
        """Take a screenshot."""
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))

    def _shown(self, xpath: str) -> WebElement | None:
        return next((part for part in self.driver.find_elements(By.XPATH, xpath) if part.is_displayed()), None)

    def _when(self, found: Callable[[], Any], what: str) -> Any:
        """The page changes under one's hands: what went stale is looked for again."""
        def tried() -> Any:
            try:
                return found()
            except WebDriverException:
                return None

        try:
            return wait(tried, what)
        except AssertionError:
            self.keep("failed")
            raise


@pytest.fixture(scope="module")
def browser(real: Federation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        folder = os.environ.get("FEDROUND_SCREENSHOTS")
        yield Browser(driver, real, Path(folder) if folder else tmp_path_factory.mktemp("screenshots"))
    finally:
        driver.quit()


def form(browser: Browser) -> None:
    """Open the form of one more round."""
    deployment = browser.real.ask(lambda client: client.read_deployment_by_name("federated-round/2-one-more-round-small"))
    browser.open(f"/deployments/deployment/{deployment.id}/run")


@pytest.fixture(scope="module")
def round_of_the_form(browser: Browser) -> UUID:
    """A round that was started from the form, with a quorum of 3; its flow run."""
    with browser.tall():
        form(browser)
        browser.see("Quorum")
        browser.click("(//*[normalize-space(text())='Run']/following::textarea)[1]")
        browser.find("(//*[normalize-space(text())='Run']/following::textarea)[1]").send_keys("from-the-ui")
        browser.click("(//*[contains(text(),'Quorum')]/following::button[normalize-space()='int'])[1]")
        browser.find("(//*[contains(text(),'Quorum')]/following::input)[1]").send_keys("3")
        browser.keep("form-filled-in")
    browser.click("//button[normalize-space()='Submit']")
    site = wait(lambda: browser.real.site_run("from-the-ui", "north"), "the round that the form asked for")
    return UUID(str(site.labels["fedround.round-run"]))


def test_the_form_says_what_it_asks(browser: Browser):
    form(browser)
    browser.see("Ask the federation for one more round", "Run", "The training campaign to continue", "Quorum",
                "Sites whose answers must be admitted, or nothing is made of them", "Deadline (seconds)",
                "How long sites have to answer")
    text = browser.see("Run", "Partition")
    places = [text.index(field) for field in ("Partition", "After", "Quorum", "Deadline (seconds)")]
    assert places == sorted(places), "what belongs together stands together"
    browser.keep("form")


def test_a_round_from_the_form_commits_as_it_was_asked(browser: Browser, round_of_the_form: UUID):
    ended = browser.real.ended(round_of_the_form)
    assert ended.state.is_completed(), ended.state.message
    record = browser.real.record("from-the-ui")
    assert record["quorum"] == 3
    assert record["outcomes"] == dict.fromkeys(NAMES, "updated")


def test_from_the_round_to_its_report_to_a_site_and_back(browser: Browser, round_of_the_form: UUID):
    browser.real.ended(round_of_the_form)
    browser.open(f"/runs/flow-run/{round_of_the_form}")
    browser.see("Completed", "federated-round")
    browser.keep("round")
    browser.click("//li[@id='artifacts']")
    browser.click("//a[contains(@href,'/artifacts/artifact/')]")

    browser.see("Sites in round 1", "in the aggregate", "Flow runs of the sites", *NAMES)
    rows = browser.driver.find_elements(By.XPATH, "//table//tr[td]")
    assert [row.text.split()[0] for row in rows[:3]] == list(NAMES)
    assert not browser.driver.find_elements(By.XPATH, "//img[contains(@alt,'by round')]"), "one round is said, not drawn"
    browser.keep("report")

    browser.click("//a[normalize-space()='east' and contains(@href,'/runs/flow-run/')]")
    browser.driver.switch_to.window(browser.driver.window_handles[-1])       # links in a report open a tab
    text = browser.see("site-round", "from-the-ui/train-00001", "Completed")
    assert "from-the-ui/train-00001/east" in text
    browser.keep("site")

    browser.open("/runs")
    browser.find("//input[contains(@placeholder,'Search by flow run name')]").send_keys("from-the-ui/train-00001")
    browser.see("4 runs", *(f"from-the-ui/train-00001/{site}" for site in NAMES))
    browser.keep("runs-of-the-round")
    browser.click(f"//a[contains(@href,'/runs/flow-run/{round_of_the_form}')]")
    browser.see("federated-round", "Task Runs")
    assert str(round_of_the_form) in browser.driver.current_url
