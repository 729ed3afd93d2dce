"""What a coordinator does that writes to a disk, and what it does together with sites."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedround.records import Measure
from fedround.signing import Identity
from infra.history import last_round
from infra.model_registry import ModelRegistry
from infra.settings import CoordinatorSettings, DirectorySettings, load_toml, save_toml
from site_workers.policy import SitePolicy
from site_workers.service import begin
from site_workers.site import open_site
from tasks.aggregate import aggregate
from tasks.ask import MeasurementRequest, conclude, plan_question
from tasks.catch_up import catch_up
from tasks.coordinator import Coordinator
from tasks.evaluate import evaluate
from tasks.invitations import invite_region
from tasks.membership import add_member, create_coordinator, revoke_key
from tasks.publish import publish
from tasks.region import create_region, open_region
from tasks.report import report
from tasks.unmask import plan_reveal
from tests import small_federation, summing
from tests.faults.scenes import NOON, PACED, RUN, Scene, Seen, a_round_later, names_in, north, objects, of_site, standing
from tests.small_federation import NAMES, SmallFederation
from tests.summing import Summing

COUNTS = MeasurementRequest(run=RUN, statistics=(
    {"kind": "histogram", "column": "x1", "edges": (-1.0, 0.0, 1.0), "noise_std": 5.0},))  # type: ignore[arg-type]


def coordinator(root: Path) -> Coordinator:
    return SmallFederation(root).coordinator


def plans(root: Path) -> None:
    standing(root)


def committed_once(root: Path) -> None:
    small_federation.make(root).round(RUN)


def answered_twice(root: Path) -> None:
    """Two rounds' answers are there; the second round is not committed, nor is the first one's report written."""
    federation = a_round_later(root, aggregation=None)
    for name in NAMES:
        federation.answer(name, standing(root), open_site(root / name, lambda: NOON))


def answered_late(root: Path) -> None:
    """One round is committed without north, which answers its plan now; east answers the second round's."""
    federation = small_federation.make(root, **PACED)
    first = federation.plan(RUN)
    for name in ("east", "south"):
        federation.answer(name, first, open_site(root / name, lambda: NOON))
    federation.commit(first)
    federation.answer("north", standing(root).of("north"), north(root))
    federation.answer("east", standing(root), open_site(root / "east", lambda: NOON))


def commits(root: Path) -> None:
    """As `flows.federated_round` does, which is begun again after a kill until two rounds are committed and reported."""
    mine = coordinator(root)
    catch_up(mine, RUN)
    if last_round(mine.store, RUN, mine.identity.key) == 2:
        return
    planned = standing(root)
    collected = SmallFederation(root).collect(planned, mine)
    committed = publish(mine, planned, collected, aggregate(mine, planned, collected))
    report(mine, planned, collected, committed, evaluate(mine, committed.commit), 0.0)


def committed(root: Path) -> Seen:
    mine = coordinator(root)
    reports = {str(path.relative_to(root)): path.read_bytes() for path in mine.reports.rglob("*.json")}
    registry = ModelRegistry.open(mine.folder / "models")
    versions = {one.tag: (one.checkpoint, one.metrics) for one in registry.versions()}
    spooled = [path for path in (mine.folder / "spool").rglob("*") if path.is_file()]
    return {**dict(objects(root)), **reports, "versions": versions, "left": len(spooled)}


def measured(root: Path) -> None:
    """Everybody has counted; nobody has added it up."""
    federation = small_federation.make(root, max_epsilon=80.0)
    federation.round(RUN)
    for name in NAMES:
        policy = root / name / "policy.toml"
        more = {"purposes": ("train", "evaluate", "measure"), "statistics": ("scores", "histograms")}
        save_toml(load_toml(SitePolicy, policy).model_copy(update=more), policy, "lets counts out")
    counts(root)
    planned = plan_question(coordinator(root), COUNTS)
    assert isinstance(planned.plan.asks, Measure)
    for name in NAMES:
        federation.answer(name, planned, open_site(root / name, lambda: NOON))


