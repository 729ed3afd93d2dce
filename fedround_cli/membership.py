"""Which store to read and which coordinator key to trust, from a coordinator's or a site's folder."""

from __future__ import annotations

from pathlib import Path

from fedround.errors import SetupError
from infra.settings import CoordinatorSettings, SiteSettings, load_federation, load_toml
from infra.stores import ObjectStore, open_store


def store_and_key(folder: Path) -> tuple[ObjectStore, str]:
    """The store, and the coordinator's public key as this member knows it. Raises SetupError for any other folder."""
    if (folder / "site.toml").exists():
        site = load_toml(SiteSettings, folder / "site.toml")
        return open_store(site.store, folder), site.coordinator
    if (folder / "coordinator.toml").exists():
        settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
        return open_store(settings.store, folder), load_federation(folder / settings.federation).coordinator
    raise SetupError(f"{folder} is neither a coordinator's nor a site's folder: name one with --as")
