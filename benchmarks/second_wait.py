"""What the second wait of a secure sum takes: from all masked answers to the sum, with a process for each site and a real S3
server. Wall time and CPU seconds, by part.

    python -m benchmarks.second_wait [--sites 12] [--rounds 5]

Sites run the product's own code, each in a process of its own, forked from one that has imported it. Prefect is left out: no
flow run begins or ends in this wait. On a busy machine CPU seconds are the number to compare; the least that the wall can be
is their sum, divided by the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks.pages import table
from infra.settings import CoordinatorSettings, DataSettings, S3Settings, load_toml, save_toml
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint

RUN = "waits"


def main() -> None:
    """Set up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        print(table(["round", "load", "to the question, s", "until enough have revealed, s", "masks off, s", "in all, s",
                     "CPU s: coordinator", "sites", "store"], measure(Path(folder), options.sites, options.rounds)))


def measure(root: Path, sites: int, rounds: int) -> list[list[str]]:
    """A line for each round."""
    import great_expectations  # noqa: F401 - both once, before they are forked; then rows are judged in the same process

    import site_workers.round  # noqa: F401
    from benchmarks.round_overhead import CONTRACT, RECIPE

    server, ports = SeaweedFS(root / "s3"), choose(PORTS, {}, {})
    server.spawn(ports)
    children: dict[str, tuple[multiprocessing.process.BaseProcess, Connection]] = {}
    try:
        server.wait_ready(ports["s3"])
        store = S3Settings(endpoint=endpoint(ports["s3"]), bucket=BUCKET)
        (root / "recipe.py").write_text(RECIPE.format(inputs=100, hidden=170))
        (root / "contract.json").write_text(json.dumps(CONTRACT))
        names = [f"site-{n:02d}" for n in range(sites)]
        set_up(root, server, ports["s3"], store, names, rounds)
        fork = multiprocessing.get_context("fork")
        for name in names:
            here, there = fork.Pipe()
            process = fork.Process(target=serve, args=(root / name, there), daemon=True)
            process.start()
            children[name] = process, here
        pid = next(process.pid for process in psutil.Process().children() if process.name().startswith("weed"))
        return coordinate(root / "coordinator", children, psutil.Process(pid), rounds)
    finally:
        for process, _ in children.values():
            process.terminate()
        server.ask_to_stop()
        server.wait_stopped(ports)


def set_up(root: Path, server: SeaweedFS, port: int, store: S3Settings, names: list[str], rounds: int) -> None:
    """A federation of these sites, two of which may be missing in a sum."""
    from site_workers.enrol import create_site
    from site_workers.policy import SitePolicy
    from tasks.invitations import invite_site
    from tasks.membership import add_member, create_coordinator

    count, generator = len(names), np.random.default_rng(0)
    create_coordinator(root / "coordinator", {
        "name": "waiting", "quorum": count - 2, "deadline_s": 600, "evaluation": {"noise_std": 50.0},
        "training": {"name": "union_step", "batch_size": 50 * count, "learning_rate": 0.1},
        "privacy": {"unit": "record", "epsilon": 1.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": rounds + 1},
        "combine": {"name": "secure_sum", "threshold": count - 2, "dropouts": 2, "colluders": 1}},
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", api_url="http://127.0.0.1:9/api",
                            store=store), root / "recipe.py", root / "contract.json", server.coordinator_credential())
    for name in names:
        paths = [root / "data" / name / f"{part}.parquet" for part in ("train", "validation")]
        paths[0].parent.mkdir(parents=True)
        for path, size in zip(paths, (200, 60), strict=True):
            pd.DataFrame({"x": generator.normal(size=size), "y": np.arange(size) % 2}).to_parquet(path)
        rows = DataSettings(dataset="people", train=str(paths[0]), validation=str(paths[1]))
        key = create_site(root / name, invite_site(root / "coordinator", name, server.grant_site(name, port)), rows,
                          max_epsilon=5.0, delta_dp=1e-5, min_rows=50)
        policy = root / name / "policy.toml"
        save_toml(load_toml(SitePolicy, policy).model_copy(update={"max_epsilon_alone": 900.0}), policy, "alone, too")
        add_member(root / "coordinator", name, key, 200.0, 200)


def serve(folder: Path, told: Connection) -> None:
    """A site's process: answers what it is told to, and waits on for the sum."""
    from site_workers.round import SiteRequest, answer
    from site_workers.site import open_site

    site = open_site(folder)
    while True:
        message = answer(site, SiteRequest(**told.recv()), lambda: False).message
        told.send(message)


def coordinate(folder: Path, children: dict[str, Any], weed: psutil.Process, rounds: int) -> list[list[str]]:
    """The coordinator's half, in this process."""
    from flows.asked import SOON_S
    from tasks.aggregate import aggregate
    from tasks.ask import conclude
    from tasks.collect import collect, have_answered
    from tasks.coordinator import open_coordinator
    from tasks.plan import plan_round
    from tasks.publish import publish
    from tasks.requests import NextRoundRequest
    from tasks.setting_up import next_question
    from tasks.unmask import plan_reveal, suffices, unmask_sum

    coordinator, processes = open_coordinator(folder), [psutil.Process(process.pid) for process, _ in children.values()]

    def ask(planned: Any) -> Any:
        plan = planned.plan
        for _, pipe in children.values():
            pipe.send({"run": plan.run, "round": plan.round, "attempt": plan.attempt, "purpose": plan.asks.kind})
        return asyncio.run(collect(coordinator, planned, partial(have_answered, coordinator, planned), lambda _: None))

    def heard() -> None:
        for _, pipe in children.values():
            pipe.recv()

    while (planned := next_question(coordinator, NextRoundRequest(run=RUN))) is not None:
        conclude(coordinator, planned, ask(planned))
        heard()
    lines = []
    for number in range(1, rounds + 1):
        planned = plan_round(coordinator, NextRoundRequest(run=RUN))
        answers = ask(planned)
        before, began = _cpu([weed], processes), time.monotonic()
        reveal = plan_reveal(coordinator, planned, answers)
        asked = time.monotonic()
        said = asyncio.run(collect(
            coordinator, reveal, partial(have_answered, coordinator, reveal), lambda _: None,
            enough=partial(suffices, coordinator, planned, reveal), at_first_s=SOON_S))
        enough = time.monotonic()
        answers = unmask_sum(coordinator, planned, answers, reveal, said)
        done, after = time.monotonic(), _cpu([weed], processes)
        publish(coordinator, planned, answers, aggregate(coordinator, planned, answers))
        heard()
        lines.append([f"{number}", f"{os.getloadavg()[0]:.0f}", *(f"{end - start:.2f}" for start, end in (
            (began, asked), (asked, enough), (enough, done), (began, done))), *(
            f"{now - then:.2f}" for now, then in zip(after, before, strict=True))])
        print(lines[-1], flush=True)
    return lines


def _cpu(*parts: list[psutil.Process]) -> list[float]:
    """CPU seconds of this process, of the sites, and of the store."""
    store, sites = parts
    return [time.process_time(), *(sum(sum(process.cpu_times()[:2]) for process in some) for some in (sites, store))]


if __name__ == "__main__":
    main()
