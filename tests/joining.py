"""A bank and a shop with the same customers, in folders without Prefect: an exchange goes its whole way without waits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fedround import layout
from fedround.records import Finding, Join
from infra.settings import CoordinatorSettings, DataSettings, DirectorySettings, load_toml, save_toml
from site_workers.enrol import create_site
from site_workers.grants import Grant
from site_workers.policy import SitePolicy
from tasks.ask import conclude
from tasks.invitations import invite_site
from tasks.joins import JoinRequest, begun_anew, next_step
from tasks.membership import add_member, create_coordinator
from tasks.plan import Planned
from tests import small_federation
from tests.small_federation import SmallFederation

BANK, SHOP = "bank", "shop"
RECIPE = '''"""Nothing is trained together but by exchanges: one number, one logit."""
import numpy as np
from torch import nn

NAME = "customers"


def features(rows):
    return np.zeros((len(rows), 1), np.float32)


def labels(rows):
    return rows["default"].to_numpy(np.int64) if "default" in rows else np.zeros(len(rows), np.int64)


def build_model():
    return nn.Linear(1, 1)
'''
CONTRACT = {"name": "customers", "checks": [
    {"id": "customer_is_given", "type": "expect_column_values_to_not_be_null", "kwargs": {"column": "customer"}}]}
REQUEST = JoinRequest(run="spring", labels=BANK, features=SHOP, purpose="credit-risk", label_epsilon=3.0)


def customers(count: int = 600, seed: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of everybody: what the bank knows, with the label, and what the shop knows. The shop's columns say more."""
    generator = np.random.default_rng(seed)
    own, other = generator.normal(size=count), generator.normal(size=(count, 2))
    label = (0.7 * own + 1.6 * other[:, 0] - other[:, 1] + 0.5 * generator.normal(size=count) > 0).astype(int)
    names = [f"customer-{place}" for place in generator.permutation(10 * count)[:count]]
    return (pd.DataFrame({"customer": names, "income": own, "default": label}),
            pd.DataFrame({"customer": names, "spent": other[:, 0], "returned": other[:, 1]}))


@dataclass
class Joining(SmallFederation):
    """The folders of everybody; the steps of an exchange go one after the other."""

    def next(self, request: JoinRequest = REQUEST) -> Planned | None:
        """The next step, published."""
        return next_step(self.coordinator, request)

    def step(self, planned: Planned) -> Finding:
        """One step goes its whole way."""
        for name in planned.plan.cohort:
            self.answer(name, planned)
        return conclude(self.coordinator, planned, self.collect(planned))

    def until(self, step: str, request: JoinRequest = REQUEST) -> Planned:
        """All steps before this one go their way; it is planned."""
        while (planned := self.next(request)) is not None:
            request = begun_anew(request)
            assert isinstance(planned.plan.asks, Join)
            if planned.plan.asks.step == step:
                return planned
            self.step(planned)
        raise AssertionError(step)

    def whole(self, request: JoinRequest = REQUEST) -> list[Planned]:
        """An exchange goes its whole way."""
        done = []
        while (planned := self.next(request)) is not None:
            request = begun_anew(request)
            self.step(planned)
            done.append(planned)
        return done

    def policy(self, name: str, **changes: object) -> None:
        """A site's operator changes the policy; of its only grant, where a field is the grant's."""
        path = self.root / name / "policy.toml"
        policy = load_toml(SitePolicy, path)
        granted = {key: changes.pop(key) for key in Grant.model_fields.keys() & changes.keys()}
        if granted:
            changes["vertical"] = (policy.vertical[0].model_copy(update=granted),)
        save_toml(policy.model_copy(update=changes), path, "changed")

    def transcript(self) -> bytes:
        """All that ever lay in the store."""
        return b"\n".join(path.read_bytes() for path in sorted((self.root / "store").rglob("*")) if path.is_file())

    def said(self, name: str, planned: Planned) -> dict:
        """What a site answered, or why it refused."""
        plan = planned.plan
        place = self.root / "store" / layout.answers(name, plan.run, plan.round, "join") / f"{plan.attempt:02d}"
        return json.loads(sorted(place.glob("*.json"))[-1].read_bytes())


def make(root: Path, bank: pd.DataFrame | None = None, shop: pd.DataFrame | None = None, **changes: object) -> Joining:
    """Two members with one customer in three that the other has not. Held-out rows are the last fifth."""
    everybody = customers()
    bank = everybody[0].iloc[:450] if bank is None else bank
    shop = everybody[1].iloc[150:] if shop is None else shop
    (root / "agreed").mkdir(parents=True)
    (root / "agreed" / "recipe.py").write_text(RECIPE)
    (root / "agreed" / "contract.json").write_text(json.dumps(CONTRACT))
    bank.to_parquet(root / "agreed" / "test.parquet")
    folder, keys = root / "coordinator", {}
    create_coordinator(
        folder, small_federation.settings(**changes),
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", test_set="test.parquet",
                            api_url="http://127.0.0.1:9/api", store=DirectorySettings(path="../store")),
        root / "agreed" / "recipe.py", root / "agreed" / "contract.json", None, root / "agreed" / "test.parquet", None)
    for name, rows in ((BANK, bank), (SHOP, shop)):
        data, held = root / "data" / name, len(rows) * 4 // 5
        data.mkdir(parents=True)
        rows.iloc[:held].to_parquet(data / "train.parquet")
        rows.iloc[held:].to_parquet(data / "validation.parquet")
        keys[name] = create_site(
            root / name, invite_site(folder, name, None),
            DataSettings(dataset="customers", train=str(data / "train.parquet"), validation=str(data / "validation.parquet")),
            max_epsilon=8.0, delta_dp=1e-5, units=("record",), max_epsilon_site=None, min_rows=50)
        add_member(folder, name, keys[name], float(len(rows)), None)
    made = Joining(root, (BANK, SHOP))
    of_both = {"purpose": "credit-risk", "id": "customer", "most": 1000, "until": "2999-12-31"}
    made.policy(BANK, max_epsilon_label=4.0, vertical=(Grant(
        peer=SHOP, key=keys[SHOP], gives=("ids", "labels"), label="default", columns=("income",), **of_both),))
    made.policy(SHOP, vertical=(Grant(
        peer=BANK, key=keys[BANK], gives=("ids", "scores"), columns=("spent", "returned"), **of_both),))
    return made
