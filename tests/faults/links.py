"""Whole rounds over bad links: a real S3 server behind a proxy that does harm, for every member and the coordinator.

Whoever fails is run again, as an operator or a service manager would. The round must end with the same model as over a good
link, every ledger must have one charge, every error must be a sentence, and nobody may wait longer than the patience that was
given.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from fedround.errors import FedroundError
from infra.settings import S3Credential
from infra.stores import ObjectStore, Patience, S3Store
from site_workers.site import open_site
from tasks.plan import plan_round
from tasks.requests import NextRoundRequest
from tasks.verify import verify_run
from tests.faulty import proxy as faults
from tests.faulty.proxy import UNDISTURBED, Disturbed, FaultyProxy, Harm
from tests.small_federation import NAMES, SmallFederation

T = TypeVar("T")
Disturb = Callable[[str, str], Disturbed]
PATIENCE_S = 20.0
"""For each step; on a good link one takes a second."""
HANGS_S = 300.0
"""Only a step that hangs takes so long, however busy the machine is."""
TRIES = 25


@dataclass(frozen=True)
class Link:
    """A bad link."""

    name: str
    disturb: Callable[[random.Random], Disturb]
    """Made anew for each round."""
    clock: timedelta = timedelta(0)
    """By how much the members' own clocks are wrong."""


def always(disturbed: Disturbed, *methods: str) -> Callable[[random.Random], Disturb]:
    """Every request with one of these methods; with all, if none is named."""
    return lambda _: lambda method, path: disturbed if not methods or method in methods else UNDISTURBED


def once(disturbed: Disturbed, method: str) -> Callable[[random.Random], Disturb]:
    """The first request with this method for each object."""
    def make(_: random.Random) -> Disturb:
        seen = set[str]()

        def disturb(asked: str, path: str) -> Disturbed:
            place = path.partition("?")[0] if asked == "PUT" else path
            if asked != method or place in seen:
                return UNDISTURBED
            seen.add(place)
            return disturbed
        return disturb
    return make


def now_and_then(disturbed: Disturbed, rate: float) -> Callable[[random.Random], Disturb]:
    """Any request with this chance."""
    return lambda chance: lambda method, path: disturbed if chance.random() < rate else UNDISTURBED


def storm(harm: Harm, length: int, calm: int) -> Callable[[random.Random], Disturb]:
    """So many requests, then `calm` good ones, and again."""
    def make(_: random.Random) -> Disturb:
        count = Counter[None]()

        def disturb(method: str, path: str) -> Disturbed:
            count[None] += 1
            return Disturbed(harm=harm) if (count[None] - 1) % (length + calm) < length else UNDISTURBED
        return disturb
    return make


LINKS = (
    *(Link(f"each upload cut at {percent} %", once(Disturbed(upload=percent / 100), "PUT")) for percent in range(0, 101, 10)),
    Link("each answer 0.2 s late", always(Disturbed(delay_s=0.2))),
    Link("each answer up to 5 s late, one in 20", now_and_then(Disturbed(delay_s=5.0), 0.05)),
    Link("20 % of requests lost", now_and_then(Disturbed(lost=True), 0.2)),
    Link("20 % of answers lost", now_and_then(Disturbed(silent=True), 0.2)),
    Link("bodies truncated behind a 200", once(Disturbed(harm=faults.shorten), "GET")),
    Link("bodies cut off", once(Disturbed(harm=faults.cut), "GET")),
    Link("reset after a PUT that worked", once(Disturbed(silent=True), "PUT")),
    Link("PUT said 503 and had worked", once(Disturbed(harm=faults.in_trouble), "PUT")),
    Link("storms of 503, 40 requests long", storm(faults.in_trouble, 40, 40)),
    Link("lists that do not know the newest", always(Disturbed(harm=faults.stale), "GET")),
    Link("the server's clock a day off, in storms", storm(faults.skewed, 15, 200)),    # a step ends at the first of them
    Link("members' clocks a day ahead", always(UNDISTURBED), timedelta(days=1)),
    Link("members' clocks a day behind", always(UNDISTURBED), timedelta(days=-1)),
    Link("slow bodies, one in ten", now_and_then(Disturbed(harm=faults.trickle), 0.1)),
)


@dataclass(frozen=True)
class Round:
    """What came of a round over a link."""

    models: frozenset[str]
    requests: int
    errors: tuple[str, ...]
    """What members and coordinator said before they were run again."""
    longest_s: float
    """Of one step."""
    wrong: str
    """What must not be; empty: nothing."""


def play(made: SmallFederation, root: Path, proxy: FaultyProxy, credential: S3Credential, link: Link, seed: int) -> Round:
    """One whole round over this link, in a copy of the federation below `root`."""
    federation, prefix = made.copy(root), f"{uuid4().hex}/"

    def store(endpoint: str) -> S3Store:
        return S3Store(endpoint, "fedround", credential.access_key, credential.secret_key, prefix=prefix)

    bad: ObjectStore = store(proxy.endpoint)
    errors, took, coordinator = list[str](), list[float](), federation.coordinator

    def until_it_works(step: Callable[[ObjectStore], T]) -> T:
        for _ in range(TRIES):
            began = time.monotonic()
            try:
                return step(bad.within(Patience(PATIENCE_S)))
            except FedroundError as error:
                errors.append(str(error))
            finally:
                took.append(time.monotonic() - began)
        raise AssertionError(f"{TRIES} tries did not suffice; the last error: {errors[-1]}")

    proxy.seen, proxy.disturb = [], link.disturb(random.Random(seed))
    try:
        planned = until_it_works(lambda bad: plan_round(dataclasses.replace(coordinator, store=bad), NextRoundRequest(
            run="spring")))
        for name in NAMES:
            until_it_works(lambda bad, name=name: federation.answer(name, planned, dataclasses.replace(
                open_site(federation.root / name, lambda: datetime.now(UTC) + link.clock), store=bad)))
        until_it_works(lambda bad: federation.commit(planned, dataclasses.replace(coordinator, store=bad)))
    finally:
        proxy.disturb = lambda method, path: UNDISTURBED
    good = store(proxy.endpoint)
    models = frozenset(good.list("models/"))
    return Round(models, len(proxy.seen), tuple(errors), max(took), _wrong(federation, good, errors, max(took)))


def _wrong(federation: SmallFederation, good: ObjectStore, errors: list[str], longest_s: float) -> str:
    if longest_s > HANGS_S:
        return f"a step took {longest_s:.0f} s, its patience was {PATIENCE_S:.0f}"
    if bad := [error for error in errors if not 20 < len(error) < 900 or "Traceback" in error]:
        return f"no sentence: {bad[0][:200]}"
    for name in NAMES:
        if (lines := len((federation.root / name / "ledger.jsonl").read_text().splitlines())) != 2:
            return f"the ledger of '{name}' has {lines - 1} charges"
    last = list(verify_run(good, "spring", federation.coordinator.identity.key))[-1]
    return "" if last.updates == tuple(sorted(NAMES)) else f"only {', '.join(last.updates)} are in the model"