def counts(root: Path) -> None:
    plan_question(coordinator(root), COUNTS)


def adds_up(root: Path) -> None:
    mine = coordinator(root)
    planned = plan_question(mine, COUNTS)
    conclude(mine, planned, SmallFederation(root).collect(planned, mine))


def asked_under_masks(root: Path) -> None:
    """Keys stand, a question is asked, and all others have answered it under masks."""
    federation = summing.make(root)
    federation.keys(RUN)
    planned = plan_question(coordinator(root), COUNTS)
    for name in ("east", "south"):
        federation.answer(name, planned, open_site(root / name, lambda: NOON))


def sets_up_keys(root: Path) -> None:
    """Everybody makes keys and deals shares of them."""
    Summing(root).keys(RUN)


def answers_and_reveals(root: Path) -> None:
    """The site answers under masks, whose answers are added up is decided, and it reveals its shares for that."""
    begin(north(root))
    federation, planned = Summing(root), plan_question(coordinator(root), COUNTS)
    federation.answer("north", planned, north(root))
    plan_reveal(coordinator(root), planned, federation.collect(planned))
    federation.answer("north", planned, north(root))


def with_keys(root: Path) -> Seen:
    """As `of_site`, and what its keys were used for."""
    used = {str(path.relative_to(root)): path.read_text() for path in sorted((root / "north" / "sums").rglob("*"))
            if path.is_file() and not path.name.startswith(".")}
    return {**of_site(root), **used}


def members_change(root: Path) -> None:
    """A member leaves, another one joins, and the next plan says so."""
    mine = coordinator(root)
    if any(site.name == "south" for site in mine.federation.sites):
        revoke_key(root / "coordinator", "south")
    if not any(site.name == "west" for site in coordinator(root).federation.sites):
        add_member(root / "coordinator", "west", (root / "west-key").read_text(), 100.0)
    standing(root)


def with_a_candidate(root: Path) -> None:
    committed_once(root)
    (root / "west-key").write_text(Identity.generate().key)


def in_store(root: Path) -> Seen:
    return dict(objects(root))


def founded(root: Path) -> None:
    small_federation.make(root)
    shutil.rmtree(root / "coordinator")
    shutil.rmtree(root / "store", ignore_errors=True)


def founds(root: Path) -> None:
    folder, agreed = root / "coordinator", root / "agreed"
    if not folder.exists():
        create_coordinator(folder, small_federation.settings(), CoordinatorSettings(
            recipe="approved/recipe.py", contract="approved/contract.json", test_set="test.parquet",
            api_url="http://127.0.0.1:9/api", store=DirectorySettings(path="../store")),
            agreed / "recipe.py", agreed / "contract.json", None, agreed / "test.parquet", None)


def has_founded(root: Path) -> Seen:
    folder = root / "coordinator"
    return {"name": load_toml(CoordinatorSettings, folder / "coordinator.toml").federation,
            "files": names_in(folder)}


def region_joins(root: Path) -> None:
    if not (root / "hills").exists():
        create_region(root / "hills", invite_region(root / "coordinator", "hills", None))


def region_joined(root: Path) -> Seen:
    return {"name": open_region(root / "hills").settings.name, "files": names_in(root / "hills")}


SCENES = (
    Scene("coordinator plans", committed_once, plans, in_store),
    Scene("coordinator commits and reports", answered_twice, commits, committed),
    Scene("coordinator commits late answers", answered_late, commits, committed),
    Scene("coordinator adds up counts", measured, adds_up, in_store),
    Scene("all set up keys for sums", summing.make, sets_up_keys, with_keys),
    Scene("site answers under masks, and reveals", asked_under_masks, answers_and_reveals, with_keys),
    Scene("coordinator changes members", with_a_candidate, members_change, in_store),
    Scene("coordinator founds a federation", founded, founds, has_founded),
    Scene("regional coordinator joins", small_federation.make, region_joins, region_joined),
)
