"""What a site does that writes to a disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedround import layout
from fedround.privacy import ledger, noise
from infra.settings import DataSettings, load_toml, save_toml
from site_workers import approval, audit, outbox, recover
from site_workers.enrol import create_site
from site_workers.keys import begin_rotation
from site_workers.policy import SitePolicy
from site_workers.service import begin
from tasks.invitations import invite_site
from tasks.membership import rotate_key
from tests import small_federation
from tests.faults.scenes import NOON, PACED, RUN, Scene, Seen, a_round_later, names_in, north, of_site, standing
from tests.small_federation import RECIPE, SmallFederation

KEEPS = {"personal": {"name": "ditto", "pull": 0.1}, "compression": {"name": "top_k", "share": 0.2}}


def answers(root: Path) -> None:
    """The site's process starts, and answers as it does for a flow run."""
    begin(north(root))
    SmallFederation(root).answer("north", standing(root), north(root))


def locked_since(root: Path) -> None:
    """The site gets a passphrase after a round of which everything lies there plain, as if the store might not have it."""
    a_round_later(root, **KEEPS)
    entry = root / "north" / "outbox" / RUN / "train" / "00001" / "01"
    shutil.copyfile(root / "store" / layout.delta("north", RUN, 1, 1), entry / "delta.safetensors")
    (entry / "sent").unlink()
    noise.keep_secret(root / "north" / "keys" / "noise.key", north(root).noise_secret, b"four quite long words")
    (root / "words").write_bytes(b"four quite long words")
    (root / "words").chmod(0o600)


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
        create_site(folder, invite_site(root / "coordinator", "north", None), DataSettings(
            dataset="people", train=str(data / "train.parquet"), validation=str(data / "validation.parquet")),
            max_epsilon=8.0, delta_dp=1e-5, min_rows=50)


def joined(root: Path) -> Seen:
    site = north(root)
    audit.verify(site.safe)
    return {"rows": site.row_files, "books": len(ledger.read(site.ledger).entries),
            "files": names_in(site.folder)}


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
)
