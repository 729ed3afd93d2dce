"""A site as its own process sees it: one folder, opened once.

::

    site.toml        who we are, where the API, the store and our rows are
    policy.toml      what we allow
    keys/            identity.pem, noise.key, s3.toml: mode 0600, never leave
    approved/        the recipe and the contract, as we approved them
    ledger.jsonl     what has been spent on our rows
    outbox/          what leaves, written here first
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fedround.errors import ContractError, SetupError
from fedround.learning.recipe import Recipe, load_recipe
from fedround.privacy import noise
from fedround.signing import Identity
from infra.settings import SitePolicy, SiteSettings, load_toml
from infra.stores import ObjectStore, open_store
from validation.contract import Contract, load_contract


@dataclass(frozen=True)
class Site:
    """Everything that a site's process needs; nothing in it leaves but through `release`."""

    folder: Path
    settings: SiteSettings
    policy: SitePolicy
    identity: Identity
    noise_secret: bytes
    recipe: Recipe
    contract: Contract
    store: ObjectStore

    @property
    def name(self) -> str:
        """The site's name in the federation."""
        return self.settings.name

    @property
    def ledger(self) -> Path:
        """The privacy ledger's file."""
        return self.folder / "ledger.jsonl"

    @property
    def rows(self) -> tuple[Path, Path]:
        """Where the training and the validation rows are."""
        return self.folder / self.settings.data.train, self.folder / self.settings.data.validation


def open_site(folder: Path) -> Site:
    """Read and check a site's folder. Raises SetupError or ContractError that says which file to mend, and how."""
    settings = load_toml(SiteSettings, folder / "site.toml")
    policy = load_toml(SitePolicy, folder / "policy.toml")
    recipe_digest = _approved(folder / settings.recipe, policy.recipes, "recipes")
    _approved(folder / settings.contract, policy.contracts, "contracts")
    return Site(
        folder=folder, settings=settings, policy=policy,
        recipe=load_recipe(folder / settings.recipe, recipe_digest), contract=load_contract(folder / settings.contract),
        identity=Identity.load(folder / "keys" / "identity.pem"),
        noise_secret=_noise_secret(folder / "keys" / "noise.key"),
        store=open_store(settings.store, folder))


def _noise_secret(path: Path) -> bytes:
    """Never made anew here: with another secret a retry would draw a second noise for one charge."""
    if not path.is_file():
        raise SetupError(f"no noise secret at {path}: restore it from your backup; without it, make a new site folder, "
                         "and count what this data set has spent as spent")
    return noise.load_or_create_secret(path)


def _approved(path: Path, digests: tuple[str, ...], key: str) -> str:
    """The file's digest, if policy.toml approves it. Nothing of the file is run or parsed before that."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; put back the file that you approved") from None
    if found not in digests:
        raise ContractError(f"{path} is not approved by policy.toml: its SHA-256 is {found}; read the file, then add "
                            f"this digest to '{key}'")
    return found
