"""What members do that writes to a disk; each is killed at every change, done again, and must end as if nothing had been."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedround import layout
from fedround.privacy import ledger, noise
from fedround.records import Measure
from fedround.signing import Identity
from infra.history import last_round
from infra.model_registry import ModelRegistry
from infra.passphrase import FILE_VARIABLE
from infra.settings import CoordinatorSettings, DataSettings, DirectorySettings, load_toml, save_toml
from site_workers import approval, audit, outbox, recover
from site_workers.enrol import create_site
from site_workers.keys import begin_rotation
from site_workers.policy import SitePolicy
from site_workers.service import begin
from site_workers.site import Site, open_site
from tasks.aggregate import aggregate
from tasks.ask import MeasurementRequest, conclude, plan_question
from tasks.catch_up import catch_up
from tasks.coordinator import Coordinator
from tasks.evaluate import evaluate
from tasks.membership import add_member, create_coordinator, make_invitation, revoke_key, rotate_key
from tasks.plan import Planned
from tasks.publish import publish
from tasks.report import report
from tasks.unmask import plan_reveal
from tests import small_federation, summing
from tests.small_federation import NAMES, RECIPE, SmallFederation
from tests.summing import Summing

Seen = Mapping[str, object]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = "spring"


@dataclass(frozen=True)
class Scene:
    """Something that is done."""

    name: str
    begin: Callable[[Path], object]
    """Makes what is there before, below the folder."""
    act: Callable[[Path], object]
    """What is killed. Done again, it goes on."""
    seen: Callable[[Path], Seen]
    """What must then be as if nobody had been killed."""


def north(root: Path) -> Site:
    """The site of these scenes, at a time that does not go on."""
    os.environ[FILE_VARIABLE] = str(root / "words")
    return open_site(root / "north", lambda: NOON)


def objects(root: Path) -> Iterator[tuple[str, bytes]]:
    """All that is in the store."""
    store = SmallFederation(root).coordinator.store
    return ((key, store.get(key)) for key in store.list(""))


def books(root: Path) -> Iterator[tuple[str, bytes]]:
    """All of the site that counts: ledger, what it has seen, what has left, what it keeps."""
    site = north(root)
    audit.verify(site.safe)
    for path in (site.ledger, site.folder / "seen.json", *sorted((site.folder / "outbox").rglob("*")),
                 *sorted((site.folder / "kept").rglob("*"))):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(site.folder).parts):
            yield str(path.relative_to(root)), site.safe.read_signed(path)


def of_site(root: Path) -> Seen:
    """The site's books, and the store."""
    return {**dict(books(root)), **dict(objects(root))}


# -- a site ------------------------------------------------------------------------------------------------------------


def a_round_later(root: Path, **settings: object) -> SmallFederation:
    """One round is committed, the next one is planned."""
    federation = small_federation.make(root, **settings)
    federation.round(RUN)
    federation.plan(RUN)
    return federation


def standing(root: Path) -> Planned:
    """The plan that waits for answers."""
    return SmallFederation(root).plan(RUN)


def answers(root: Path) -> None:
    """The site's process starts, and answers as it does for a flow run."""
    begin(north(root))
    SmallFederation(root).answer("north", standing(root), north(root))


KEEPS = {"personal": {"name": "ditto", "pull": 0.1}, "compression": {"name": "top_k", "share": 0.2}}
COUNTS = MeasurementRequest(run=RUN, statistics=(
    {"kind": "histogram", "column": "x1", "edges": (-1.0, 0.0, 1.0), "noise_std": 5.0},))  # type: ignore[arg-type]


def locked_since(root: Path) -> None:
    """The site gets a passphrase after a round of which everything lies there plain, as if the store might not have it."""
    a_round_later(root, **KEEPS)
    entry = root / "north" / "outbox" / RUN / "train" / "00001" / "01"
    shutil.copyfile(root / "store" / layout.delta("north", RUN, 1, 1), entry / "delta.safetensors")
    (entry / "sent").unlink()
    noise.keep_secret(root / "north" / "keys" / "noise.key", north(root).noise_secret, b"four quite long words")
    (root / "words").write_bytes(b"four quite long words")
    (root / "words").chmod(0o600)


PACED = {"quorum": 2, "enough": 2, "pace": {"max_age": 2}}


def still_at_work(root: Path) -> None:
    """The first round was committed without the site, which has begun on nothing; the second one is planned."""
    federation = small_federation.make(root, **PACED)
    federation.round(RUN, sites=("east", "south"))
    federation.plan(RUN)


def answers_late(root: Path) -> None:
    """The site answers the first round's plan after that round was committed."""
    begin(north(root))
    SmallFederation(root).answer("north", standing(root).of("north"), north(root))


def encrypted(root: Path) -> Seen:
    site = north(root)
    there = (path for what in ("outbox/**/*.json", "**/*.safetensors") for path in site.folder.glob(what))
    return {**of_site(root), "plain": [str(path) for path in there if not site.safe.is_sealed(path)]}


def refusing(root: Path) -> None:
    """The site's operator asks for more rows than there are."""
    a_round_later(root)
    policy = root / "north" / "policy.toml"
    save_toml(load_toml(SitePolicy, policy).model_copy(update={"min_rows": 10_000}), policy, "asks for more than it has")


