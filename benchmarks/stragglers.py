"""Sites at speeds of 1 : 2 : 10: when a model is good enough. The twelve banks, by a virtual clock; fills docs/pace.md.

    python -m benchmarks.stragglers [--seeds 2]     # some minutes
    python -m benchmarks.stragglers --live          # three small sites that really sleep, through the whole round

Five ways to close a round, under one agreement otherwise. A fast site takes a minute for a plan. With privacy every site
keeps epsilon 5 for all that it gives within the hundred minutes: who gives more updates has more noise in each. Remembers
finished runs in build/stragglers.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks.pages import Memory, fill, table
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.aggregation.staleness import Pace
from fedround.agreement import Agreement
from fedround.errors import Cancelled
from fedround.privacy.spec import NoPrivacy
from fedround.records import Plan
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.clock import turns
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY

if TYPE_CHECKING:
    from tasks.plan import Planned
    from tests.small_federation import SmallFederation

DOCS = Path("docs")
MINUTE = 60.0
SPEEDS = (1, 2, 10)
HORIZON_S = 100 * MINUTE
TARGETS, HOLDS = {"mixed": 0.78, "private": 0.75, "large": 0.78}, 10
"""The AUC on the public test set, and for how many minutes it must hold."""
RATE = 1.0


@dataclass(frozen=True)
class Way:
    """How rounds are closed."""

    name: str
    quorum: int
    deadline_s: int = 100_000
    enough: int | None = None
    pace: Pace | None = None

    def agreement(self, updates: int | None) -> Agreement:
        """The banks', closed in this way. updates: how many one site may give under the promise; None: no privacy."""
        agreed = STORY.settings()
        said = {name: getattr(agreed, name) for name in agreed.model_fields_set} | {
            "quorum": self.quorum, "deadline_s": self.deadline_s, "enough": self.enough, "pace": self.pace, "groups": None,
            "aggregation": Aggregation(rule=WeightedMean()),
            "training": agreed.training.model_copy(update={"learning_rate": RATE}),
            "privacy": NoPrivacy() if updates is None else agreed.privacy.model_copy(update={"rounds": updates})}
        return Agreement(**said)


OLD = Pace(max_age=20)
WAYS = (
    Way("synchronous: waits for all", quorum=12),
    Way("deadline of 2.5 minutes, the rest is stopped", quorum=7, deadline_s=150),
    Way("over-selection: the first 7 of 12, the rest is stopped", quorum=7, enough=7),
    Way("semi-synchronous: deadline of 1.5 minutes, late answers count", quorum=2, deadline_s=90, pace=OLD),
    Way("asynchronous: a buffer of 4", quorum=4, enough=4, pace=OLD),
)


@dataclass(frozen=True)
class Reached:
    """What one run reached."""

    target_min: float | None
    """From when on the target held."""
    last: float
    """AUC at the end."""
    rounds: int
    updates: int
    """Of the site that gave most; each of them is paid."""
    lost: int
    """Updates that were paid for and counted for nothing."""
    curve: tuple[tuple[float, float], ...]
    """Minutes and AUC."""


