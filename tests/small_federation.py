"""A whole federation without Prefect: real folders, keys, ledgers and a real store in one directory, three small sites."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tomlkit

from fedround import codec, layout
from fedround.errors import StoreUnavailableError
from fedround.records import Answer, Commit, PartialSum, Plan, Update
from fedround.regions.spec import Region
from fedround.signing import seal, unseal
from fedround.statistics import GroupCounts, Histogram, Levels
from fedround.statistics.partitions import Recurring
from fedround.values import parse
from infra.history import Committed
from infra.settings import CoordinatorSettings, DataSettings, DirectorySettings
from infra.stores import DirectoryStore
from site_workers import outbox
from site_workers import round as site_round
from site_workers.enrol import create_site
from site_workers.policy import Protected
from site_workers.site import Site, open_site
from tasks.aggregate import aggregate
from tasks.collect import collect
from tasks.collected import Collected
from tasks.coordinator import Coordinator, open_coordinator
from tasks.gather import gather
from tasks.invitations import invite_region, invite_site
from tasks.membership import add_member, create_coordinator, give_mandate
from tasks.plan import Planned, plan_round
from tasks.proofs import RoundProof
from tasks.publish import publish
from tasks.recompute import Bench
from tasks.region import Post, create_region, open_region, serve
from tasks.requests import NextRoundRequest
from tasks.rotation import by_majority
from tasks.verify import verify_run

RECIPE = '''"""Two numbers, one logit."""
import numpy as np
from torch import nn

NAME = "tiny"


def features(rows):
    return rows[["x1", "x2"]].to_numpy(np.float32)


def labels(rows):
    return rows["y"].to_numpy(np.int64)


def build_model():
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
'''
WIDE = RECIPE.replace("2, 4", "2, 6000").replace("4, 1", "6000, 1")     # noise that can be heard
CONTRACT = {"name": "tiny", "checks": [
    {"id": "x1_in_range", "type": "expect_column_values_to_be_between",
     "kwargs": {"column": "x1", "min_value": -10, "max_value": 10}},
    {"id": "label_is_binary", "type": "expect_column_values_to_be_in_set", "kwargs": {"column": "y", "value_set": [0, 1]}},
]}
NAMES = ("north", "east", "south")
X1 = Histogram(column="x1", edges=(-1.0, 0.0, 1.0), noise_std=4.0)
LABELS = GroupCounts(by=(Levels(column="y", values=(0, 1)),), noise_std=6.0)
"""What these rows can be asked."""

Lie = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From what a site computed honestly to what it sends."""


def changed(plan: Plan, **changes: object) -> Plan:
    """A plan that says something else: of where it stands, of what was agreed, or what it asks."""
    agreed = {key: changes.pop(key) for key in type(plan.agreed).model_fields.keys() & changes.keys()}
    if "evaluation" in agreed and plan.asks.statistics:
        changes["asks"] = plan.asks.model_copy(update={"statistics": (plan.task.statistic(agreed["evaluation"]),)})
    return plan.model_copy(update={"agreed": plan.agreed.model_copy(update=agreed), **changes})


