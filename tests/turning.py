"""One of several coordinators, as a process without Prefect: it goes on with a run until so many rounds are committed.

    python -m tests.turning FOLDER RUN ROUNDS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from infra.history import last_round
from tasks.aggregate import aggregate
from tasks.collect import collect, have_answered
from tasks.coordinator import open_coordinator
from tasks.plan import plan_round
from tasks.publish import publish
from tasks.requests import NextRoundRequest
from tasks.rotation import by_majority, follow


def main(folder: Path, run: str, rounds: int) -> None:
    """Propose in turn, sign what others propose."""
    coordinator = open_coordinator(folder)
    while (last_round(coordinator.store, run, coordinator.key) or 0) < rounds:
        if (done := follow(coordinator, run)) is not None:
            print("signed", done.commit.round, flush=True)
            continue
        planned = plan_round(coordinator, NextRoundRequest(run=run), by_majority(coordinator))

        async def answered(among: set[str], planned=planned) -> set[str]:
            return await have_answered(coordinator, planned, among)

        collected = asyncio.run(collect(coordinator, planned, answered, lambda _: None))
        made = publish(coordinator, planned, collected, aggregate(coordinator, planned, collected), by_majority(coordinator))
        print("proposed", made.commit.round, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
