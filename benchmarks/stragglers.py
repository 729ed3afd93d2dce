"""Sites at speeds of 1 : 2 : 10: when a model is good enough. The twelve banks, by a virtual clock; fills docs/pace.md.

    python -m benchmarks.stragglers [--seeds 2]     # some minutes
    python -m benchmarks.stragglers --live          # three small sites that really sleep, through the whole round

Five ways to close a round, under one agreement otherwise. A fast site takes a minute for a plan. With privacy every site
keeps epsilon 5 for all that it gives within the hundred minutes: who gives more updates has more noise in each. Remembers
finished runs in build/stragglers.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import mean

from benchmarks.pages import Memory, fill, table
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.aggregation.staleness import Pace
from fedround.agreement import Agreement
from fedround.privacy.spec import NoPrivacy
from fedround.simulation.campaign import simulate
from fedround.simulation.chance import Seeded
from fedround.simulation.clock import turns
from fedround.simulation.sites import Site
from fedround_examples.banks.split import STORY

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


def live(rounds: int = 4, unit_s: float = 1.0) -> str:
    """Three small sites in folders of their own that sleep 1, 2 and 10 units before they answer: how long so many updates
    take to be committed, through plan, ledger, outbox, store, admission and commit. The Prefect plane is left out.
    """
    from tests import small_federation

    ways: dict[str, dict[str, object]] = {
        "synchronous: waits for all": {"quorum": 3},
        "asynchronous: a buffer of 1": {"quorum": 1, "enough": 1, "pace": {"max_age": 12}}}
    promise = {"unit": "record", "epsilon": 50.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 40}
    lines = []
    for name, how in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            federation = small_federation.make(Path(folder) / "live", max_epsilon=1000.0, privacy=promise, **how)
            began, updates, turns_done = time.monotonic(), 0, 0
            with ThreadPoolExecutor(3) as pool:
                at_work: dict[str, Future[None]] = {}
                while updates < 3 * rounds:
                    planned = federation.plan()
                    for site, speed in zip(federation.names, SPEEDS, strict=True):
                        if site in planned.plan.cohort:
                            at_work[site] = pool.submit(_slowly, federation, site, planned, speed * unit_s)
                    wanted = len(at_work) if "pace" not in how else 1
                    while sum(one.done() for one in at_work.values()) < wanted:
                        time.sleep(0.02)
                    commit = federation.commit(planned).commit
                    at_work = {site: one for site, one in at_work.items() if site in commit.missing}
                    updates, turns_done = updates + len(commit.updates), turns_done + 1
                seconds = time.monotonic() - began
            lines.append([name, f"{seconds:.1f}", str(updates), str(turns_done), f"{updates / seconds:.2f}"])
    return table(["way", "seconds", "updates", "rounds", "updates a second"], lines)


def _slowly(federation: object, site: str, planned: object, seconds: float) -> None:
    time.sleep(seconds)
    federation.answer(site, planned)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
