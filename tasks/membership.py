"""Setting up a federation: the coordinator's folder, invitations, and members."""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import TypeAdapter, ValidationError

from fedround.errors import ContractError, SetupError
from fedround.learning.recipe import load_recipe
from fedround.signing import Identity
from fedround.types import Federation, Name, SiteEntry, parse
from infra.settings import (
    CoordinatorSettings,
    Invitation,
    S3Credential,
    S3Settings,
    load_toml,
    save_toml,
)
from validation.contract import load_contract

_HEAD = """The federation file: who takes part, and what every round asks for.
Edit it, then run 'fedround federation check' and 'fedround deploy'. Every plan names the digest of this file."""


def create_coordinator(folder: Path, federation: dict[str, Any], settings: CoordinatorSettings, recipe: Path,
                       contract: Path, credential: S3Credential | None, test_set: Path | None = None) -> str:
    """Make a coordinator's folder with a new key and a federation file without members; returns the public key.

    federation: the agreed settings, as in a federation file without members, keys and digests.
    Raises SetupError if the folder is in use, ContractError if a file is not what it should be; nothing is left then.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SetupError(f"{folder} exists and is not empty: choose another folder, or move it away")
    if test_set is not None and not test_set.is_file():
        raise SetupError(f"no test set at {test_set}: give the path of a parquet or CSV file")
    identity = Identity.generate()
    loaded = load_recipe(recipe)
    agreed = {**federation, "coordinator": identity.key, "recipe": loaded.name, "recipe_digest": loaded.digest,
              "contract_digest": load_contract(contract).digest}
    _check_settings(agreed)
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        (new / "keys").mkdir(parents=True, mode=0o700)
        (new / "approved").mkdir()
        shutil.copyfile(recipe, new / settings.recipe)
        shutil.copyfile(contract, new / settings.contract)
        if test_set is not None and settings.test_set is not None:
            shutil.copyfile(test_set, new / settings.test_set)
        identity.save(new / "keys" / "identity.pem")
        if credential is not None:
            save_toml(credential, new / "keys" / "s3.toml", "The coordinator's S3 credential. Secret.", secret=True)
        save_toml(settings, new / "coordinator.toml", "The coordinator's own settings. Paths are relative to this folder.")
        (new / settings.federation).write_text(_federation_file(agreed))
        new.replace(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return identity.key


def add_member(folder: Path, name: str, key: str, weight: float) -> None:
    """Add a site to the federation file. Raises ContractError, and changes nothing, if the file would not hold."""
    settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
    path = folder / settings.federation
    document = tomlkit.parse(path.read_text())
    member = parse(SiteEntry, {"name": name, "key": key, "weight": weight}, f"member '{name}'")
    members = [dict(site) for site in document.get("sites", [])] + [member.model_dump()]
    parse(Federation, {**document.unwrap(), "sites": members, "quorum": 1, "rule": {"name": "weighted_mean"}}, str(path))
    document.setdefault("sites", tomlkit.aot()).append(tomlkit.item(member.model_dump()))
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(tomlkit.dumps(document))
    temporary.replace(path)


def make_invitation(folder: Path, site: str, credential: S3Credential | None) -> Invitation:
    """What a new member needs. Raises ContractError for a name that no site may have, and for an S3 store without a
    credential of the site's own.
    """
    check_name(site)
    settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
    federation = tomllib.loads((folder / settings.federation).read_text())
    if isinstance(settings.store, S3Settings) and credential is None:
        raise ContractError(f"site '{site}' needs an S3 credential of its own, that can write only below "
                            f"'sites/{site}/': give --access-key and --secret-key")
    store = settings.store
    if not isinstance(store, S3Settings):
        store = store.model_copy(update={"path": str((folder / store.path).resolve())})
    return Invitation(
        federation=federation["name"], site=site, coordinator=federation["coordinator"], api_url=settings.api_url,
        store=store, credential=credential, recipe=(folder / settings.recipe).read_text(),
        contract=(folder / settings.contract).read_text())


def check_name(site: str) -> None:
    """Raises ContractError unless a site may be called this. Before anything is made for it: a credential, a file."""
    try:
        TypeAdapter(Name).validate_python(site)
    except ValidationError:
        raise ContractError(f"'site': '{site}' is not a site's name: lower-case letters, digits and inner hyphens, at "
                            "most 40") from None


def digest_of(path: Path) -> str:
    """The digest by which a site approves a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _federation_file(agreed: dict[str, Any]) -> str:
    document = tomlkit.document()
    for line in _HEAD.splitlines():
        document.add(tomlkit.comment(line))
    for key, value in agreed.items():
        document.add(key, value)
    return tomlkit.dumps(document)


def _check_settings(agreed: dict[str, Any]) -> None:
    """Check everything that does not depend on the members, with a stand-in for them."""
    quorum = agreed.get("quorum")
    stand_ins = [{"name": f"member-{n}", "key": f"ed25519:{n:064x}", "weight": 1.0}
                 for n in range(max(1, quorum if isinstance(quorum, int) else 1))]
    parse(Federation, {**agreed, "sites": stand_ins}, "federation settings")
