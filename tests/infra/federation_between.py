"""A federation of two sites whose members meet only at a proxy: each a process, a login and an S3 credential of its own.

What runs is what the manifests say: the commands and settings of infra/compose.yaml, and the policies of infra/terraform.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tomlkit

from fedround.files import write_whole
from fedround.signing import digest
from infra.settings import S3Credential, load_toml
from infra.stack import seaweedfs
from infra.stack.ports import HOST
from infra.stack.postgres import Postgres
from tests.e2e.pages import ROOT
from tests.infra.manifests import of_compose
from tests.infra.organisations import Between, between, free_port, installed, is_up, started, wait_for
from tests.infra.s3_with_policies import S3WithPolicies, s3_with_policies
from tests.small_federation import CONTRACT, RECIPE, rows, settings

NAMES = ("north", "south")
COORDINATOR = "small-coordinator"


@dataclass
class Servers:
    """What stands behind the proxy."""

    api: str
    s3: S3WithPolicies
    auth_string: str


@contextmanager
def servers(root: Path) -> Iterator[Servers]:
    """PostgreSQL, a Prefect server that asks for an auth string, and S3."""
    auth_string = "proxy:behind-the-proxy"
    postgres, port = Postgres(root / "servers"), free_port()
    with s3_with_policies(root / "servers") as s3:
        try:
            url = postgres.start()
            command, environment = of_compose()["prefect"].here({
                "0.0.0.0": HOST, "4200": str(port), "/tmp/prefect": str(root / "prefect"),
                "postgresql+asyncpg://prefect:${POSTGRES_PASSWORD}@postgres/prefect": url,
                "${PREFECT_SERVER_API_AUTH_STRING:?what server.auth of the proxy says}": auth_string})
            with started(installed(command), root / "prefect.log", **environment,
                         PREFECT_PROFILES_PATH=str(root / "prefect" / "profiles.toml")):
                wait_for(lambda: is_up(f"http://{HOST}:{port}/api/health"), root)
                yield Servers(f"{HOST}:{port}", s3, auth_string)
        finally:
            postgres.stop()


@dataclass
class Apart:
    """The members' folders, and how each of them types."""

    root: Path
    proxy: Between
    servers: Servers
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    health: dict[str, str] = field(default_factory=dict)
    """Where each member's process says how it is."""

    def folder(self, member: str) -> Path:
        return self.root / ("coordinator" if member == COORDINATOR else member)

    def environment(self, member: str) -> dict[str, str]:
        """What the member's operator sets: a login, and whom to trust."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AWS_", "FEDROUND_"))}
        authority = str(self.proxy.authority.file)
        return own | {"PYTHONPATH": str(ROOT), "PREFECT_API_AUTH_STRING": self.proxy.login(member),
                      "PREFECT_API_SSL_CERT_FILE": authority, "AWS_CA_BUNDLE": authority}

    def type(self, member: str, *arguments: object) -> str:
        """Run `fedround …` as the member; returns what it printed."""
        done = subprocess.run([sys.executable, "-m", "fedround_cli.main", *map(str, arguments)], capture_output=True,
                              text=True, env=self.environment(member), cwd=self.root, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def credential(self, site: str) -> S3Credential:
        return load_toml(S3Credential, self.folder(site) / "keys" / "s3.toml")

    def found(self) -> None:
        """The two operators' and the coordinator's commands, up to a federation that is deployed."""
        agreed = self.root / "agreed"
        agreed.mkdir()
        (agreed / "recipe.py").write_text(RECIPE)
        (agreed / "contract.json").write_text(json.dumps(CONTRACT))
        rows(400, 99).to_parquet(agreed / "test.parquet")
        (agreed / "settings.toml").write_text(tomlkit.dumps(settings(privacy={**settings()["privacy"], "epsilon": 16.0,
                                                                             "rounds": 12}, deadline_s=300)))
        mine = self.servers.s3.member("coordinator")
        self.type(COORDINATOR, "federation", "init", agreed / "settings.toml", "--recipe", agreed / "recipe.py", "--contract",
                  agreed / "contract.json", "--test-set", agreed / "test.parquet", "-c", self.folder(COORDINATOR),
                  "--api-url", self.proxy.api_url, "--s3-endpoint", self.proxy.s3_endpoint, "--bucket", seaweedfs.BUCKET,
                  "--access-key", mine.access_key, "--secret-key", mine.secret_key)
        for seed, site in enumerate(NAMES):
            self.enrol(site, seed)
        self.servers.s3.of_bucket("WriteOnlyWhatIsNotThere", "NobodyDeletes")      # nginx and S3 speak plainly here
        self.type(COORDINATOR, "deploy", "-c", self.folder(COORDINATOR))

    def enrol(self, site: str, seed: int) -> None:
        """Invitation, folder, member."""
        theirs, invitation = self.servers.s3.member(site), self.root / f"{site}.invitation.toml"
        self.type(COORDINATOR, "federation", "invite", site, "-c", self.folder(COORDINATOR), "--output", invitation,
                  "--access-key", theirs.access_key, "--secret-key", theirs.secret_key)
        data = self.root / "data" / site
        data.mkdir(parents=True)
        rows(300, seed).to_parquet(data / "train.parquet")
        rows(200, 50 + seed).to_parquet(data / "validation.parquet")
        self.type(site, "site", "init", self.folder(site), "--invitation", invitation, "--train", data / "train.parquet",
                  "--validation", data / "validation.parquet", "--max-epsilon", 40, "--min-rows", 50, "--yes",
                  *self.approved())
        key = self.type(site, "site", "key", self.folder(site)).strip()
        self.type(COORDINATOR, "federation", "add", site, "--key", key, "--weight", 300, "-c", self.folder(COORDINATOR))

    def approved(self) -> list[str]:
        return [part for name in ("recipe.py", "contract.json")
                for part in ("--digest", digest((self.root / "agreed" / name).read_bytes()))]

    def serve(self, stack: ExitStack) -> None:
        """Start the members' processes."""
        for member in (COORDINATOR, *NAMES):
            program = "coordinator" if member == COORDINATOR else "site"
            self.health[member] = f"{HOST}:{free_port()}"
            command, environment = of_compose()[program].here({
                f"/srv/{program}": str(self.folder(member)), "127.0.0.1:9464": self.health[member]})
            self.processes[member] = stack.enter_context(started(
                installed(command), self.root / f"{member}.log", **self.environment(member), **environment))

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.root.glob("*.log")))


@contextmanager
def federation_between(root: Path, *, certificates: bool = False) -> Iterator[Apart]:
    """Servers, a proxy, and a deployed federation whose processes serve."""
    with servers(root) as behind:
        (root / "proxy").mkdir(parents=True)
        write_whole(root / "proxy" / "server.auth", behind.auth_string.encode(), durable=False)
        with (between(root, behind.api, f"{HOST}:{behind.s3.port}", COORDINATOR, certificates=certificates) as proxy,
              ExitStack() as stack):
            apart = Apart(root, proxy, behind)
            apart.found()
            apart.serve(stack)
            yield apart