@contextmanager
def store_is_down() -> Iterator[None]:
    """While this lasts, the store takes nothing in."""
    def down(self: DirectoryStore, key: str, body: object, *, sha256: str | None = None, journal: object = None) -> None:
        raise StoreUnavailableError("the store does not answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DirectoryStore, "put_once", down)
        yield


def settings(**changes: object) -> dict:
    """The agreed settings, with changes; None leaves a setting out."""
    agreed = {
        "name": "small", "quorum": 2, "deadline_s": 60,
        "training": {"local_steps": 3, "batch_size": 32, "learning_rate": 0.5},
        "privacy": {"unit": "record", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3},
        "evaluation": {"bins": 10, "noise_std": 5.0},
        "aggregation": {"rule": {"name": "weighted_mean"}},
        "optimizer": {"name": "fedavg", "learning_rate": 1.0, "momentum": 0.5},
        **changes}
    return {key: value for key, value in agreed.items() if value is not None}


def rows(count: int, seed: int) -> pd.DataFrame:
    """Two numbers and a label that they explain in part."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 2))
    return pd.DataFrame({"x1": x[:, 0].clip(-9, 9), "x2": x[:, 1],
                         "y": (x[:, 0] - x[:, 1] + generator.normal(size=count) > 0).astype(int)})


@dataclass
class SmallFederation:
    """The folders of everybody, below one."""

    root: Path
    names: tuple[str, ...] = NAMES

    @property
    def coordinator(self) -> Coordinator:
        """Opened anew, as a process that has just started would."""
        return open_coordinator(self.root / "coordinator")

    def site(self, name: str) -> Site:
        """Opened anew."""
        return open_site(self.root / name)

    def with_regions(self, regions: Mapping[str, tuple[str, ...]], until: int | None = None) -> SmallFederation:
        """Regional coordinators with folders and keys of their own, and mandates for these members."""
        for name, members in regions.items():
            key = create_region(self.root / name, invite_region(self.root / "coordinator", name, None))
            give_mandate(self.root / "coordinator", Region(name=name, key=key, members=members, until=until))
        return self

    def region(self, name: str) -> Post:
        """Opened anew."""
        return open_region(self.root / name)

    def add_up(self, name: str, planned: Planned) -> PartialSum:
        """One region's coordinator does its part, and waits for nobody."""
        ticks = itertools.count(0.0, 1e6)
        return serve(self.region(name), planned.plan.run, planned.plan.round, planned.plan.attempt,
                     sleep=lambda _: None, clock=lambda: next(ticks))

    def gather(self, planned: Planned, coordinator: Coordinator | None = None) -> Collected:
        """What members and regions have put into the store; nobody is waited for."""
        coordinator = coordinator or self.coordinator

        async def all_of(among: set[str]) -> set[str]:
            return among

        return asyncio.run(gather(coordinator, planned, self.collect(planned, coordinator), all_of))

    def agree(self, **settings: object) -> None:
        """Put other settings into the federation file."""
        path = self.root / "coordinator" / "federation.toml"
        document = tomlkit.parse(path.read_text())
        document.update(settings)
        path.write_text(tomlkit.dumps(document))

    def plan(self, run: str = "spring", **changes: object) -> Planned:
        """The next round's plan, published."""
        return plan_round(self.coordinator, NextRoundRequest(run=run, **changes))

    def answer(self, name: str, planned: Planned, running: Site | None = None) -> str:
        """One site answers a plan, in a fresh process as far as memory goes, or in the one that is `running`."""
        plan = planned.plan
        return site_round.answer(running or self.site(name), site_round.SiteRequest(
            run=plan.run, round=plan.round, attempt=plan.attempt, purpose=plan.asks.kind), lambda: False).message

    def collect(self, planned: Planned, coordinator: Coordinator | None = None,
                order: tuple[str, ...] | None = None) -> Collected:
        """What is in the store for this plan; nobody is waited for. order: the one in which the sites say "done"."""
        waiting = [set(planned.plan.answering)] if order is None else [set(order[:n + 1]) for n in range(len(order))]

        async def finished(among: set[str]) -> set[str]:
            return among & (waiting.pop(0) if len(waiting) > 1 else waiting[0])

        return asyncio.run(collect(coordinator or self.coordinator, planned, finished, lambda _: None))

    def commit(self, planned: Planned, coordinator: Coordinator | None = None,
               order: tuple[str, ...] | None = None) -> Committed:
        """Aggregate and publish what is there."""
        coordinator = coordinator or self.coordinator
        collected = (self.gather(planned, coordinator) if planned.plan.by_region
                     else self.collect(planned, coordinator, order))
        return publish(coordinator, planned, collected, aggregate(coordinator, planned, collected), by_majority(coordinator))

    def exact(self, names: tuple[str, ...] = NAMES) -> list[npt.NDArray[np.float64]]:
        """What these sites would say to `X1` and `LABELS` without noise, by a loop over their records."""
        frames = [pd.read_parquet(self.root / "data" / name / f"{part}.parquet")
                  for name in names for part in ("train", "validation")]
        cells, labels = np.zeros(5), np.zeros(3)
        for _, row in pd.concat(frames).iterrows():
            cells[sum(row["x1"] >= edge for edge in X1.edges)] += 1
            labels[int(row["y"])] += 1
        return [cells, labels]

    def copy(self, root: Path) -> SmallFederation:
        """The same members with the same keys, secrets, rows and history below another folder."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        for path in (*(root / name / "site.toml" for name in self.names), *root.glob("*/region.toml")):
            path.write_text(path.read_text().replace(f"{self.root}/", f"{root}/"))
        return SmallFederation(root, self.names)

    def killed(self, name: str, planned: Planned, module: object, function: str) -> None:
        """One site dies where it would call this function of this module."""
        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, function, die)
            with pytest.raises(KeyboardInterrupt):
                self.answer(name, planned)

    def undisturbed(self, name: str, planned: Planned, root: Path) -> SmallFederation:
        """A copy below another folder, in which this site has answered."""
        copy = self.copy(root)
        copy.answer(name, planned)
        return copy

    def round(self, run: str = "spring", sites: tuple[str, ...] | None = None,
              lies: Mapping[str, Lie] | None = None) -> Commit:
        """One whole round. sites: who answers; everybody who is asked, if it is not said. lies: who lies, and how."""
        planned = self.plan(run)
        for name in planned.plan.cohort if sites is None else sites:
            self.answer(name, planned)
        for name, lie in (lies or {}).items():
            if name in planned.plan.cohort:
                self.lie(name, planned, lie)
        return self.commit(planned).commit

    def proofs(self, run: str = "spring", bench: Path | None = None) -> list[RoundProof]:
        """Every round of a run, proven. bench: where every byte is computed again."""
        coordinator = self.coordinator
        return list(verify_run(coordinator.store, run, coordinator.key, None,
                               None if bench is None else Bench(bench, coordinator.store)))

    def recomputed(self) -> int:
        """How many rounds hold, every byte of them computed again."""
        proofs = self.proofs(bench=self.root / "bench")
        assert all(proof.recomputed for proof in proofs[1:])
        return len(proofs)

    def lie(self, name: str, planned: Planned, lie: Lie, **claims: object) -> None:
        """A member who has answered says something else instead, under its own good signature."""
        plan, site = planned.plan, self.site(name)
        store = self.root / "store"
        tensors = store / layout.delta(name, plan.run, plan.round, plan.attempt)
        answer = store / layout.answer(name, plan.run, plan.round, plan.attempt, plan.asks.kind)
        head = codec.header(plan.sent)
        honest_D = np.frombuffer(tensors.read_bytes(), dtype="<f4", offset=len(head))
        body = head + lie(honest_D.copy()).astype("<f4").tobytes()
        said = unseal(answer.read_bytes(), Answer, site.identity.key, name)
        of_update = {key: claims.pop(key) for key in Update.model_fields.keys() & claims.keys()}
        update = said.update.model_copy(update={"payload": codec.payload_of(body), **of_update})
        sealed = seal(said.model_copy(update={"update": update, **claims}), site.identity)
        kept = outbox.find(site.safe, plan)
        assert kept is not None, f"{name} has not answered"
        shutil.rmtree(kept.folder)
        outbox.write(site.safe, plan, sealed, None).mark_sent()
        for path, new in ((tensors, body), (answer, sealed)):
            path.chmod(0o600)
            path.write_bytes(new)


def make(root: Path, *, names: tuple[str, ...] = NAMES, recipe: str = RECIPE, max_epsilon: float = 8.0,
         units: tuple[Protected, ...] = ("record",), max_epsilon_site: float | None = None, root_set: str | None = None,
         passphrase: bytes | None = None, start: Path | None = None, contract: Mapping[str, object] = CONTRACT,
         apart: bool = False, max_epsilon_person: float | None = None, **changes: object) -> SmallFederation:
    """A federation of three sites with 300, 200 and 150 rows, or of more. apart: each has a folder of ledgers.

    max_epsilon_person: persons are protected; every second row is one of a customer who has three.
    """
    if max_epsilon > 8.0:       # who may spend more wants more rounds than three, and a run ends with its plan's
        changes = {"privacy": {**settings()["privacy"], "epsilon": 16.0, "rounds": 12}, **changes}
    (root / "agreed").mkdir(parents=True)
    (root / "agreed" / "recipe.py").write_text(recipe)
    (root / "agreed" / "contract.json").write_text(json.dumps(contract))
    rows(400, 99).to_parquet(root / "agreed" / "test.parquet")
    folder = root / "coordinator"
    create_coordinator(
        folder, settings(**changes),
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", test_set="test.parquet",
                            start=None if start is None else "approved/start.safetensors", root_set=root_set,
                            api_url="http://127.0.0.1:9/api", store=DirectorySettings(path="../store")),
        root / "agreed" / "recipe.py", root / "agreed" / "contract.json", None, root / "agreed" / "test.parquet", start)
    for seed, (name, count) in enumerate(zip(names, itertools.cycle((300, 200, 150)), strict=False)):
        data = root / "data" / name
        data.mkdir(parents=True)
        for file, made in (("train", rows(count, seed)), ("validation", rows(80, 50 + seed))):
            if max_epsilon_person is not None:
                made["customer"] = [row // 6 if row % 2 else 1000 + row for row in range(len(made))]
            made.to_parquet(data / f"{file}.parquet")
        key = create_site(
            root / name, invite_site(folder, name, None),
            DataSettings(dataset="people", train=str(data / "train.parquet"), validation=str(data / "validation.parquet"),
                         ledger=str(data / "ledgers") if apart else None),
            max_epsilon=max_epsilon, delta_dp=1e-5, units=units, max_epsilon_site=max_epsilon_site, min_rows=50,
            compares_groups="groups" in changes, passphrase=passphrase, max_epsilon_person=max_epsilon_person,
            person=None if max_epsilon_person is None else "customer",
            partitions=(parse(Recurring, changes["partitions"], "settings"),) if "partitions" in changes else ())
        add_member(folder, name, key, float(count), count if "combine" in changes else None)
    return SmallFederation(root, names)
