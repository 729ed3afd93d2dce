"""Invitations: what a coordinator hands to a new site, to a region and to another coordinator, each in one file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

from fedround.errors import ContractError
from fedround.spoken import typed
from fedround.values import Name, PublicKey, Value, parse
from infra.settings import CoordinatorSettings, RegionSettings, S3Credential, StoreSettings
from infra.toml import read_toml


class Invitation(Value):
    """What a coordinator hands to a new member, in one file: addresses, the agreed files, and the store credential."""

    of: ClassVar[str] = "site"
    federation: Name
    site: Name
    coordinator: PublicKey
    api_url: str
    store: StoreSettings
    credential: S3Credential | None = None
    recipe: str
    """The recipe file's text: code that will run beside the site's records, for the operator to read and approve."""
    contract: str
    """The data contract file's text."""

    @property
    def whom(self) -> str:
        """Who is invited."""
        return self.site


class RegionInvitation(Value):
    """What a coordinator hands to a regional coordinator, in one file."""

    of: ClassVar[str] = "region"
    settings: RegionSettings
    credential: S3Credential | None = None

    @property
    def whom(self) -> str:
        """Who is invited."""
        return self.settings.name


class CoordinatorInvitation(Value):
    """What the founder hands to another coordinator, in one file."""

    of: ClassVar[str] = "coordinator"
    federation: Name
    name: Name
    settings: CoordinatorSettings
    credential: S3Credential | None = None
    recipe: str
    contract: str

    @property
    def whom(self) -> str:
        """Who is invited."""
        return self.name


AnyInvitation = Invitation | RegionInvitation | CoordinatorInvitation
K = TypeVar("K", Invitation, RegionInvitation, CoordinatorInvitation)


def load_invitation(kind: type[K], path: Path) -> K:
    """Read an invitation of this kind. Raises SetupError if there is no such file, ContractError if it is another one: of an
    invitation of another kind it says whose it is, and which command takes it.
    """
    said = read_toml(path)
    try:
        return parse(kind, said, str(path))
    except ContractError:
        if (other := _read_as_any(said)) is None:
            raise
        raise ContractError(f"{path} is the invitation of {other.of} '{other.whom}', expected that of a {kind.of}: 'fedround "
                            f"{other.of} init FOLDER --invitation {typed(path)}' takes it") from None


def _read_as_any(said: dict[str, object]) -> AnyInvitation | None:
    kinds: tuple[type[AnyInvitation], ...] = (Invitation, RegionInvitation, CoordinatorInvitation)
    for kind in kinds:
        with suppress(ContractError):
            return parse(kind, said, "an invitation")
    return None
