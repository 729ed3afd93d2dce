"""Regional coordinators on real servers: each with a folder, a key and a credential of its own, made as its operator does."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from infra.history import read_commit
from infra.settings import load_federation
from tests.e2e.conftest import Federation


def with_regions(federation: Federation, regions: Mapping[str, tuple[str, ...]]) -> None:
    """Invitations, folders and mandates; no process of a region runs yet."""
    machine, home = federation.machine, federation.machine.home
    for name, members in regions.items():
        among = [word for member in members for word in ("--member", member)]
        federation.works("region", "invite", name, *among, "--home", home, "--coordinator", machine.coordinator,
                         "--output", home / f"{name}.toml")
        federation.works("region", "init", machine.site(name), "--invitation", home / f"{name}.toml")
        key = federation.works("region", "key", machine.site(name)).strip()
        federation.works("region", "mandate", name, "--key", key, *among, "--coordinator", machine.coordinator)


def start(federation: Federation, name: str) -> None:
    """The process of a region."""
    federation.spawn("region", "start", str(federation.machine.site(name)))


def committed(federation: Federation, run: str, started: UUID, number: int) -> dict[str, str | None]:
    """What the commit says of the regions."""
    ended = federation.ended(started)
    assert ended.state.is_completed(), ended.state.message
    key = load_federation(federation.machine.coordinator / "federation.toml").coordinator
    commit = read_commit(federation.store, run, number, key).commit
    return {told.region: None if told.partial is None else told.reason for told in commit.regions}
