"""The coordinator as its own process sees it: one folder, opened once.

::

    coordinator.toml   where the API and the store are, which recipe, contract and test set
    federation.toml    who takes part and what every round asks for
    keys/              identity.pem, s3.toml: mode 0600
    spool/             updates of the round in progress, read in blocks
    reports/           one page and one record per round; index.html names all runs
    models/            the model store: git + DVC, one tag per round
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from fedround.errors import ContractError, SetupError
from fedround.federation import Federation
from fedround.federation_log import Logged
from fedround.files import Version, version_of
from fedround.learning.recipe import Recipe, load_recipe
from fedround.signing import Identity, seal
from infra.federation_log import extend, length, read_log
from infra.history import Committed, last_round, read_commit
from infra.passphrase import passphrase_for
from infra.settings import CoordinatorSettings, load_federation, load_toml
from infra.stores import AtHand, ObjectStore, Patience, open_store
from validation.contract import Contract, load_contract

FOLDER_VARIABLE = "FEDROUND_COORDINATOR"
_AT_HAND_BYTES = 256 << 20


def now_utc() -> datetime:
    """The time, by this machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Coordinator:
    """Everything that the coordinator's steps need."""

    folder: Path
    settings: CoordinatorSettings
    federation: Federation
    federation_document: bytes
    identity: Identity
    recipe: Recipe
    contract: Contract = field(hash=False)
    store: ObjectStore
    clock: Callable[[], datetime] = field(default=now_utc, compare=False)
    committed: dict[str, Committed] = field(default_factory=dict, compare=False, repr=False)
    """The last round of each run that this process has seen committed."""

    @property
    def recipe_file(self) -> Path:
        """Where the recipe lies: a process that reads rows opens it by itself."""
        return self.folder / self.settings.recipe

    @property
    def reports(self) -> Path:
        """Where the pages and records of the rounds lie."""
        return self.folder / "reports"

    @property
    def key(self) -> str:
        """The public key that all trust: it signs the federation file. With several coordinators, not always this one's."""
        return self.federation.coordinator

    @property
    def name(self) -> str | None:
        """Its name among several coordinators; None: it is the only one, or not one of them."""
        return next((one.name for one in self.federation.coordinators if one.key == self.identity.key), None)

    @property
    def served(self) -> str:
        """What its deployments and its pool are named after: the federation; with several coordinators, its own name, too."""
        return self.federation.name if self.is_founder or self.name is None else self.federation.served_by(self.name)

    @property
    def is_founder(self) -> bool:
        """Whether it has the key that all trust."""
        return self.identity.key == self.key

    def last_round(self, run: str) -> int | None:
        """The number of the run's last committed round, as the store has it now; None: it has not begun."""
        return last_round(self.store, run, self.key, self.committed.get(run))

    def head(self, run: str) -> Committed | None:
        """The run's last committed round; None: it has not begun. Raises as `read_commit`."""
        number, seen = self.last_round(run), self.committed.get(run)
        if number is None:
            return None
        if seen is None or seen.commit.round != number:
            seen = self.committed[run] = read_commit(self.store, run, number, self.key)
        return seen

    def within(self, patience: Patience) -> Coordinator:
        """The same coordinator, which waits for its store no longer than this."""
        return replace(self, store=self.store.within(patience))

    def publish_federation(self) -> Logged:
        """Put the federation file into force; returns the entry of the federation log that names it.

        Raises ChainError or TrustError if it says what no file may: see `fedround.federation_log.changes`; ContractError if
        only the founder can put it into force.
        """
        if not self.is_founder:
            log = read_log(self.store, self.key, length(self.store, self.key))
            if not log or log[-1].federation != self.federation:
                raise ContractError(f"federation '{self.federation.name}': the file here is not the one that is in force, "
                                    "and only the founder's key can put one into force: the founder runs 'fedround deploy'")
            return log[-1]
        return extend(self.store, self.identity, self.federation, self.federation_document)


def open_coordinator(folder: Path) -> Coordinator:
    """Read and check the coordinator's folder. Raises SetupError or ContractError that says which file to mend."""
    settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
    federation = load_federation(folder / settings.federation)
    key = folder / "keys" / "identity.pem"
    identity = Identity.load(key, passphrase_for(key))
    if identity.key not in {federation.coordinator, *(one.key for one in federation.coordinators)}:
        raise ContractError(f"{settings.federation}: neither 'coordinator' nor one of [[coordinators]] is the key in "
                            f"keys/identity.pem; expected {identity.key}")
    contract = load_contract(folder / settings.contract)
    if contract.digest != federation.contract_digest:
        raise ContractError(f"{settings.federation}: 'contract_digest' is not that of {settings.contract}")
    return Coordinator(
        folder=folder, settings=settings, federation=federation, identity=identity,
        federation_document=seal(federation, identity),
        recipe=load_recipe(folder / settings.recipe, federation.recipe_digest), contract=contract,
        store=open_store(settings.store, folder))


def current_coordinator() -> Coordinator:
    """The coordinator that this process serves, named by the environment variable FEDROUND_COORDINATOR.

    It is opened anew when one of its files has changed: settings, federation file, recipe, contract, a key. So a member can
    be added between two rounds.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        raise SetupError(f"no coordinator here: set {FOLDER_VARIABLE} to the coordinator's folder, or use "
                         "'fedround coordinator start'")
    path = Path(folder)
    settings = load_toml(CoordinatorSettings, path / "coordinator.toml")
    agreed = [path / name for name in ("coordinator.toml", settings.federation, settings.recipe, settings.contract)]
    return _opened(path, tuple((file, version_of(file)) for file in (*agreed, *sorted((path / "keys").glob("*")))))


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, _files: tuple[tuple[Path, Version], ...]) -> Coordinator:
    """Open the folder, with a cache: a model is evaluated, registered, and then the next round's base."""
    coordinator = open_coordinator(folder)
    return replace(coordinator, store=AtHand(coordinator.store, _AT_HAND_BYTES))
