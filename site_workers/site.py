"""A site as its own process sees it: one folder, opened once.

::

    site.toml        who we are, where the API, the store and our rows are
    policy.toml      what we allow
    keys/            identity.pem, noise.key, s3.toml: mode 0600, never leave; in a rotation next.pem and next-noise-….key
    approved/        the recipe and the contract, as we approved them
    ledger.jsonl     what has been spent on our rows
    audit.jsonl      what was asked, decided, spent and sent
    outbox/          what leaves, written here first; encrypted under a passphrase
    kept/            what one round leaves to the next, and never leaves: control variates, residuals, private parts;
                     encrypted under a passphrase
    sums/            what its keys for secure sums were used for; never leaves
    joins/           what was exchanged with a peer, and what is learnt from it; never leaves (`exchange`)
    snapshot/        what a database answered, where rows come from one; never leaves
    accepted/        the rows of the last round that trained, for 'site drift'; never leaves
    drift/           Evidently's reports over rows; never leaves
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fedround.errors import ContractError, SetupError
from fedround.files import Version, take_place, version_of
from fedround.learning.recipe import Recipe
from fedround.privacy import noise
from fedround.signing import Identity
from infra.passphrase import passphrase_for
from infra.settings import SiteSettings, load_toml
from infra.stores import ObjectStore, Patience, open_store
from site_workers.apart.opening import opened, rest
from site_workers.policy import SitePolicy
from site_workers.safe import Safe
from validation.contract import Contract, load_contract


@dataclass(frozen=True)
class Site:
    """Everything that a site's process needs. Only `release` lets any of it leave."""

    folder: Path
    settings: SiteSettings
    policy: SitePolicy
    identity: Identity
    noise_secret: bytes = field(repr=False)
    is_locked: bool
    """Whether the noise secret lies behind a passphrase."""
    recipe: Recipe
    contract: Contract
    store: ObjectStore
    clock: Callable[[], datetime]
    stamps: tuple[Version, ...]
    """The versions of the files that the operator changes by approving."""

    @property
    def name(self) -> str:
        """The site's name in the federation."""
        return self.settings.name

    @property
    def ledger(self) -> Path:
        """The privacy ledger's file."""
        return self.settings.data.ledger_file(self.folder)

    def within(self, patience: Patience) -> Site:
        """The same, which waits for its store no longer than this."""
        return replace(self, store=self.store.within(patience))

    @property
    def safe(self) -> Safe:
        """What it keeps for itself."""
        return Safe(self.folder, self.noise_secret, self.is_locked)

    @property
    def row_files(self) -> tuple[Path, Path]:
        """Where the training and the validation rows are."""
        return self.settings.data.files(self.folder)


def open_site(folder: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Site:
    """Read and check a site's folder. Raises SetupError or ContractError that says which file to mend, and how."""
    settings = load_toml(SiteSettings, folder / "site.toml")
    stamps = _stamps(folder, settings)
    policy, recipe, contract = _agreed(folder, settings)
    ask = functools.cache(passphrase_for(folder / "keys" / "identity.pem"))
    identity = load_identity(folder, ask)
    finish_rotation(folder, identity.key)
    safe = open_safe(folder, ask if ask.cache_info().currsize else None)
    return Site(
        folder=folder, settings=settings, policy=policy, recipe=recipe, contract=contract, clock=clock, stamps=stamps,
        identity=identity, noise_secret=safe.secret, is_locked=safe.is_locked,
        store=open_store(settings.store, folder))


def refreshed(site: Site) -> Site:
    """The site as its operator wants it now: policy, recipe and contract are read again if one of the files has changed.

    So an approval, a withdrawal or another number in policy.toml holds from the next plan on. Raises as `open_site` does.
    """
    stamps = _stamps(site.folder, site.settings)
    if stamps == site.stamps:
        return site
    policy, recipe, contract = _agreed(site.folder, site.settings)
    rest(site.recipe)
    return replace(site, policy=policy, recipe=recipe, contract=contract, stamps=stamps)


def _agreed(folder: Path, settings: SiteSettings) -> tuple[SitePolicy, Recipe, Contract]:
    policy = load_toml(SitePolicy, folder / "policy.toml")
    recipe_digest = _approved(folder / settings.recipe, policy.recipes)
    _approved(folder / settings.contract, policy.contracts)
    return (policy, opened(folder / settings.recipe, recipe_digest, settings, policy.limits),
            load_contract(folder / settings.contract))


def _stamps(folder: Path, settings: SiteSettings) -> tuple[Version, ...]:
    paths = (folder / name for name in ("policy.toml", settings.recipe, settings.contract))
    return tuple(version_of(path) for path in paths)


def open_safe(folder: Path, typed: Callable[[], bytes] | None = None) -> Safe:
    """What the site in `folder` keeps for itself. Asks for its passphrase if it has one; raises SetupError.

    typed: what was typed already.
    """
    return Safe(folder, *_noise_secret(folder / "keys" / "noise.key", typed))


def load_identity(folder: Path, ask: Callable[[], bytes] | None = None) -> Identity:
    """The key that signs for the site in `folder`. Asks for its passphrase if it has one; raises SetupError."""
    path = folder / "keys" / "identity.pem"
    return Identity.load(path, ask or passphrase_for(path))


def _noise_secret(path: Path, typed: Callable[[], bytes] | None) -> tuple[bytes, bool]:
    """The noise secret, and whether it lies behind a passphrase; typed: what opened the key.

    It is never made anew here: with another secret, a retry would draw a second noise for one charge.
    """
    if not path.is_file():
        raise SetupError(f"no noise secret at {path}: restore it from your backup; without it, make a new site folder, "
                         "and count what this data set has spent as spent")
    return noise.load_secret(path, typed or passphrase_for(path))


def next_noise(folder: Path, key: str) -> Path:
    """The noise secret behind the passphrase of the next key, `key`, while a rotation to it is under way."""
    return folder / "keys" / f"next-noise-{key[:16]}.key"


def finish_rotation(folder: Path, key: str) -> None:
    """If the site's key was the next one, what waits beside it takes its place, too; also after a crash in between.

    What waits for a key that the operator gave up does not.
    """
    if (waiting := next_noise(folder, key)).exists():
        take_place(waiting, folder / "keys" / "noise.key")


def _approved(path: Path, digests: tuple[str, ...]) -> str:
    """The file's digest, if policy.toml approves it. Nothing of the file is run or parsed before that."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}; put back the file that you approved") from None
    if found not in digests:
        raise ContractError(f"{path} is not approved by policy.toml: its SHA-256 is {found}; read the file, and if you "
                            "agree to it, run 'fedround site approve'")
    return found
