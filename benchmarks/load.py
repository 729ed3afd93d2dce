"""What one machine bears: many site processes that answer one round, many pools that are registered, many sites in simulated
time.

    python -m benchmarks.load processes --sites 50        # a round of 50 real processes, forked from one parent
    python -m benchmarks.load pools --sites 100           # 100 members enrolled and deployed
    python -m benchmarks.load simulated --sites 100 300 1000
    python -m benchmarks.load coordinator --sites 10 50 200         # plan, collect, combine, publish, prove

Each prints a line of JSON: seconds, CPU seconds and megabytes, in all and for each site.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.round_overhead import measure, set_up
from flows.one_machine import OneMachine

T = TypeVar("T")


def main() -> None:
    """One measurement for each number of sites."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--sites", type=int, nargs="+", required=True)
    options = parser.parse_args()
    for sites in options.sites:
        print(json.dumps({"what": options.what, "sites": sites, **WHAT[options.what](sites)}), flush=True)


def processes(sites: int) -> dict[str, float]:
    """Two rounds after two of warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        machine = OneMachine(Path(folder) / "home")
        try:
            found = measure(machine, sites, 2, 17_000)
        finally:
            machine.stop()
    mb = found["memory_mb"]
    return {"round_s": found["round_wall_s_median"], "cpu_s": found["cpu_s_total"],
            "cpu_s_a_site": found["cpu_s_total"] / sites, "pss_mb": mb["all"]["pss"],
            "pss_mb_a_site": mb["sites"]["pss"] / sites}


def pools(sites: int) -> dict[str, float]:
    """From running servers to a federation of so many members, each with its pool and its deployments."""
    with tempfile.TemporaryDirectory() as folder:
        machine = OneMachine(Path(folder) / "home")
        try:
            machine.start_servers(lambda _: None)
            began = time.monotonic()
            set_up(machine, sites, 3, 17_000)
            enrolled = time.monotonic() - began
            registered = _registered(machine)
        finally:
            machine.stop()
    return {"enrol_s": enrolled, "enrol_s_a_site": enrolled / sites, "pools": registered}


def _registered(machine: OneMachine) -> int:
    from prefect import get_client

    async def count() -> int:
        async with get_client() as client:
            return len(await client.read_work_pools(limit=200))
    from flows.service import enter

    enter(machine.coordinator)
    return asyncio.run(count())


def simulated(sites: int) -> dict[str, float]:
    """A round of the pure functions, stacked, with privacy; from the difference of two lengths."""
    from fedround.agreement import Agreement
    from fedround.learning.recipe import load_recipe
    from fedround.simulation.campaign import simulate
    from fedround.simulation.chance import Seeded
    from fedround.simulation.sites import Site
    from fedround.values import parse
    from tests.small_federation import RECIPE, rows, settings

    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "recipe.py").write_text(RECIPE)
        recipe = load_recipe(path)
    agreement = parse(Agreement, settings(quorum=2, privacy={
        "unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 60}), "load")
    members = {f"s{n:04d}": Site(recipe.encode(rows(200, n)), recipe.encode(rows(20, n))) for n in range(sites)}

    def took(rounds: int) -> float:
        began = time.process_time()
        simulate(agreement, recipe, members, rounds=rounds, chance=Seeded(1), stacked=True, judge_every=100)
        return time.process_time() - began

    took(1)
    a_round = (took(50) - took(10)) / 40
    return {"cpu_s": a_round, "cpu_ms_a_site": 1000 * a_round / sites, "peak_mb": _peak_mb()}


def coordinator(sites: int) -> dict[str, float]:
    """The coordinator's half of a round, on a store in a folder: every member has answered. Then the proof of it."""
    from tasks.aggregate import aggregate
    from tasks.publish import publish
    from tasks.verify import verify_run
    from tests import small_federation

    with tempfile.TemporaryDirectory() as folder:
        names = tuple(f"s{number:04d}" for number in range(sites))
        federation = small_federation.make(Path(folder), names=names)
        seconds = dict[str, float]()

        def timed(name: str, step: Callable[[], T]) -> T:
            began = time.process_time()
            done = step()
            seconds[f"{name}_s"] = time.process_time() - began
            return done

        here = federation.coordinator
        planned = timed("plan", federation.plan)
        timed("all_sites", lambda: [federation.answer(name, planned) for name in names])
        collected = timed("collect", lambda: federation.collect(planned, here))
        combined = timed("combine", lambda: aggregate(here, planned, collected))
        timed("publish", lambda: publish(here, planned, collected, combined))
        timed("prove", lambda: list(verify_run(here.store, "spring", here.identity.key)))
    own = sum(seconds[f"{name}_s"] for name in ("plan", "collect", "combine", "publish"))
    return {**seconds, "coordinator_ms_a_site": 1000 * own / sites, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


WHAT = {"processes": processes, "pools": pools, "simulated": simulated, "coordinator": coordinator}


if __name__ == "__main__":
    main()
