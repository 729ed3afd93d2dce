"""What many tests share: a small federation without Prefect, and the real servers, started once and only if asked for."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from fedround import locked
from fedround.learning.recipe import Recipe
from fedround.privacy import accounting
from infra.settings import S3Credential
from infra.stack import LocalStack
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint
from infra.stores import S3Store
from site_workers import rows
from site_workers.apart.opening import run_here
from tests import small_federation
from tests.bundled import Bundled
from tests.bundled import make as make_bundled
from tests.known import Prices
from tests.slow import LEFT_OUT
from tests.small_federation import SmallFederation

# Nothing here is judged by the clock: the machine may be busy with something else. Laws are tried on other examples in
# every run, so a run needs few.
settings.register_profile("fedround", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedround")

# A test that is about the process in which a recipe runs says sandbox = "strict" in its site.toml.
run_here()


ROOT = Path(__file__).parents[1]
FIRST = ("tests/e2e/test_campaign.py", "tests/e2e/test_wheel.py", "tests/e2e/test_tutorial.py", "tests/parity/",
         "tests/conformance/", "tests/attacks/", "tests/infra/stack/", "tests/faults/")
"""Files and folders that take long: who is free last should find short ones. The campaign comes before all that fills the
ledgers of its sites: to price a hundred runs takes a minute."""

TOGETHER = ("tests/tasks/test_drift.py", "tests/tasks/test_concept_drift.py")
"""What imports Evidently: five seconds of CPU time in every process that does."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files that are left out as a whole are not even imported: every process saves seconds."""
    left_out = config.option.markexpr == "not slow" and collection_path.relative_to(ROOT).as_posix().startswith(LEFT_OUT)
    return left_out or None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """All tests that use the one running stack share a process (pytest-xdist), and so do those that use one bundle. The
    former begin first, and then what takes long.
    """
    on_stack = {item for item in items if "stack" in getattr(item, "fixturenames", ())}
    for item in on_stack:
        item.add_marker(pytest.mark.xdist_group("stack"))
    for item in items:
        if item.nodeid.startswith(LEFT_OUT):
            item.add_marker(pytest.mark.slow)
        if item.nodeid.startswith(TOGETHER):
            item.add_marker(pytest.mark.xdist_group("evidently"))
        if "bundled" in getattr(item, "fixturenames", ()):       # an export to ONNX costs ten seconds of CPU time
            item.add_marker(pytest.mark.xdist_group("bundled"))
    items.sort(key=lambda item: (item not in on_stack, turn(item.nodeid)))      # stable: a file's own order stays
    yield
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in on_stack):
        raise pytest.UsageError("this pytest-xdist groups no tests with this pytest: every process would start all servers")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the collection made lives to the end: nobody looks through it for garbage again and again."""
    gc.collect()
    gc.freeze()


def turn(nodeid: str) -> int:
    return next((n for n, path in enumerate(FIRST) if nodeid.startswith(path)), len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling | None:
    """The tests of a file share a process, too, and what is made once for them."""
    return ByFile(config, log) if config.getoption("dist") == "loadgroup" else None


class ByFile(LoadGroupScheduling):
    """A group, or else a file, goes to one process as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        return str(super()._split_scope(nodeid)).partition("::")[0]


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and the credential that may use all of its bucket."""

    endpoint: str
    credential: S3Credential

    def store(self, prefix: str = "", credential: S3Credential | None = None) -> S3Store:
        used = credential or self.credential
        return S3Store(self.endpoint, BUCKET, used.access_key, used.secret_key, prefix=prefix)


@pytest.fixture(scope="session", autouse=True)
def known_prices(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    """The accountant answers a question once in a run, whichever process asks."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prices"
    folder.mkdir(exist_ok=True)
    prices = Prices(folder)
    accounting.ask(prices)
    return prices


@pytest.fixture(scope="session", autouse=True)
def known_passphrases() -> Iterator[None]:
    """To stretch a passphrase takes a third of a second and 128 MiB, by design: the same with the same salt once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locked, "_key", functools.lru_cache(maxsize=None)(locked._key))
        yield


@pytest.fixture(scope="session")
def rows_are_judged_here() -> Iterator[None]:
    """Great Expectations is imported once, so that sites judge their rows in this process and not in one each. Many sites
    live in it, too: it remembers the encoded rows of all of them, by content, and not only of the last.
    """
    import great_expectations  # noqa: F401

    encode, known = rows._encoded.__wrapped__, {}

    def encoded(paths: tuple[Path, Path], recipe: Recipe, file: Path, digest: bytes, seconds: int) -> rows.Rows:
        key = digest, recipe.digest, *(path.suffix for path in paths)
        if key not in known:
            known[key] = encode(paths, recipe, file, digest, seconds)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_encoded", encoded)
        yield


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Function, nextitem: pytest.Function | None) -> Iterator[None]:
    """After the last test on the real servers they are stopped, and whoever works on them: idle they take a fifth of a core
    from all other tests.
    """
    yield
    if "stack" in item.fixturenames and (nextitem is None or "stack" not in nextitem.fixturenames):
        item._fixtureinfo.name2fixturedefs["stack"][-1].finish(item._request)


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> Bundled:
    """Two committed rounds and a bundle of the first; to read, not to change."""
    return make_bundled(tmp_path_factory.mktemp("bundled"))
