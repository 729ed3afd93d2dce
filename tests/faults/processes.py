"""A campaign on a live federation with a fault in each round: a process killed or stopped, a disk full, a cable pulled.

What was disturbed is mended as an operator would (`fedround up`, the members started again), and a campaign that failed with
a sentence is asked for again. In the end every round is committed with all sites, each ledger has one charge for each,
`verify --recompute` computes every model again from the updates, no flow run is left running; and every update has the bytes
that an undisturbed site gives to the same plans: copies of the sites' folders, made before, answer them again without
Prefect, on another store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import psutil

from fedround import layout
from fedround.errors import FedroundError
from fedround.records import Commit
from infra.history import last_round, read_commit, read_plan
from infra.stack import LocalStack
from infra.stack.processes import recorded
from infra.stores import MemoryStore, ObjectInfo, ObjectStore
from site_workers import rollback
from site_workers import round as site_round
from site_workers.site import open_site
from tasks.coordinator import open_coordinator
from tests.e2e.conftest import Federation, founded, wait
from tests.faults.tried import Tried
from tests.faulty.proxy import UNDISTURBED, Disturbed, FaultyProxy, in_front_of
from tests.small_federation import NAMES

ROUNDS, RUN = 10, "storm"
STOPPED_S = 30.0
"""How long a process stands still, a disk is full, a cable is out."""
PATIENCE_S = 900.0
"""Only what hangs takes so long."""
SITES = "sites"
SERVERS = ("prefect", "postgres", "s3")


class Campaign:
    """A running one, and what may happen to it."""

    def __init__(self, real: Federation, cable: FaultyProxy, stopped_s: float, chance: random.Random):
        self.real, self.cable, self._stopped_s, self.chance = real, cable, stopped_s, chance
        self.said: list[str] = []
        """What failed campaigns said."""

    def fault(self, name: str) -> None:
        """Let it happen; mended when this returns."""
        what, _, who = name.partition(" ")
        if what == "kill":
            os.kill(self._pid(who), signal.SIGKILL)
            self._mend()
        elif what == "stop":
            with self._stopped(self._pid(who)):
                time.sleep(self._stopped_s)
        elif what == "fill":
            with full_disk(self._pid(who)):
                time.sleep(self._stopped_s)
        else:
            self.cable.disturb = lambda method, path: Disturbed(lost=True)
            time.sleep(self._stopped_s)
            self.cable.disturb = lambda method, path: UNDISTURBED

    def _pid(self, who: str) -> int:
        if who in SERVERS:
            return self.real.machine.start_servers(lambda _: None).pids[who]
        return recorded(self.real.machine.home)[who]

    @contextmanager
    def _stopped(self, pid: int) -> Iterator[None]:
        """The process and all its children stand still."""
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for one in family:
            with suppress(psutil.Error):
                one.suspend()
        try:
            yield
        finally:
            for one in family:
                with suppress(psutil.Error):
                    one.resume()

    def _mend(self) -> None:
        """As an operator does: servers, then members' processes, whatever is not there."""
        self.real.machine.start_servers(lambda _: None)
        for _ in range(3):
            try:
                self.real.start_processes()
            except FedroundError as error:      # a process that began while a server was away: it is started again
                self.said.append(f"starting again: {error}")
            else:
                return
        self.real.start_processes()


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """The process, and whoever it has forked, can make no file longer: for them the disk is full."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for one in family:
        with suppress(psutil.Error):
            one.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for one in family:
            with suppress(psutil.Error):
                one.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


FAULTS = (*(f"{what} {who}" for what in ("kill", "stop") for who in (SITES, "coordinator", *SERVERS)), f"fill {SITES}",
          "cable between sites and store")


def tried_campaigns(seed: int, stopped_s: float = STOPPED_S, faults: tuple[str, ...] = FAULTS) -> Iterator[Tried]:
    """One campaign in which every fault comes once at least, in an order by chance. A row for each fault."""
    chance = random.Random(seed)
    order = [*faults, *(chance.choice(faults) for _ in range(max(0, ROUNDS - len(faults))))]
    chance.shuffle(order)
    with tempfile.TemporaryDirectory(prefix="fedround-storm-") as folder:
        stack = LocalStack(Path(folder) / "stack")
        stack.start(lambda _: None)
        try:
            with founded(stack, quorum=3, deadline_s=120, drift=None, choices=None) as real, in_front_of(
                    stack.find(stack.home).s3_endpoint) as cable:
                for name in NAMES:
                    path = real.machine.site(name) / "site.toml"
                    path.write_text(path.read_text().replace(stack.find(stack.home).s3_endpoint, cable.endpoint))
                before = Path(folder) / "before"
                shutil.copytree(real.machine.home / "sites", before / "sites")
                shutil.copytree(real.machine.coordinator, before / "coordinator")
                real.start_processes()
                campaign, wrong = Campaign(real, cable, stopped_s, chance), dict[str, list[str]]()
                rounds = max(ROUNDS, len(order))
                for number, name in enumerate(order, 1):
                    began = time.monotonic()
                    problem = _round(campaign, number, rounds, name)
                    wrong.setdefault(name, []).extend([problem] if problem else [])
                    print(f"    round {number}: {name}: {time.monotonic() - began:.0f} s {problem}", flush=True)
                for name in dict.fromkeys(order):
                    yield Tried(name, 1, order.count(name), tuple(wrong[name]))
                ends = _in_the_end(real, rounds, before)
                yield Tried("in the end all is as undisturbed", 1, 1, tuple(ends))
                for line in campaign.said:
                    print(f"    said: {line[:300]}", flush=True)
        finally:
            stack.stop()


def _round(campaign: Campaign, number: int, rounds: int, fault: str) -> str:
    """One more round, disturbed while it runs; asked for again until it is committed. What went wrong; empty: nothing."""
    real = campaign.real
    started = real.start("federated-training", run=RUN, rounds=number)
    wait(lambda: _began(real, number) or real.flow_run(started).state.is_final(), f"round {number} to begin", PATIENCE_S)
    time.sleep(campaign.chance.random() * 1.5)
    campaign.fault(fault)
    for _ in range(6):
        ended = real.ended(started, PATIENCE_S)
        if _committed(real) >= number:
            return ""
        campaign.said.append(f"{fault}: {ended.state.message}")
        campaign._mend()
        started = real.start("federated-training", run=RUN, rounds=number)
    return f"round {number} was not committed after six campaigns; the last said: {campaign.said[-1]}"


def _began(real: Federation, number: int) -> bool:
    with suppress(Exception):
        return real.store.head(layout.plan(RUN, number, 1, "train")) is not None
    return False


def _committed(real: Federation) -> int:
    coordinator = open_coordinator(real.machine.coordinator)
    return last_round(coordinator.store, RUN, coordinator.identity.key) or 0


def _in_the_end(real: Federation, rounds: int, before: Path) -> Iterator[str]:
    coordinator = open_coordinator(real.machine.coordinator)
    commits = [read_commit(coordinator.store, RUN, number, coordinator.identity.key).commit
               for number in range(1, rounds + 1)]
    for commit in commits:
        if (sites := [update.site for update in commit.updates]) != sorted(NAMES):
            yield f"round {commit.round}: only {', '.join(sites)} answered"
    for name in NAMES:
        trained = [line for line in real.charges(name, RUN) if '"train"' in json.dumps(line)]
        if len(trained) != rounds:
            yield f"'{name}' was charged {len(trained)} times for {rounds} rounds"
    done = real.command("verify", RUN, "--as", real.machine.coordinator, "--recompute", "--json")
    if done.returncode != 0:
        yield f"verify: {done.stderr[-300:]}"
    left = [run for run in (real.site_run(RUN, name, number) for name in NAMES for number in range(1, rounds + 1))
            if run is not None and not run.state.is_final()]
    if left:
        yield f"flow runs that nobody runs: {', '.join(run.name for run in left)}"
    yield from others_than_undisturbed(real.store, coordinator.identity.key, commits, before / "sites")


class _UpTo(MemoryStore):
    """The live store's objects, but for what sites sent, and as if the rounds from `number` on were not committed."""

    number = 1

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        return None if self._is_later(key) else super().head(key)

    def list(self, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        return (key for key in super().list(prefix) if not self._is_later(key))

    def _is_later(self, key: str) -> bool:
        found = layout.parse_commit(key)
        return found is not None and found[1] >= self.number


def others_than_undisturbed(live: ObjectStore, key: str, commits: Sequence[Commit], sites: Path) -> Iterator[str]:
    """Which updates have other bytes than a site sends that nobody has disturbed.

    sites: their folders as they were before, by name. Each plan is answered from a fresh copy, which does not ask whether it
    was restored from a backup: it was, and the history holds answers that it does not know.
    """
    store = _UpTo()
    for name in live.list(""):
        if not name.startswith("sites/"):
            store.put_once(name, live.get(name))
    for commit in commits:
        plan, store.number = read_plan(live, commit, key), commit.round
        for update in commit.updates:
            with tempfile.TemporaryDirectory() as folder, mock.patch.object(rollback, "refusal", return_value=None):
                shutil.copytree(sites / update.site, Path(folder) / update.site)
                site = dataclasses.replace(open_site(Path(folder) / update.site), store=store)
                site_round.answer(site, site_round.SiteRequest(run=commit.run, round=commit.round, attempt=plan.attempt,
                                                               purpose="train"), lambda: False)
            sent = hashlib.sha256(store.get(layout.delta(update.site, commit.run, commit.round, plan.attempt))).hexdigest()
            if sent != update.payload:
                yield f"round {commit.round}: '{update.site}' sent other bytes than an undisturbed site"