def main() -> None:
    """Run what is not remembered, then write table and picture; or run live."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Sites at speeds of 1 : 2 : 10.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--live", action="store_true")
    asked = parser.parse_args()
    if asked.live:
        print(live())
        return
    memory = Memory(Path("build/stragglers.json"))
    names = sorted(STORY.encoded().train)
    mixed = {name: MINUTE * SPEEDS[place % 3] * (1 + 0.02 * (place // 3)) for place, name in enumerate(names)}
    large = {name: MINUTE * SPEEDS[2 - place // 4] * (1 + 0.02 * (place % 4)) for place, name in enumerate(names)}
    found = {}
    for part, seconds, private in (("mixed", mixed, False), ("private", mixed, True), ("large", large, False)):
        found[part] = {way.name: [reached(memory, part, way, seconds, seed, private=private) for seed in range(asked.seeds)]
                       for way in WAYS}
        text = report(found[part], TARGETS[part])
        print(f"{part}\n{text}\n", flush=True)
        fill(DOCS / "pace.md", part, text)
    draw(found, DOCS / "pace.svg")


def reached(memory: Memory, part: str, way: Way, seconds: Mapping[str, float], seed: int, *, private: bool) -> Reached:
    """One run, remembered."""
    said = memory.recall(f"{part} {way.name}", [way.agreement(None).model_dump(mode="json"), dict(seconds), seed],
                         lambda: run(way, seconds, seed, private=private))
    return Reached(lasting(said["curve"], TARGETS[part]), said["last"], said["rounds"], said["updates"], said["lost"],
                   tuple((minute, auc) for minute, auc in said["curve"]))


def run(way: Way, seconds: Mapping[str, float], seed: int, *, private: bool) -> dict[str, object]:
    """One campaign of a hundred minutes."""
    rows = STORY.encoded()
    within = [*takewhile(lambda turn: turn.ended_s <= HORIZON_S, turns(way.agreement(None), seconds, 1000))]
    given = Counter(site for turn in within for site in turn.asked)
    most = max(given.values())
    result = simulate(way.agreement(most if private else None), STORY.recipe(), {
        name: Site(own) for name, own in rows.train.items()}, rounds=len(within), chance=Seeded(seed), stacked=True,
        test=rows.test, seconds=seconds)
    curve = [(one.ended_s / MINUTE, one.test.known()["auc"]) for one in result.rounds
             if one.ended_s is not None and one.test is not None]
    return {"last": curve[-1][1], "rounds": len(within), "updates": most,
            "lost": sum(len(turn.lost) for turn in within), "curve": curve}


def lasting(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """From which minute on the target held for as long as it must; None: it never did."""
    since = None
    for minute, auc in curve:
        since = None if auc < target else minute if since is None else since
        if since is not None and minute - since >= HOLDS:
            return since
    return None


def report(found: Mapping[str, Sequence[Reached]], target: float) -> str:
    """A table."""
    first = next(iter(found.values()))
    base = _mean([one.target_min for one in first])
    rows = []
    for name, runs in found.items():
        minutes = _mean([one.target_min for one in runs])
        rows.append([name, "not reached" if minutes is None else f"{minutes:.0f}",
                     "–" if minutes is None or base is None else f"{base / minutes:.1f} ×",
                     f"{mean(one.last for one in runs):.4f}", str(runs[0].rounds), str(runs[0].updates), str(runs[0].lost)])
    return table([f"until AUC {target} holds", "minutes", "faster", "AUC after 100 minutes", "rounds",
                  "updates of the fastest", "paid for nothing"], rows)


def _mean(found: Sequence[float | None]) -> float | None:
    known = [one for one in found if one is not None]
    return mean(known) if len(known) == len(found) else None


def draw(found: Mapping[str, Mapping[str, Sequence[Reached]]], path: Path) -> None:
    """The first seed's curves."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fedround"
    import matplotlib.pyplot as plt

    titles = {"mixed": "every size at every speed", "private": "the same, epsilon 5", "large": "the largest are slow"}
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), sharey=True)
    for axis, (part, ways) in zip(axes, found.items(), strict=True):
        for name, runs in ways.items():
            axis.plot(*zip(*runs[0].curve, strict=True), label=name.partition(":")[0].partition(",")[0], linewidth=1.2)
        axis.axhline(TARGETS[part], color="grey", linewidth=0.6)
        axis.set(title=titles[part], xlabel="minutes", ylim=(0.7, 0.795))
    axes[0].set_ylabel("AUC on the public test set")
    axes[0].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


# -- live --------------------------------------------------------------------------------------------------------------

LIVE_TARGET, LIVE_MOST = 0.65, 60
"""The AUC on the public test set, and after how many rounds a way has failed."""
LIVE = {
    WAYS[0].name: ({"quorum": 3}, None, 8),
    "deadline of 2.5 units, the rest is stopped": ({"quorum": 2}, 2.5, 8),
    "over-selection: the first 2 of 3, the rest is stopped": ({"quorum": 2, "enough": 2}, None, 8),
    "semi-synchronous: deadline of 1.5 units, late answers count": ({"quorum": 1, "pace": {"max_age": 12}}, 1.5, 12),
    "asynchronous: a buffer of 1": ({"quorum": 1, "enough": 1, "pace": {"max_age": 12}}, None, 20)}
"""What is agreed; the deadline; and with privacy, for how many updates of one site the noise is made."""


