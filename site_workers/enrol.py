"""Making a site's folder from an invitation: keys of its own, a policy that its operator can read, an empty ledger."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedround.errors import SetupError
from fedround.files import make_folders, write_whole
from fedround.privacy import noise
from fedround.signing import Identity
from fedround.statistics.partitions import Partitions
from fedround.values import parse
from infra.invitations import Invitation
from infra.settings import DataSettings, SiteSettings, save_toml
from site_workers import approval, audit, database, registry
from site_workers.policy import SitePolicy, policy_text
from site_workers.site import open_safe
from validation import row_files


def _let_out(compares_groups: bool, measures: bool) -> dict[str, list[str]]:
    """What the policy allows beyond its defaults."""
    also = [*(["decisions"] if compares_groups else []), *(["histograms", "group_counts"] if measures else [])]
    return {"purposes": ["train", "evaluate", "measure"], "statistics": ["scores", "checks", *also]} if also else {}


def create_site(folder: Path, invitation: Invitation, data: DataSettings, *, max_epsilon: float, delta_dp: float,
                units: Sequence[str] = ("record",), max_epsilon_site: float | None = None, min_rows: int = 100,
                person: str | None = None, max_epsilon_person: float | None = None, max_epsilon_alone: float | None = None,
                compares_groups: bool = False, measures: bool = False, partitions: tuple[Partitions, ...] = (),
                passphrase: bytes | None = None) -> str:
    """Make a site's folder; returns the public key to send to the coordinator.

    compares_groups: lets out what the model decides about the groups that the federation watches, noised and charged.
    measures: lets out counts of rows for plans that measure, noised and charged. partitions: how plans that train may tell
    rows apart. person: the column that says whose row it is, with the unit "person". passphrase: encrypts the private key,
    the noise secret, and what rounds leave in kept and outbox; every start then asks for it.
    Creating the folder approves the invitation's recipe and contract: show them to the operator first (`offered`). Raises
    SetupError if the folder holds a site already or the data files are missing, ContractError if the invitation or the policy
    has an invalid value; nothing is overwritten.
    """
    folder = folder.resolve()
    if (folder / "site.toml").exists():
        raise SetupError(f"{folder} holds a site already; its keys and its ledger are kept. Choose another folder")
    for path in (folder / data.train, folder / data.validation):
        if not row_files.is_there(path):
            raise SetupError(f"no data file {path}: {row_files.KINDS}")
    candidates, now = offered(invitation), datetime.now(UTC)
    policy = parse(SitePolicy, {
        **{f"{one.kind}s": [one.digest] for one in candidates},
        "units": list(units), "max_epsilon": max_epsilon, "delta_dp": delta_dp,
        "max_epsilon_site": max_epsilon_site, "min_rows": min_rows,
        "person": person, "max_epsilon_person": max_epsilon_person, "max_epsilon_alone": max_epsilon_alone,
        "partitions": [one.model_dump(include={"column", "by"}) for one in partitions],
        **_let_out(compares_groups, measures)}, "the site's policy")
    settings = SiteSettings(
        name=invitation.site, federation=invitation.federation, coordinator=invitation.coordinator,
        api_url=invitation.api_url, store=invitation.store, data=data)
    identity = Identity.generate()
    there = _what_was_there(folder)
    try:
        make_folders(folder, mode=0o700)
        os.chmod(folder, 0o700)
        write_whole(folder / _UNFINISHED, json.dumps(sorted(there or ())).encode(), durable=True)
        make_folders(folder / "keys", mode=0o700)
        os.chmod(folder / "keys", 0o700)
        identity.save(folder / "keys" / "identity.pem", passphrase)
        noise.create_secret(folder / "keys" / "noise.key", passphrase)
        if invitation.credential is not None:
            save_toml(invitation.credential, folder / "keys" / "s3.toml", "This site's S3 credential. Secret.",
                      secret=True)
        database.keep_url(folder, data)
        database.ask(folder, data, policy.limits.seconds)
        row_files.check_apart(*data.files(folder))
        registry.join(folder, data)
        safe = open_safe(folder, None if passphrase is None else lambda: passphrase)
        audit.begin(safe, settings.name, now, data.ledger_file(folder))
        text = policy_text(policy, {one.digest: one.said(now) for one in candidates})
        write_whole(folder / "policy.toml", text.encode(), durable=True)
        for candidate in candidates:
            approval.approve(folder, settings, candidate, now)
        save_toml(settings, folder / "site.toml", "This site's settings. Paths are relative to this folder.")
        (folder / _UNFINISHED).unlink()
    except BaseException:
        _remove_all_but(folder, there)
        raise
    return identity.key


def offered(invitation: Invitation) -> tuple[approval.Candidate, approval.Candidate]:
    """The recipe and the contract of an invitation, examined. Raises ContractError for what nobody should approve."""
    return (approval.examine("recipe", invitation.recipe.encode(), "the invitation's recipe"),
            approval.examine("contract", invitation.contract.encode(), "the invitation's contract"))


_UNFINISHED = ".unfinished"
"""What was in the folder before; it is there while a site is being made. Nobody has seen the keys of such a site."""


def _what_was_there(folder: Path) -> set[str] | None:
    """The names in the folder, without what a call left that was killed: that is removed. None: the folder is new."""
    if (folder / _UNFINISHED).exists():
        before = set(json.loads((folder / _UNFINISHED).read_bytes()))
        _remove_all_but(folder, {*before, _UNFINISHED})     # the list goes last: who is killed here begins here again
        (folder / _UNFINISHED).unlink()
    return {path.name for path in folder.iterdir()} if folder.exists() else None


def _remove_all_but(folder: Path, there: set[str] | None) -> None:
    """Remove a half-made site: it would block the next try. What was there before stays; None: the folder is new."""
    if there is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name not in there:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
