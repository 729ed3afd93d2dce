"""One federation for all end-to-end tests: the real servers, a coordinator process and three site processes.

Every test uses a run of its own (`run`), and leaves all processes serving.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import prefect.main  # noqa: F401 - sets up logging, once, and closes streams of earlier handlers: not inside a test
import psutil
import pytest
from click.testing import Result
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from fedround_cli.main import app
from flows.deployment_names import full_name
from flows.forms import grouped
from flows.one_machine import Founding, OneMachine, SiteToMake
from infra.settings import CoordinatorSettings, load_toml
from infra.stack import LocalStack
from infra.stack.processes import recorded, stop_recorded
from infra.stores import ObjectStore, open_store
from tests.e2e.pages import ROOT
from tests.e2e.warm import fedround_on
from tests.small_federation import CONTRACT, NAMES, RECIPE, rows, settings

T = TypeVar("T")
DEADLINE_S = 900
WATCH = {"columns": [{"column": "x1", "edges": [-1.0, 0.0, 1.0]}], "noise_std": 2.0, "measurements": 2,
         "partitions": {"column": "y", "by": "value"}}
"""Campaigns measure none of it. The rows of the two labels differ in x1, so one label after the other is a drift."""
RESTART_S = 60.0
PATIENCE_S = 300.0
"""Only a broken test waits so long: all others go on when what they wait for has happened."""

# While there is a file 'hold' in a member's folder, its process waits where training (or scoring) begins; not where a recipe
# is tried before anything is charged.
HOLDING = RECIPE.replace(
    "import numpy as np", "import time\nimport traceback\nfrom pathlib import Path\n\nimport numpy as np").replace(
    "    return nn.Sequential", """    tried = any(frame.name == "_tried" for frame in traceback.extract_stack())
    while (Path(__file__).parents[1] / "hold").exists() and not tried:
        time.sleep(0.02)
    return nn.Sequential""")


@dataclass
class Federation:
    """What a test may do with it."""

    machine: OneMachine
    api_url: str
    loop: asyncio.Runner
    client: PrefectClient
    """Lives in `loop`: to make one costs more than to ask it."""
    typed: Path
    """The program `fedround` of a warm parent (`tests.e2e.warm`)."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def store(self) -> ObjectStore:
        """As the coordinator opens it."""
        folder = self.machine.coordinator
        return open_store(load_toml(CoordinatorSettings, folder / "coordinator.toml").store, folder)

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `fedround …` as a person would, in a process of its own."""
        return subprocess.run([self.typed, *map(str, arguments)], capture_output=True, text=True, cwd=self.machine.home,
                              check=False)

    def here(self, *arguments: object) -> Result:
        """Run `fedround …` in this process, which saves the seconds that Python needs to start and import."""
        with own_settings(self.api_url):
            return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def works(self, *arguments: object) -> str:
        """The same of a command that must not fail; what it prints."""
        done = self.here(*arguments)
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    def spawn(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start `fedround …` and let it run; it is stopped when the session ends."""
        log = (self.machine.home / "logs" / "spawned.log").open("ab")
        process = subprocess.Popen([self.typed, *map(str, arguments)], stdout=log, stderr=log, cwd=self.machine.home)
        self.started.append(process)
        return process

    def ask(self, question: Callable[[PrefectClient], Awaitable[T]]) -> T:
        """Ask the Prefect API."""
        async def asked() -> T:
            return await question(self.client)

        return self.loop.run(asked())

    def start(self, flow: str, **request: Any) -> UUID:
        """Ask for a round or a campaign, as the UI's form does."""
        return self.start_raw(flow, {"request": grouped(request)})

    def start_raw(self, flow: str, parameters: dict[str, Any], **more: Any) -> UUID:
        """Create a flow run of the deployment called `flow` with exactly these parameters."""
        async def create(client: PrefectClient) -> UUID:
            deployment = await client.read_deployment_by_name(flow if "/" in flow else full_name(flow, "small"))
            return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters, **more)).id

        return self.ask(create)

    def flow_run(self, run: UUID) -> FlowRun:
        """As the API knows it now."""
        return self.ask(lambda client: client.read_flow_run(run))

    def ended(self, run: UUID, patience_s: float = PATIENCE_S) -> FlowRun:
        """The flow run once it is final."""
        return wait(lambda: found if (found := self.flow_run(run)).state.is_final() else None, "flow run", patience_s)

    def short_deadline_s(self) -> int:
        """Long enough for whoever is awake, as busy as this machine is now: it follows from a round that is run for it."""
        ended = self.ended(self.start("federated-round", run="how-long"))
        assert ended.state.is_completed(), ended.state.message
        return 3 + math.ceil(4 * ended.total_run_time.total_seconds())

    def site_run(self, run: str, site: str, number: int = 1, purpose: str = "train") -> FlowRun | None:
        """The last flow run of a site for a round."""
        tag = f"{run}/{purpose}-{number:05d}"
        found = self.ask(lambda client: client.read_flow_runs(flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[tag]))))
        mine = [flow_run for flow_run in found if flow_run.name == f"{tag}/{site}"]
        return max(mine, key=lambda flow_run: flow_run.created, default=None)

    def record(self, run: str, number: int = 1) -> dict[str, Any]:
        """What is known of a round, and what became of each site."""
        found = json.loads((self.machine.coordinator / "reports" / run / f"{number:05d}.json").read_bytes())
        return {**found, "outcomes": {site["site"]: site["outcome"] for site in found["sites"]}}

    def charges(self, site: str, run: str) -> list[dict[str, Any]]:
        """The lines of a site's ledger that belong to a run."""
        lines = (self.machine.site(site) / "ledger.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if f'"run":"{run}"' in json.dumps(line, separators=(",", ":"))]

    def pid(self, site: str) -> int:
        """The process that serves a site: the one that has the site's lock."""
        lock = str(self.machine.site(site) / ".serving")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(file.path == lock for file in process.open_files()):
                    return process.pid
        raise AssertionError(f"nobody serves {site}")

    @contextmanager
    def held(self, member: Path) -> Iterator[None]:
        """While this lasts, the member's process stops where it begins to compute."""
        (member / "hold").touch()
        try:
            yield
        finally:
            (member / "hold").unlink(missing_ok=True)

    def restart_coordinator(self) -> None:
        """Kill the coordinator without warning and start it again."""
        os.kill(recorded(self.machine.home)["coordinator"], signal.SIGKILL)
        wait(lambda: "coordinator" not in recorded(self.machine.home), "the coordinator's end")
        self.start_processes()

    def restart_site(self, site: str) -> None:
        """Kill a site without warning and start it again, as its operator would."""
        os.kill(self.pid(site), signal.SIGKILL)
        self.spawn("site", "start", str(self.machine.site(site)))

    def not_served(self) -> list[str]:
        """The sites that no process serves: whoever does holds the site's lock."""
        return [site for site in NAMES if not is_locked(self.machine.site(site) / ".serving")]

    def start_processes(self) -> None:
        """Start what does not run, and wait until all serve."""
        with own_settings(self.api_url):
            self.machine.start_processes(lambda _: None)


def wait(condition: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Wait until the condition is true; returns what it returned."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {patience_s:.0f} s in vain for {what}"
        time.sleep(0.1)
    return found


@contextmanager
def own_settings(api_url: str) -> Iterator[None]:
    """Commands that run in this process leave its environment as it was."""
    before = dict(os.environ)
    try:
        with temporary_settings({PREFECT_API_URL: api_url}):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def real(stack: LocalStack, rows_are_judged_here: None) -> Iterator[Federation]:
    """North, east and south, their coordinator, and the servers between them."""
    with founded(stack) as federation:
        federation.start_processes()
        yield federation


@contextmanager
def founded(stack: LocalStack, **changes: Any) -> Iterator[Federation]:
    """The same before any process of a member runs. changes: of what was agreed."""
    machine = OneMachine(stack.home)
    agreed = machine.home / "agreed"
    agreed.mkdir()
    (agreed / "recipe.py").write_text(HOLDING)
    (agreed / "contract.json").write_text(json.dumps(CONTRACT))
    rows(400, 99).to_parquet(agreed / "test.parquet")
    members = []
    for seed, (name, count) in enumerate(zip(NAMES, (300, 200, 150), strict=True)):
        data = machine.home / "data" / name
        data.mkdir(parents=True)
        rows(count, seed).to_parquet(data / "train.parquet")
        rows(400, 50 + seed).to_parquet(data / "validation.parquet")     # enough to be heard above the noise
        members.append(SiteToMake(name, data / "train.parquet", data / "validation.parquet", float(count)))
    info = stack.start(lambda _: None)
    with on_servers(machine, info.api_url) as federation:
        with own_settings(federation.api_url):
            machine.set_up(
                Founding(settings(**{
                    "deadline_s": DEADLINE_S, "evaluation": {"bins": 10, "noise_std": 5.0}, "privacy": {
                        "unit": "record", "epsilon": 20.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 60}, "drift": WATCH,
                    "choices": {"sites": True, "epsilon": [16.0], "rule": [{"name": "coordinate_median"}]}, **changes}),
                    agreed / "recipe.py", agreed / "contract.json", agreed / "test.parquet"),
                members, max_epsilon=900.0, delta_dp=1e-5, min_rows=50)
        yield federation


@contextmanager
def on_servers(machine: OneMachine, api_url: str) -> Iterator[Federation]:
    """A federation that is still to be set up on servers that run; in the end its processes are stopped, not the servers."""
    with (asyncio.Runner() as loop, in_loop(loop, PrefectClient(api_url)) as client,
          tempfile.TemporaryDirectory(prefix="fedround-programs-") as programs,
          fedround_on(Path(programs), os.environ | {"PYTHONPATH": str(ROOT)})):
        federation = Federation(machine, api_url, loop, client, Path(programs) / "fedround")
        try:
            yield federation
        finally:
            for process in federation.started:
                process.terminate()
            for process in federation.started:
                process.wait()
            stop_recorded(machine.home)


@contextmanager
def in_loop(loop: asyncio.Runner, client: PrefectClient) -> Iterator[PrefectClient]:
    """The client, open for whoever runs in this loop."""
    loop.run(client.__aenter__())
    try:
        yield client
    finally:
        loop.run(client.__aexit__(None, None, None))


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture(autouse=True)
def all_sites_serve(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test after which a site is not served has failed, and says so itself. The next tests find all of them again."""
    yield
    if "real" not in request.fixturenames:
        return
    real: Federation = request.getfixturevalue("real")
    with suppress(AssertionError):      # one that was started again a moment ago
        wait(lambda: not real.not_served(), "all sites", RESTART_S)
    gone = {site: (real.machine.site(site) / "site.log").read_text()[-3000:] for site in real.not_served()}
    for site in gone:
        real.spawn("site", "start", str(real.machine.site(site)))
    assert not gone, f"these sites' processes have ended, and the last that they wrote is: {gone}"


@pytest.fixture
def run(request: pytest.FixtureRequest) -> str:
    """A run of the test's own, named after it."""
    return request.node.name.removeprefix("test_").replace("_", "-").partition("[")[0][:30].strip("-")
