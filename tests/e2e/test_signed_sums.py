"""Sums whose members sign first, live: five sites of which two may be missing, a question about rows and a round."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedround import layout
from infra.stack.processes import recorded
from tests.e2e.conftest import Federation, wait
from tests.e2e.founding import adding
from tests.e2e.test_secure_sums import completed, seconds_of

pytestmark = pytest.mark.stack

SITES = tuple(f"site-{number:02d}" for number in range(1, 6))
ASKS = ("--histogram", "x1=-1,0,1", "--top", "y=0,1", "--mean", "x1=-9:9", "--noise", "4", "--json")


@pytest.fixture(scope="module")
def five(short_folder: Path, rows_are_judged_here: None) -> Iterator[Federation]:
    """Threshold 3 of five with two dropouts: it does not hold unless members sign who is in a sum."""
    with adding(short_folder / "signed", SITES, {"threshold": 3, "dropouts": 2, "colluders": 0,
                                                 "consistency": "signed"}) as federation:
        yield federation


def test_an_analysts_question_is_added_up_under_masks(five: Federation, run: str):
    """Nobody sees a site's counts; what all have together comes out, with the noise of one release."""
    asked = ("ask", "-c", five.machine.coordinator, "--run", run, *ASKS)
    done = five.works(*asked)
    found = json.loads(done)
    assert [told["site"] for told in found["answers"]] == list(SITES)
    means, histogram, groups = found["tables"]
    rows = 5 * 300
    for table in (histogram, groups):
        assert sum(one["value"] for one in table["estimates"]) == pytest.approx(rows, abs=80)
    records, mean, _ = means["estimates"]
    assert records["low"] - 80 < rows < records["high"] + 80
    assert -1 < mean["low"] < mean["value"] < mean["high"] < 1
    assert {name: len(five.charges(name, run)) for name in SITES} == dict.fromkeys(SITES, 1)
    again = five.here(*asked)
    assert json.loads(again.stdout) == found, "nobody is asked again"
    assert {name: len(five.charges(name, run)) for name in SITES} == dict.fromkeys(SITES, 1)
    shown = five.here("ask", "-c", five.machine.coordinator, "--run", run, *ASKS[:-1], "--sites")
    assert "nobody knows what one site says" in " ".join(shown.stderr.split())
    proven = five.here("verify", run, "--as", five.machine.coordinator)
    assert proven.exit_code == 0, proven.stderr


def test_one_site_is_away_and_one_dies_after_its_answer(five: Federation, run: str):
    completed(five, five.start("federated-round", run=run))
    os.kill(five.pid(SITES[0]), signal.SIGKILL)
    for name in SITES[1:]:
        (five.machine.site(name) / "hold").touch()
    coordinator, store = psutil.Process(recorded(five.machine.home)["coordinator"]), five.store
    started = five.start("federated-round", run=run, deadline_s=60)
    wait(lambda: store.head(layout.plan(run, 2, 1, "train")), "the plan of round 2")
    wait(lambda: all(len(five.charges(name, run)) == 2 for name in SITES[1:]), "all charges")
    coordinator.suspend()
    try:
        for name in SITES[1:]:
            (five.machine.site(name) / "hold").unlink()
        wait(lambda: all(store.head(layout.answer(name, run, 2, 1, "train")) for name in SITES[1:]), "masked answers")
        os.kill(five.pid(SITES[1]), signal.SIGKILL)
    finally:
        coordinator.resume()
    completed(five, started)
    print("\nround 2, one away, one that signs nothing:", seconds_of(five, started))
    assert five.record(run, 2)["outcomes"] == {name: "missing" if name == SITES[0] else "updated" for name in SITES}
    for name in SITES[1:]:
        said = [key for purpose in ("countersigned", "reveals")
                for key in store.list(f"{layout.of_run(name, run)}{purpose}/00001/") if key.endswith("answer.json")]
        assert len(said) == (0 if name == SITES[1] else 2)
    for name in SITES[:2]:
        five.spawn("site", "start", str(five.machine.site(name)))
    done = five.here("verify", run, "--as", five.machine.coordinator, "--recompute", "--json")
    assert done.exit_code == 0, done.stderr
    assert [one["recomputed"] for one in json.loads(done.stdout)["rounds"]][1:] == [True] * 2
