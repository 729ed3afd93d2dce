"""The process that trains gets what the operator allows, and one plan's excess is a refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fedround import layout
from fedround.hours import Hours
from fedround.privacy import ledger
from fedround.records import Reason
from site_workers import limits
from site_workers import round as site_round
from site_workers.policy import Limits, SitePolicy
from tests import small_federation
from tests.small_federation import RECIPE, SmallFederation

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
POLICY = SitePolicy(recipes=(), contracts=(), max_epsilon=5.0, delta_dp=1e-5)


IN_A_PROCESS = """
import json, os
from fedround.errors import SetupError
from site_workers.limits import memory, settle_in
from site_workers.policy import Limits
limits = Limits(threads=2, nice=7, memory_mb=1024)
settle_in(limits)
import numpy, torch
from threadpoolctl import threadpool_info
def fits(make, size):
    try:
        with memory(limits):
            make(size)
        return True
    except MemoryError:
        return False
make = {"numpy": lambda size: numpy.ones(size, dtype=numpy.uint8), "torch": lambda size: torch.ones(size, dtype=torch.uint8),
        "python": lambda size: bytearray(size)}
told = {"settled": {"torch": torch.get_num_threads(), "nice": os.nice(0), "omp": os.environ["OMP_NUM_THREADS"],
                    "pools": sorted({pool["num_threads"] for pool in threadpool_info()})}}
told["fits"] = {name: [fits(one, 100 << 20), fits(one, 2000 << 20), fits(one, 1 << 40)] for name, one in make.items()}
told["afterwards"] = len(numpy.empty(1500 << 20, dtype=numpy.uint8)) >> 20
kept = numpy.ones(300 << 20, dtype=numpy.uint8)
try:
    settle_in(Limits(memory_mb=400))
except SetupError as error:
    told["passed before"] = "memory_mb = 400" in str(error) and "allow at least" in str(error)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict:
    """What a process says of its limits: they stay with it, and to import what it limits takes seconds."""
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_threads_and_priority_are_those_of_the_process_that_trains(told: dict):
    assert told["settled"] == {"torch": 2, "nice": max(os.nice(0), 7), "omp": "2", "pools": [2]}


def test_memory_beyond_the_limit_is_refused_by_the_system_and_what_is_below_is_not(told: dict):
    assert told["fits"] == {"numpy": [True, False, False], "torch": [True, False, False], "python": [True, False, False]}
    assert told["afterwards"] == 1500


def test_a_limit_that_the_process_has_passed_before_any_work_is_said_at_its_start(told: dict):
    assert told["passed before"]


def clock(*minutes: float) -> Callable[[], datetime]:
    """Noon, and so many minutes later at every further look; then it stands still."""
    times = [NOON + timedelta(minutes=minute) for minute in (0, *minutes)]
    return lambda: times.pop(0) if len(times) > 1 else times[0]


def test_the_guard_stops_at_the_limit_and_not_before():
    guard = limits.Guard(POLICY.model_copy(update={"limits": Limits(seconds=60)}), 600, lambda: False, clock(0.9, 1.0, 1.1))
    assert [guard(), guard(), guard()] == [False, False, True]
    assert guard.over == (Reason.LIMITS, "not done within the 60 s that one plan may take here")


def test_the_guard_stops_when_the_hours_end():
    hours = Hours(time_zone="UTC", start="11:00", end="12:30")
    guard = limits.Guard(POLICY.model_copy(update={"hours": hours}), 600, lambda: False, clock(29, 30))
    assert [guard(), guard()] == [False, True]
    assert guard.over is not None
    assert guard.over[0] is Reason.HOURS


def test_a_request_to_stop_is_no_limit():
    guard = limits.Guard(POLICY, 600, lambda: True, clock())
    assert guard()
    assert guard.over is None


# -- at a site ---------------------------------------------------------------------------------------------------------


