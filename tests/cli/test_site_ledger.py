"""fedround site ledger: one table within 80 columns, what remains, and giving back."""

from __future__ import annotations

import json

import pytest

from fedround.privacy import ledger
from fedround.privacy.entries import Charge, Lot
from fedround.privacy.profile import upward
from fedround.privacy.spec import DpSgd, GaussianCounts
from tests.cli.conftest import Fedround, one_sentence
from tests.small_federation import SmallFederation

STEP, COUNTS = (DpSgd(noise_multiplier=4.0, clip_norm=1.0, sampling_rate=0.2, steps=10), GaussianCounts(noise_std=10.0))
CAMPAIGN = (Lot(mechanism=STEP, times=5), Lot(mechanism=COUNTS, times=6))


@pytest.fixture
def book(federation: SmallFederation) -> ledger.Ledger:
    """Two rounds of five."""
    book = ledger.read(federation.site("north").ledger)
    for number in (1, 2):
        book = ledger.charge(book, Charge(
            federation="small", run="a-run-with-a-rather-long-name", round=number, purpose="train", plan=f"{number:064x}",
            mechanisms=(STEP, COUNTS), delta_dp=1e-5, utc="2026-03-01T10:00:00Z", campaign=CAMPAIGN), 8.0)
    return book


def test_the_table_fits_eighty_columns_and_says_what_is_left(fedround: Fedround, federation: SmallFederation,
                                                             book: ledger.Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = fedround("site", "ledger", federation.root / "north")
    assert result.exit_code == 0, (result.output, result.exception)
    shown = result.stdout
    table = [line for line in shown.splitlines() if line and line[0] in "┏┃┡│└"]
    assert max(map(len, table)) <= 80
    assert sum("a-run-with-a-rather-long-name" in line for line in table) == 2, "a name is not cut"
    assert f"spent ε {upward(ledger.spent(book, 1e-5), 4)} of 8" in shown
    assert f"set aside ε {upward(ledger.held(book, 1e-5), 4)}" in shown
    assert "room for 3 rounds of 'a-run-with-a-rather-long-name'" in shown
    told = json.loads(fedround("site", "ledger", federation.root / "north", "--json").stdout)
    assert [charge["total"] for charge in told["charges"]][-1] == told["spent"] == ledger.spent(book, 1e-5)
    assert told["profile"]["epsilons"]["1e-06"] > told["spent"]
    assert told["profile"]["rightly"]["0.01"] < 0.6
    costs, totals = zip(*(map(float, line.strip("│").split("│")[-2:]) for line in table if "a-run-" in line), strict=True)
    true = [(charge["costs"], charge["total"]) for charge in told["charges"]]
    assert all(0 <= shown - value < 1e-4 for pair, row in zip(zip(costs, totals, strict=True), true, strict=True)
               for shown, value in zip(pair, row, strict=True))                 # never less than the truth
    assert f"left {8 - float(upward(told['set_aside'], 4)):.4f}" in shown


def test_shared_noise_has_a_second_price_that_is_said(fedround: Fedround, federation: SmallFederation, book: ledger.Ledger):
    north = federation.root / "north"
    assert "nobody else" not in fedround("site", "ledger", north).stdout
    book = ledger.charge(book, Charge(
        federation="small", run="sums", round=1, purpose="measure", plan="f" * 64, delta_dp=1e-5, utc="2026-03-02T10:00:00Z",
        mechanisms=(GaussianCounts(noise_std=9.0, shared_by=9),)), 8.0)
    alone = ledger.spent(book, 1e-5, alone=True)
    told = json.loads(fedround("site", "ledger", north, "--json").stdout)
    assert told["spent_alone"] == alone > told["spent"]
    shown = " ".join(fedround("site", "ledger", north).stdout.split())
    assert f"if nobody else's share of the noise counted, it would be ε {upward(alone, 4)}," in shown


def test_closing_a_run_gives_back_and_ends_it(fedround: Fedround, federation: SmallFederation, book: ledger.Ledger):
    north = federation.root / "north"
    one_sentence(fedround("site", "ledger", north, "--close", "nothing"), "no campaign of run 'nothing'")
    assert "is closed" in fedround("site", "ledger", north, "--close", "a-run-with-a-rather-long-name").stdout
    closed = ledger.read(book.path)
    assert not closed.book.campaigns[0].is_open
    assert "as a new run" in fedround("site", "ledger", north).stdout


def test_of_weeks_each_has_its_own_price_and_a_new_one_has_all_of_the_budget(fedround: Fedround, federation: SmallFederation):
    """Whoever reads "left 0.0" alone would think that the year is over."""
    book = ledger.read(federation.site("north").ledger)
    lots = (Lot(mechanism=STEP, times=1),)
    for week in (1, 2):
        book = ledger.charge(book, Charge(
            federation="small", run=f"weekly-{week}", round=1, purpose="train", plan=f"{week:064x}", mechanisms=(STEP,),
            partition=f"2026-w0{week}-5a3c1f70", delta_dp=1e-5, utc="2026-03-01T10:00:00Z", campaign=lots), 8.0)
    each = ledger.spent(book, 1e-5)
    told = json.loads(fedround("site", "ledger", federation.root / "north", "--json").stdout)
    assert [(charge["costs"], charge["total"]) for charge in told["charges"]] == [(each, each)] * 2
    shown = " ".join(fedround("site", "ledger", federation.root / "north").stdout.split())
    assert "paid by 2 partitions; records of a new one have ε 8.0000 left" in shown
    assert "as a new run, on a new partition" in shown
    assert "room for 0 rounds" not in shown