def refused(root: Path) -> Seen:
    """A site that is asked again looks again: it may have said no twice, and it has said nothing else."""
    said = SmallFederation(root).collect(standing(root))
    audit.verify(north(root).safe)
    return {"charges": ledger.read(north(root).ledger).charges, "said": {
        site: (one.refusal.reason, one.refusal.detail) for site, one in said.refused.items()}, "more": said.answered,
        "waits": [one.answer_key for one in outbox.entries(north(root).safe) if not one.sent]}


def new_recipe(root: Path) -> None:
    """The operator approves another recipe."""
    site = north(root)
    candidate = approval.examine("recipe", RECIPE.replace("tiny", "other").encode(), "a recipe")
    approval.approve(site.folder, site.settings, candidate, NOON)


def approved(root: Path) -> Seen:
    folder = root / "north"
    return {"approved": [(one.kind, one.digest, one.current) for one in approval.approvals(folder)],
            **{str(path.relative_to(root)): path.read_bytes() for path in (folder / "approved").rglob("*.py")}}


def new_key(root: Path) -> None:
    """The site gets another key, the coordinator takes it, and the next plan asks for it."""
    federation = SmallFederation(root)
    member = federation.coordinator.federation.site("north").key
    if member == (root / "first-key").read_text():
        begin_rotation(north(root), None)
        rotate_key(root / "coordinator", "north")
    answers(root)


def rotated(root: Path) -> Seen:
    federation = SmallFederation(root)
    member = federation.coordinator.federation.site("north").key
    collected = federation.collect(standing(root))
    return {"another key": member != (root / "first-key").read_text(), "signs": north(root).identity.key == member,
            "admitted": sorted(collected.admitted), "charges": len(ledger.read(north(root).ledger).charges),
            "waits": sorted(path.name for path in (root / "north" / "keys").iterdir() if not path.name.startswith("."))}


def with_its_first_key(root: Path) -> None:
    federation = small_federation.make(root)
    federation.round(RUN)
    (root / "first-key").write_text(federation.coordinator.federation.site("north").key)


def forgetful(root: Path) -> None:
    """The site's folder is yesterday's."""
    federation = small_federation.make(root, max_epsilon=80.0)
    shutil.copytree(root / "north", root / "yesterday")
    federation.round(RUN)
    shutil.rmtree(root / "north")
    (root / "yesterday").rename(root / "north")


def recovers(root: Path) -> None:
    site = north(root)
    recover.restore(site, recover.forgotten(site))


def recovered(root: Path) -> Seen:
    book = ledger.read(north(root).ledger)
    audit.verify(north(root).safe)
    return {"charges": [charge.mechanisms for charge in book.charges],
            "answers": [one.answer_key for one in outbox.entries(north(root).safe)],
            "goes on": recover.forgotten(north(root)) == recover.Recovery((), (), ())}


def invited(root: Path) -> None:
    """Everything is there but the site."""
    small_federation.make(root)
    shutil.rmtree(root / "north")


def joins(root: Path) -> None:
    """The operator makes the site's folder. A half-made one that cannot be gone on with has to be told from a whole one."""
    folder, data = root / "north", root / "data" / "north"
    if not (folder / "site.toml").exists():
        create_site(folder, make_invitation(root / "coordinator", "north", None), DataSettings(
            dataset="people", train=str(data / "train.parquet"), validation=str(data / "validation.parquet")),
            max_epsilon=8.0, delta_dp=1e-5, min_rows=50)


def joined(root: Path) -> Seen:
    site = north(root)
    audit.verify(site.safe)
    return {"rows": site.row_files, "books": len(ledger.read(site.ledger).entries),
            "files": sorted(str(path.relative_to(site.folder)) for path in site.folder.rglob("*")
                            if not path.name.startswith("."))}


# -- the coordinator ---------------------------------------------------------------------------------------------------


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


def counting_site(root: Path) -> None:
    measured(root)
    for path in (root / "north" / "outbox" / RUN / "measure").iterdir():
        shutil.rmtree(path)


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
            "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("."))}


SCENES = (
    Scene("site answers", a_round_later, answers, of_site),
    Scene("site answers, keeping much", lambda root: a_round_later(root, **KEEPS), answers, of_site),
    Scene("site answers a ticket late", still_at_work, answers_late, of_site),
    Scene("site encrypts, and answers", locked_since, answers, encrypted),
    Scene("site refuses", refusing, answers, refused),
    Scene("site approves a recipe", small_federation.make, new_recipe, approved),
    Scene("site changes its key", with_its_first_key, new_key, rotated),
    Scene("site recovers", forgetful, recovers, recovered),
    Scene("site joins", invited, joins, joined),
    Scene("coordinator plans", committed_once, plans, in_store),
    Scene("coordinator commits and reports", answered_twice, commits, committed),
    Scene("coordinator commits late answers", answered_late, commits, committed),
    Scene("coordinator adds up counts", measured, adds_up, in_store),
    Scene("all set up keys for sums", summing.make, sets_up_keys, with_keys),
    Scene("site answers under masks, and reveals", asked_under_masks, answers_and_reveals, with_keys),
    Scene("coordinator changes members", with_a_candidate, members_change, in_store),
    Scene("coordinator founds a federation", founded, founds, has_founded),
)
