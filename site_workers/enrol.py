"""Making a site's folder from an invitation: keys of its own, a policy that its operator can read, an empty ledger."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from fedround.errors import ContractError, SetupError
from fedround.privacy import ledger, noise
from fedround.signing import Identity
from fedround.types import parse
from infra.settings import DataSettings, Invitation, SitePolicy, SiteSettings, save_toml

_POLICY = """What this site allows. Nothing that a coordinator sends can widen it; only you change it.
recipes and contracts: SHA-256 of the files in approved/ that you have read.
max_epsilon: over everything that ever leaves and depends on the data set, at delta_dp.
allow_no_privacy: true lets plans without noise run here; all guarantees for the data set end with the first."""


def create_site(folder: Path, invitation: Invitation, data: DataSettings, *, max_epsilon: float, delta_dp: float,
                allow_no_privacy: bool = False, min_rows: int = 100) -> str:
    """Make a site's folder; returns the public key to send to the coordinator.

    Creating it approves the invitation's recipe and contract: show them to the operator first.
    Raises SetupError if the folder holds a site already or the data files are not there; nothing is overwritten.
    """
    folder = folder.resolve()
    if (folder / "site.toml").exists():
        raise SetupError(f"{folder} holds a site already; its keys and its ledger are kept. Choose another folder")
    for name in (data.train, data.validation):
        if not (folder / name).is_file():
            raise SetupError(f"no data file {folder / name}: give the path of a parquet or CSV file")
    if data.train == data.validation:
        raise ContractError("training and validation rows must be two files: rows that are trained on prove nothing")
    recipe, contract = invitation.recipe.encode(), invitation.contract.encode()
    policy = parse(SitePolicy, {
        "recipes": [hashlib.sha256(recipe).hexdigest()], "contracts": [hashlib.sha256(contract).hexdigest()],
        "max_epsilon": max_epsilon, "delta_dp": delta_dp, "allow_no_privacy": allow_no_privacy, "min_rows": min_rows,
    }, "the site's policy")
    settings = SiteSettings(
        name=invitation.site, federation=invitation.federation, coordinator=invitation.coordinator,
        api_url=invitation.api_url, store=invitation.store, data=data)
    identity = Identity.generate()
    there = set(folder.iterdir()) if folder.exists() else None
    try:
        (folder / "keys").mkdir(parents=True, mode=0o700, exist_ok=True)
        (folder / "approved").mkdir(exist_ok=True)
        (folder / settings.recipe).write_bytes(recipe)
        (folder / settings.contract).write_bytes(contract)
        identity.save(folder / "keys" / "identity.pem")
        noise.load_or_create_secret(folder / "keys" / "noise.key")
        if invitation.credential is not None:
            save_toml(invitation.credential, folder / "keys" / "s3.toml", "This site's S3 credential. Secret.",
                      secret=True)
        save_toml(policy, folder / "policy.toml", _POLICY)
        ledger.create(folder / "ledger.jsonl", data.dataset)
        os.chmod(folder, 0o700)
        save_toml(settings, folder / "site.toml", "This site's settings. Paths are relative to this folder.")
    except BaseException:
        _remove_all_but(folder, there)
        raise
    return identity.key


def _remove_all_but(folder: Path, there: set[Path] | None) -> None:
    """Half a site would be in the way of the next try. What was in the folder before stays; None: no folder was."""
    if there is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in set(folder.iterdir()) - there:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
