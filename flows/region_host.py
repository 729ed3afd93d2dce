"""The life of a regional coordinator's process: it serves its own pool, one round at a time.

::

    python -m flows.region_host FOLDER
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedround import layout
from fedround.errors import Cancelled, FedroundError, SetupError
from fedround.spoken import how_many
from fedround.values import parse
from infra import health
from infra.logs import log_lines
from infra.prefect_client import use_api
from infra.serving import served_alone
from infra.settings import RegionSettings, load_toml
from infra.stores import require_conditional_writes
from tasks.region import Post, open_region, serve

log = logging.getLogger("fedround.region")


def serve_region(folder: Path) -> None:
    """Serve the region in `folder` until SIGTERM or SIGINT. Raises SetupError or StoreError with one sentence if it is not
    ready, and SetupError if another process serves this folder.
    """
    folder = folder.resolve()
    use_api(load_toml(RegionSettings, folder / "region.toml").api_url, folder)
    with served_alone(folder):
        post = open_region(folder)
        require_conditional_writes(post.store, f"{layout.region_prefix(post.settings.name)}probes")
        from infra.worker_process import serve as serve_pool
        from site_workers import worker_name
        from site_workers.worker import SiteWorker

        log.info("region '%s' adds up for federation '%s'", post.settings.name, post.settings.federation)
        numbers = RegionNumbers()
        worker = SiteWorker(post.settings.name, job(post, numbers), name=worker_name.settled(folder, post.settings.name))
        if health.is_wanted():
            health.serve(worker.trouble, numbers)
        serve_pool(worker)


class RegionNumbers:
    """What a region's process says of itself: its last sum."""

    def __init__(self) -> None:
        self._last: tuple[str, int, int, float] | None = None

    def added_up(self, run: str, number: int, members: int) -> None:
        """The region has signed a sum of so many members' updates."""
        self._last = run, number, members, time.time()

    def __call__(self) -> Iterator[health.Number]:
        """The numbers now."""
        if self._last is not None:
            run, number, members, when = self._last
            of = {"run": run}
            yield health.Number("fedround_last_round", "The last round whose updates this process added up.", number, of)
            yield health.Number("fedround_members_added_up", "How many members' updates are in its sum.", members, of)
            yield health.Number("fedround_last_work_timestamp_seconds", "When it signed the sum.", when, of)


def job(post: Post, numbers: RegionNumbers) -> Callable[[dict[str, Any], Callable[[], bool]], Any]:
    """What a flow run in the region's pool does. Nothing that it tells the API depends on a row or an update."""
    from site_workers.outcome import STOPPED, Ending, Outcome
    from site_workers.round import SiteRequest

    def work(parameters: dict[str, Any], cancelled: Callable[[], bool]) -> Outcome:
        asked = parse(SiteRequest, parameters, "parameters of the flow run")
        if asked.purpose != "train":
            raise SetupError(f"regions add up updates, and round {asked.round} of run '{asked.run}' asks to {asked.purpose}")
        try:
            said = serve(post, asked.run, asked.round, asked.attempt, cancelled)
        except Cancelled:
            return STOPPED
        numbers.added_up(asked.run, asked.round, len(said.counted))
        return Outcome(Ending.ANSWERED, f"a partial sum of {how_many(len(said.counted), 'member')}")

    return work


def main(folder: Path) -> int:
    """Serve until SIGTERM or SIGINT; a problem is one sentence in the log and exit code 1."""
    log_lines("%(asctime)s %(name)s %(message)s")
    try:
        serve_region(folder)
    except FedroundError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
