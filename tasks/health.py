"""What the coordinator's process says of itself: the last round, what it cost, and whom the round in progress waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from infra.health import Number
from tasks.coordinator import Coordinator
from tasks.progress import read_progress
from tasks.report import records

_IDLE = ("done", "failed")


def coordinator_numbers(coordinator: Coordinator) -> Callable[[], Iterator[Number]]:
    """A function that reads the numbers from the coordinator's folder."""

    def numbers() -> Iterator[Number]:
        progress = read_progress(coordinator.folder)
        if progress is None:
            return
        of = {"run": progress.run}
        idle = progress.stage in _IDLE
        yield Number("fedround_round_in_progress", "1 while a round is worked on.", 0 if idle else 1, of)
        yield Number("fedround_sites_waiting", "Sites that were asked and have said nothing yet.",
                     0 if idle else len(progress.waiting), of)
        yield Number("fedround_round_failed", "1 if the last round committed nothing.", progress.stage == "failed", of)
        if done := records(coordinator, progress.run):
            last = done[-1]
            yield Number("fedround_last_round", "The last committed round.", last.round, of)
            yield Number("fedround_last_round_seconds", "How long it took.", last.seconds, of)
            for name, value in last.numbers.items():
                yield Number(f"fedround_{name}", "Of the last round's model, as metrics.json names it.", value, of)
            if last.largest_epsilon is not None:
                yield Number("fedround_epsilon_spent", "The most that a site spent on this run.", last.largest_epsilon, of)
            if last.epsilon_limit is not None:
                yield Number("fedround_epsilon_limit", "What a site may spend on this run.", last.epsilon_limit, of)
            for site in last.sites:
                yield Number("fedround_site_updated", "1 if the site's update is in the last round.",
                             site.outcome == "updated", {**of, "site": site.site})

    return numbers
