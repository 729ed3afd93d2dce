"""At the coordinator: inviting a site, a region or another coordinator.

Each is told where the servers are, and whose signature it is to trust. A bucket asks each for a credential of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedround.errors import ContractError
from fedround.values import Name, parse
from infra.invitations import CoordinatorInvitation, Invitation, RegionInvitation
from infra.settings import CoordinatorSettings, S3Credential, S3Settings, load_toml
from infra.toml import read_text, read_toml


def invite_site(folder: Path, name: str, credential: S3Credential | None) -> Invitation:
    """What a new member needs. Raises ContractError for a name that none may have, and for a bucket without a credential."""
    check_name(name)
    settings, known = _opened(folder)
    store = _reached(folder, settings, credential, f"site '{name}'", f"that can write only below 'sites/{name}/'")
    return parse(Invitation, {
        **known, "site": name, "api_url": settings.api_url, "store": store, "credential": _said(credential),
        **_agreed(folder, settings)}, f"invitation by {folder / settings.federation}")


def invite_region(folder: Path, name: str, credential: S3Credential | None) -> RegionInvitation:
    """What a regional coordinator needs. Raises ContractError as `invite_site`."""
    check_name(name, "region")
    settings, known = _opened(folder)
    store = _reached(folder, settings, credential, f"region '{name}'", "that reads 'sites/NAME/' of its members and writes "
                                                                       f"below 'regions/{name}/'")
    return parse(RegionInvitation, {
        "settings": {**known, "name": name, "api_url": settings.api_url, "store": store}, "credential": _said(credential)},
        f"invitation by {folder / settings.federation}")


def invite_coordinator(folder: Path, name: str, credential: S3Credential | None) -> CoordinatorInvitation:
    """What another coordinator needs, besides the test set and the checkpoint that runs begin with, which it is given apart.
    Raises ContractError as `invite_site`.
    """
    check_name(name, "coordinator")
    settings, known = _opened(folder)
    store = _reached(folder, settings, credential, f"coordinator '{name}'", "that may do everything in the bucket")
    founder = {"founder": known.pop("coordinator")}
    return parse(CoordinatorInvitation, {
        **known, "name": name, "credential": _said(credential),
        "settings": {**settings.model_dump(exclude={"store", "exports", "root_set"}), "store": store, **founder},
        **_agreed(folder, settings)}, f"invitation by {folder / settings.federation}")


def check_name(name: str, of: str = "site") -> None:
    """Raises ContractError unless a site, or whatever else it is of, may have this name. Called before anything is made for
    it: a credential, a file.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ContractError(f"'{of}': '{name}' is not a {of}'s name: lower-case letters, digits and inner hyphens, at most 40"
                            ) from None


def _opened(folder: Path) -> tuple[CoordinatorSettings, dict[str, Any]]:
    """The coordinator's settings; its federation's name and public key, from a file that may have no members yet."""
    settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
    said = read_toml(path := folder / settings.federation)
    if missing := {"name", "coordinator"} - set(said):
        raise ContractError(f"{path}: '{min(missing)}' is missing")
    return settings, {"federation": said["name"], "coordinator": said["coordinator"]}


def _reached(folder: Path, settings: CoordinatorSettings, credential: S3Credential | None, who: str, which: str
             ) -> dict[str, Any]:
    """Where whoever is invited finds the store; a folder by its whole path."""
    store = settings.store
    if not isinstance(store, S3Settings):
        return {**store.model_dump(), "path": str((folder / store.path).resolve())}
    if credential is None:
        raise ContractError(f"{who} needs an S3 credential of its own, {which}: run 'fedround up' if the bucket is on this "
                            "machine, or give --access-key and --secret-key")
    return store.model_dump()


def _said(credential: S3Credential | None) -> dict[str, Any] | None:
    return None if credential is None else credential.model_dump()


def _agreed(folder: Path, settings: CoordinatorSettings) -> dict[str, str]:
    return {"recipe": read_text(folder / settings.recipe), "contract": read_text(folder / settings.contract)}