def answered(federation: SmallFederation, now: Callable[[], datetime], **changes: object) -> str:
    site = federation.site("north")
    site = replace(site, clock=now, policy=site.policy.model_copy(update=changes))
    return site_round.answer(site, site_round.SiteRequest(run="spring", round=1, attempt=1, purpose="train"),
                             lambda: False).message


def refusal(federation: SmallFederation, count: int = 1) -> dict:
    key = layout.refusal("north", "spring", 1, 1, "train", count)
    return json.loads((federation.root / "store" / key).read_bytes())["body"]


def test_outside_the_hours_it_is_a_signed_not_now_that_costs_nothing_and_later_it_is_a_yes(federation: SmallFederation):
    planned = federation.plan()
    hours = Hours(time_zone="UTC", start="20:00", end="06:00")
    assert answered(federation, clock(), hours=hours) == "refusal"
    assert refusal(federation)["reason"] == "hours"
    assert ledger.read(federation.site("north").ledger).charges == ()
    assert federation.collect(planned).refused.keys() == {"north"}
    assert answered(federation, lambda: NOON + timedelta(hours=9), hours=hours) == "update"
    assert federation.collect(planned).admitted.keys() == {"north"}


def test_training_that_takes_too_long_is_refused_and_a_second_try_is_not_paid_twice(federation: SmallFederation):
    federation.plan()
    ticking = iter(range(10**6))
    assert answered(federation, lambda: NOON + timedelta(minutes=next(ticking)), limits=Limits(seconds=300)) == "refusal"
    assert refusal(federation)["reason"] == "limits"
    assert not (federation.root / "store" / layout.delta("north", "spring", 1, 1)).exists()
    assert answered(federation, lambda: NOON) == "update"
    assert len(ledger.read(federation.site("north").ledger).charges) == 1


def test_a_recipe_that_wants_more_memory_than_allowed_is_refused_and_the_process_lives(tmp_path):
    """Six gigabytes, only for a site's own rows: without the limit the system would give them."""
    greedy = RECIPE.replace("    return rows[[", "    if len(rows) == 256:\n        np.zeros(6 << 27)\n    return rows[[")
    federation = small_federation.make(tmp_path, recipe=greedy)
    federation.plan()
    assert answered(federation, lambda: NOON, limits=Limits(memory_mb=limits._data_mib() + 4000)) == "refusal"
    assert refusal(federation)["reason"] == "limits"
    assert answered(federation, lambda: NOON) == "update"


@pytest.mark.parametrize("statistics", [(), ("checks",), ("scores",)])
def test_counts_of_scores_leave_and_cost_only_where_the_policy_lets_them(federation: SmallFederation, statistics):
    planned = federation.plan()
    assert answered(federation, lambda: NOON, statistics=statistics) == "update"
    update = federation.collect(planned).admitted["north"].answer
    (charge,) = ledger.read(federation.site("north").ledger).charges
    assert (update.scores is not None) == ("scores" in statistics)
    assert [mechanism.kind for mechanism in charge.mechanisms] == ["dp_sgd"] + ["gaussian_counts"] * ("scores" in statistics)


@pytest.mark.parametrize("statistics", [("scores",), ("checks",)])
def test_the_ids_of_failed_checks_leave_only_where_the_policy_lets_them(federation: SmallFederation, statistics):
    small_federation.rows(300, 1).drop(columns="x1").to_parquet(federation.root / "data" / "north" / "train.parquet")
    federation.plan()
    assert answered(federation, lambda: NOON, statistics=statistics) == "refusal"
    said = refusal(federation)
    assert said["reason"] == "contract"
    assert said["checks"] == (["x1_in_range"] if "checks" in statistics else [])
    assert ("1" in said["detail"]) == ("checks" in statistics)


def test_a_round_in_which_no_site_lets_counts_out_is_committed_and_reported(federation: SmallFederation):
    for name in federation.names:
        path = federation.root / name / "policy.toml"
        path.write_text(path.read_text().replace('statistics = ["scores", "checks"]', "statistics = []"))
    commits = [federation.round(), federation.round()]
    assert [len(commit.updates) for commit in commits] == [3, 3]
