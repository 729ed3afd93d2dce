"""A page in a real browser: on a telephone nothing is wider than the screen, on paper nothing is cut, links lead on."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from fedround.learning.tasks import Margin, Metrics
from tasks import pages
from tasks.reporting.verified import Verified
from tests.tasks.recorded import ATTACK, compared, left_out, refused, unasked, updated, with_
from tests.tasks.test_pages import BEGUN, dated

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LONGEST, OTHER = "w" * 40, "m" * 40                # as a run may be called
COMPARED = f"{LONGEST}-and-{OTHER}.html"
WIDE = """return [...document.querySelectorAll("body *")].filter(one =>
    one.getBoundingClientRect().right > window.innerWidth + 1 && !one.closest(".scroll") && !one.closest("svg"))
    .map(one => one.outerHTML.slice(0, 80))"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif((CHROMIUM is None or DRIVER is None) and "FEDROUND_REQUIRE_BROWSER" not in os.environ,
                       reason="no chromium and chromedriver on this machine (Debian: chromium, chromium-driver)")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds with everything that a page may show, hostile words and long names among it."""
    reports = tmp_path_factory.mktemp("reports")
    for number in (1, 2, 3):
        rows = [updated(f"bank-{at:02d}", uploaded_bytes=500_000, local_margin=Margin(auc=0.05), answered_s=12_345.6,
                        fetched_s=12_345.67, fetches=12_345)
                for at in range(8)]
        full = compared(number, *rows, updated("x" * 64), left_out(ATTACK), refused(ATTACK * 2, "age.range", "a.positive"),
                        unasked("y" * 64))
        pages.write(reports, with_(
            full, ended=dated(number).ended, at_sites=Metrics(auc=0.6, rows=500), at_sites_margin=Margin(auc=0.03),
            rounds_agreed=5, steps=(("plan", 0.5), ("wait for the sites", 12_345.6)), note=ATTACK, training=ATTACK,
            contract=ATTACK, chosen=ATTACK))
    for run, rule in ((LONGEST, ATTACK), (OTHER, "median")):
        pages.write(reports, with_(dated(1), run=run, aggregation=rule, at_sites=Metrics(auc=0.6, rows=500),
                                   at_sites_margin=Margin(auc=0.03)))
    pages.note_verified(reports, Verified(
        run="spring", at=BEGUN, commits=("c" * 64,), signatures=7, hashes=9, recomputed=0, problem=ATTACK))
    pages.write_comparison(reports, pages.records(reports, LONGEST), pages.records(reports, OTHER))
    return reports


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield opened
    opened.quit()


def look(driver: webdriver.Chrome, page: Path, width: int) -> None:
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    driver.get(page.as_uri())


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["index.html", "spring/00003.html", COMPARED])
def test_nothing_is_wider_than_the_screen(driver: webdriver.Chrome, folder: Path, width: int, name: str):
    look(driver, folder / name, width)
    assert driver.execute_script(WIDE) == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("name", "label"), [
    ("spring/00003.html", "Local AUC"), ("spring/00003.html", "Share in the models"), ("index.html", "Largest epsilon"),
    (COMPARED, LONGEST)])
def test_on_a_telephone_a_table_is_read_without_moving_it(driver: webdriver.Chrome, folder: Path, name: str, label: str):
    look(driver, folder / name, 400)
    cell = driver.find_element(By.CSS_SELECTOR, f".cards td[data-label='{label}']")
    around = "arguments[0].closest('.scroll')"
    assert driver.execute_script(f"return {around}.scrollWidth <= {around}.clientWidth", cell)
    assert label in driver.execute_script("return getComputedStyle(arguments[0], '::before').content", cell)


def test_a_page_loads_nothing_and_complains_of_nothing(driver: webdriver.Chrome, folder: Path):
    driver.get_log("performance")
    look(driver, folder / "spring" / "00003.html", 1280)
    asked = re.findall(r'"method":"Network.requestWillBeSent".*?"url":"([^"]+)"', str(driver.get_log("performance")))
    assert {one for one in asked if not one.startswith("file:")} == set()
    assert driver.get_log("browser") == []


def test_links_lead_back_and_forth(driver: webdriver.Chrome, folder: Path):
    look(driver, folder / "index.html", 1280)
    for words, title in (("spring", "round 3"), ("← Round 2", "round 2"), ("Round 3 →", "round 3"), ("All runs", "All runs")):
        driver.find_element(By.LINK_TEXT, words).click()
        assert title in driver.title


def test_on_paper_it_is_a4_and_as_wide_as_the_paper(driver: webdriver.Chrome, folder: Path):
    """A page that is too wide is printed smaller by the browser: then its text is."""
    look(driver, folder / "spring" / "00003.html", 1280)
    told: dict[str, Any] = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    paper = base64.b64decode(told["data"])
    sizes = {tuple(map(float, one)) for one in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", paper)}
    assert {(round(width), round(height)) for width, height in sizes} == {(595, 842)} or sizes == {(594.95996, 841.91998)}
    assert 3 <= len(re.findall(rb"/Type /Page\b", paper)) <= 8
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    for name in ("spring/00003.html", "index.html", COMPARED):
        look(driver, folder / name, 688)                                    # A4 within its margins, in CSS pixels
        assert driver.execute_script(WIDE.replace('!one.closest(".scroll") && ', "")) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 688
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
