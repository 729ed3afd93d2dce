"""What many tests share: a small federation without Prefect, and the real servers, started once and only if asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.settings import S3Credential
from infra.stack import LocalStack
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint
from infra.stores import S3Store
from tests import small_federation
from tests.small_federation import SmallFederation

# Nothing here is judged by the clock: the machine may be busy with something else.
settings.register_profile("fedround", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedround")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Tests on one running federation share a process (pytest-xdist); those that start servers of their own, another."""
    on_servers = [item for item in items if item.get_closest_marker("stack") is not None]
    for item in on_servers:
        shared = "tests/e2e/" in item.nodeid and "tutorial" not in item.nodeid
        item.add_marker(pytest.mark.xdist_group("federation" if shared else "servers"))
    yield
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in on_servers):
        raise pytest.UsageError("this pytest-xdist groups no tests with this pytest: every process would start all servers")


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and the credential that may use all of its bucket."""

    endpoint: str
    credential: S3Credential

    def store(self, prefix: str = "", credential: S3Credential | None = None) -> S3Store:
        used = credential or self.credential
        return S3Store(self.endpoint, BUCKET, used.access_key, used.secret_key, prefix=prefix)


@pytest.fixture(scope="session")
def rows_are_judged_here() -> None:
    """Great Expectations is imported once, so that sites judge their rows in this process and not in one each."""
    import great_expectations  # noqa: F401


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallFederation:
    """What every test's own federation is a copy of."""
    return small_federation.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def federation(tmp_path: Path, made: SmallFederation, rows_are_judged_here: None) -> SmallFederation:
    """Three sites and a coordinator in folders, with a store in a folder."""
    return made.copy(tmp_path)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Outside pytest's own folder, which is closed to the user that runs PostgreSQL for root."""
    folder = Path(tempfile.mkdtemp(prefix="fedround-tests-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(short_folder: Path) -> Iterator[S3Server]:
    """Only the S3 server: ready in two seconds."""
    server, ports = SeaweedFS(short_folder / "s3-only"), choose(PORTS, {}, {})
    server.spawn(ports)
    try:
        server.wait_ready(ports["s3"])
        yield S3Server(endpoint(ports["s3"]), server.coordinator_credential())
    finally:
        server.ask_to_stop()
        server.wait_stopped(ports)


@pytest.fixture(scope="session")
def stack(short_folder: Path) -> Iterator[LocalStack]:
    """PostgreSQL, Prefect and S3. Leave it running; what you put there, put under names of your own."""
    local = LocalStack(short_folder / "stack")
    local.start(lambda _: None)
    yield local
    local.stop()
