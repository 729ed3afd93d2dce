"""What the coordinator's half of a round costs when a campaign gets long: plan, collect, combine, publish, report.

    python -m benchmarks.long_run                     # 100 rounds, two sites, a real S3 server

Prefect is left out, the store is an S3 server of this machine. Every line is a mean over ten rounds: CPU seconds of this
process, of the S3 server, and how often the store was asked, in all and for a list.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.pages import table
from infra.stack.ports import choose
from infra.stack.seaweedfs import PORTS, SeaweedFS, endpoint
from infra.stores import S3Store
from tasks.catch_up import catch_up
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest
from tests import small_federation

RUN = "long"
MARKS = 10


class Counted(S3Store):
    """Counts requests."""

    asked, lists = 0, 0

    def get(self, key: str, *, max_bytes: int | None = None, sha256: str | None = None) -> bytes:
        """See ObjectStore."""
        Counted.asked += 1
        return super().get(key, max_bytes=max_bytes, sha256=sha256)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        Counted.asked += 1
        Counted.lists += 1
        return super().list(prefix)


def main() -> None:
    """Run, print."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, _server(Path(folder) / "s3") as (server, store):
        federation = small_federation.make(Path(folder) / "small", names=("ash", "birch"), max_epsilon=900.0, privacy={
            "unit": "record", "epsilon": 50.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": options.rounds})
        here = dataclasses.replace(federation.coordinator, store=store)
        sites = {name: dataclasses.replace(federation.site(name), store=store) for name in federation.names}
        own = at_server = 0.0
        for number in range(1, options.rounds + 1):
            before, of_server = time.process_time(), _cpu_s(server)
            catch_up(here, RUN)                 # reports the round before, as the next round does after a kill
            planned = plan_round(here, NextRoundRequest(run=RUN))
            own += time.process_time() - before
            for name, site in sites.items():
                federation.answer(name, planned, site)
            before = time.process_time()
            federation.commit(planned, here)
            own, at_server = own + time.process_time() - before, at_server + _cpu_s(server) - of_server
            if number % MARKS == 0:
                each = (1000 * own, 1000 * at_server, Counted.asked, Counted.lists)
                rows.append([f"{number - MARKS + 1} to {number}", *(f"{one / MARKS:.0f}" for one in each)])
                print(rows[-1], flush=True)
                own, at_server, Counted.asked, Counted.lists = 0.0, 0.0, 0, 0
    print(table(["rounds", "coordinator, CPU ms", "S3 server, CPU ms", "requests", "lists among them"], rows))


@contextmanager
def _server(root: Path) -> Iterator[tuple[psutil.Process, S3Store]]:
    server, ports = SeaweedFS(root), choose(PORTS, {}, {})
    server.spawn(ports)
    try:
        server.wait_ready(ports["s3"])
        key = server.coordinator_credential()
        if (process := server.server.process()) is None:
            raise SystemExit("the S3 server has ended")
        yield process, Counted(endpoint(ports["s3"]), "fedround", key.access_key, key.secret_key)
    finally:
        server.ask_to_stop()
        server.wait_stopped(ports)


def _cpu_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


if __name__ == "__main__":
    main()