def live(unit_s: float = 2.0) -> str:
    """Three small sites in folders of their own that really sleep 1, 2 and 10 units after they have paid: when a model is
    good enough, through plan, ledger, outbox, store, admission, aggregation and commit. The Prefect plane is left out.
    """
    import great_expectations  # noqa: F401  # so that sites judge their rows in this process, and start none

    from site_workers import round as site_round

    undisturbed, streams = site_round.work, (sys.stdout, sys.stderr)
    lines = []
    for private in (False, True):
        for name, (how, deadline, updates) in LIVE.items():
            kept = {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": updates}
            promise = kept if private else {"unit": "none"}
            said = _Live(how, promise, unit_s, None if deadline is None else deadline * unit_s)
            site_round.work = said.slowly(undisturbed)
            try:
                lines.append([f"{name}{', epsilon 8' if private else ''}", *said.run()])
            finally:
                site_round.work = undisturbed
                sys.stdout, sys.stderr = streams    # rows are judged with others, and three threads put them back as it comes
            print(lines[-1], flush=True)
    return table([f"until AUC {LIVE_TARGET}", "seconds", "rounds", "updates", "of the fastest", "paid for nothing"], lines)


class _Live:
    """One way, live."""

    def __init__(self, how: Mapping[str, object], promise: Mapping[str, object], unit_s: float, deadline_s: float | None):
        self._how, self._promise, self._unit_s, self._deadline_s = how, promise, unit_s, deadline_s
        self._mine = threading.local()

    def slowly(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The work of a site, which begins after its sleep; who is told to stop wakes up."""
        def worked(*asked: Any) -> Any:
            end, guard = time.monotonic() + self._mine.sleeps_s, asked[-1]
            while time.monotonic() < end and not guard():
                time.sleep(0.02)
            return work(*asked)

        return worked

    def run(self) -> list[str]:
        """Seconds, rounds, and what became of updates."""
        from tasks.evaluate import evaluate
        from tests import small_federation

        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(3) as pool:
            federation = small_federation.make(
                Path(folder) / "live", max_epsilon=1000.0, units=("record", "none"), privacy=self._promise,
                optimizer={"name": "fedavg", "learning_rate": 1.0},
                training={"local_steps": 3, "batch_size": 32, "learning_rate": 0.1}, **self._how)
            speeds = dict(zip(federation.names, SPEEDS, strict=True))
            began, rounds, given, asked, auc = time.monotonic(), 0, Counter[str](), 0, 0.0
            at_work: dict[str, tuple[Future[None], threading.Event]] = {}
            while auc < LIVE_TARGET and rounds < LIVE_MOST:
                planned, opened = federation.plan(), time.monotonic()
                for site in planned.plan.cohort:
                    stop = threading.Event()
                    at_work[site] = pool.submit(self._answer, federation, site, planned, speeds[site], stop), stop
                    asked += 1
                while not self._closes(planned.plan, at_work, opened):
                    time.sleep(0.02)
                commit = federation.commit(planned).commit
                for site in [*at_work]:
                    if site not in commit.missing:
                        at_work.pop(site)
                    elif planned.plan.agreed.pace is None:
                        at_work[site][1].set()
                        at_work.pop(site)[0].result()
                given.update(update.site for update in commit.updates)
                rounds, auc = rounds + 1, evaluate(federation.coordinator, commit).known()["auc"]
            seconds = time.monotonic() - began
            for _, stop in at_work.values():
                stop.set()
            nothing = asked - given.total() - len(at_work)
        return [f"{seconds:.0f}" if auc >= LIVE_TARGET else f"not in {LIVE_MOST} rounds", str(rounds), str(given.total()),
                str(max(given.values())), str(nothing)]

    def _closes(self, plan: Plan, at_work: Mapping[str, tuple[Future[None], threading.Event]], opened: float) -> bool:
        done = sum(one.done() for one, _ in at_work.values())
        late = self._deadline_s is not None and time.monotonic() - opened > self._deadline_s and done >= plan.quorum
        return late or done == len(at_work) or (plan.enough is not None and done >= plan.enough)

    def _answer(self, federation: SmallFederation, site: str, planned: Planned, speed: int, stop: threading.Event) -> None:
        from site_workers import round as site_round

        self._mine.sleeps_s, plan = speed * self._unit_s, planned.of(site).plan
        with suppress(Cancelled):
            site_round.answer(federation.site(site), site_round.SiteRequest(
                run=plan.run, round=plan.round, attempt=plan.attempt, purpose=plan.asks.kind), stop.is_set)


if __name__ == "__main__":
    main()
