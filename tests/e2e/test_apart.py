"""Sites whose recipes run apart answer on real servers, and what a hostile recipe tries at one of them ends in words."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedround import sandbox
from fedround.statistics.partitions import Partitions
from infra.settings import load_toml, save_toml
from site_workers import audit
from site_workers.policy import SitePolicy
from tests.e2e.conftest import Federation
from tests.e2e.founding import with_members
from tests.small_federation import RECIPE

pytestmark = [pytest.mark.stack, pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))]

SITES = ("north", "east", "south")
HOSTILE = '''
import ctypes, os, signal, socket, subprocess, traceback
from pathlib import Path

PORT, CANARY = {port}, "{canary}"
SITE = Path(__file__).parents[1]
COULD = set()


def attempts():
    libc = ctypes.CDLL(None, use_errno=True)
    yield "key", lambda: (SITE / "keys" / "identity.pem").read_bytes()
    yield "noise", lambda: (SITE / "keys" / "noise.key").read_bytes()
    yield "credential", lambda: (SITE / "keys" / "s3.toml").read_bytes()
    yield "ledger", lambda: open(SITE / "ledger.jsonl", "a")
    yield "another site", lambda: (SITE.parent / "north" / "keys" / "identity.pem").read_bytes()
    yield "file", lambda: open("/tmp/" + CANARY, "w")
    yield "memory file", lambda: open("/dev/shm/" + CANARY, "w")
    yield "socket", lambda: socket.create_connection(("127.0.0.1", PORT), 1)
    yield "parent", lambda: os.kill(os.getppid(), signal.SIGTERM)
    yield "memory of parent", lambda: open(f"/proc/{{os.getppid()}}/mem", "rb").read(1)
    yield "environment of parent", lambda: open(f"/proc/{{os.getppid()}}/environ", "rb").read()


def alone():
    yield "fork", os.fork
    yield "program", lambda: subprocess.run(["/bin/true"], check=True)


def attack(*kinds):
    for kind in kinds:
        for name, attempt in kind():
            try:
                attempt()
            except OSError:
                continue
            except BaseException as error:
                COULD.add(repr(error))
            COULD.add(name)


def at_south(which):
    """Is one of these wanted, at south alone, and not while it is tried on rows that nobody has?"""
    return SITE.name == "south" and (SITE / ("hostile-" + which)).exists() and not any(
        frame.name == "tried" for frame in traceback.extract_stack())


class Attacking(nn.Module):
    def forward(self, x):
        if at_south("tries"):
            attack(attempts, alone)
        return x


def loss(outputs, batch):
    if at_south("tries"):
        attack(attempts, alone)
        raise SystemExit(f"tried everything, could {{sorted(COULD)}}")
    if at_south("ends"):
        os._exit(0)
    while at_south("hangs"):
        pass
    return nn.functional.binary_cross_entropy_with_logits(outputs, batch["y"].to(outputs.dtype), reduction="none")


def features(rows):
    if SITE.name == "south":
        attack(attempts)
        if COULD:
            raise ValueError
    return rows[["x1", "x2"]].to_numpy(np.float32)
'''


def hostile(port: int, canary: str) -> str:
    """The usual recipe, which at south tries what it must not while files say so; what encodes rows tries it always."""
    own, _, rest = RECIPE.partition("def features")
    labels = rest[rest.index("def labels"):].replace("nn.Sequential(", "nn.Sequential(Attacking(), ")
    return own + HOSTILE.format(port=port, canary=canary) + "\n\n" + labels


@dataclass
class Apart:
    """A federation whose recipes run apart, and the address at which a hostile one knocks."""

    real: Federation
    door: socket.socket
    canary: str

    @property
    def south(self) -> Path:
        """The site at which the recipe is hostile."""
        return self.real.machine.site("south")

    def round(self, run: str, number: int, attack: str | None = None) -> str:
        """The next round of a run; what became of south."""
        file = self.south / f"hostile-{attack}"
        if attack is not None:
            file.touch()
        ended = self.real.ended(self.real.start("federated-round", run=run))
        file.unlink(missing_ok=True)
        assert ended.state.is_completed(), ended.state.message
        outcomes = self.real.record(run, number)["outcomes"]
        assert (outcomes["north"], outcomes["east"]) == ("updated", "updated")
        return outcomes["south"]

    def decisions(self, run: str) -> dict[int, list[str]]:
        """What south's audit log says that it decided, by round of a run."""
        events = audit.read(self.south)
        rounds = {event.plan: event.round for event in events if isinstance(event, audit.Asked) and event.run == run}
        found: dict[int, list[str]] = {number: [] for number in rounds.values()}
        for event in events:
            if isinstance(event, audit.Decided) and event.plan in rounds:
                found[rounds[event.plan]].append(event.decision)
        return found


@pytest.fixture(scope="module")
def apart(short_folder: Path) -> Iterator[Apart]:
    canary = f"{short_folder.name}-canary"
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        recipe = hostile(door.getsockname()[1], canary)
        with with_members(short_folder / "apart", SITES, recipe=recipe, measures=True, deadline_s=900,
                          evaluation={"bins": 10, "noise_std": 5.0}) as real:
            for name in SITES:
                path = real.machine.site(name) / "site.toml"
                path.write_text(path.read_text().replace('sandbox = "auto"', 'sandbox = "strict"'))
                assert 'sandbox = "strict"' in path.read_text()
                policy = real.machine.site(name) / "policy.toml"
                save_toml(load_toml(SitePolicy, policy).model_copy(update={
                    "partitions": (Partitions(column="y", by="value"),)}), policy, "tells rows apart")
            real.start_processes()
            yield Apart(real, door, canary)


def test_a_campaign_a_measurement_and_a_part_of_the_rows(apart: Apart):
    real, run, agreed = apart.real, "spring", apart.real.machine.coordinator / "federation.toml"
    campaign = real.here("train", "run", "-c", real.machine.coordinator, "--run", run, "--rounds", 2)
    assert campaign.exit_code == 0, campaign.stderr
    for number in (1, 2):
        assert set(real.record(run, number)["outcomes"].values()) == {"updated"}
    told = real.here("ask", "-c", real.machine.coordinator, "--run", f"{run}-m", "--histogram", "x1=-1,0,1", "--noise", "2",
                     "--json")
    assert told.exit_code == 0, told.stderr
    assert len(json.loads(told.stdout)["answers"]) == 3
    before = agreed.read_text()
    agreed.write_text(f'{before}\n[partitions]\ncolumn = "y"\nby = "value"\n')
    part = real.here("train", "run", "-c", real.machine.coordinator, "--run", f"{run}-p", "--rounds", 1, "--partition", "1")
    assert part.exit_code == 0, part.stderr
    assert set(real.record(f"{run}-p")["outcomes"].values()) == {"updated"}
    agreed.write_text(before)
    proof = real.here("verify", run, "--as", real.machine.coordinator)
    assert proof.exit_code == 0, proof.stderr


@pytest.mark.parametrize(("attack", "words"), [("tries", "tried everything, could []"),
                                               ("ends", "ended without an answer"), ("hangs", "")])
def test_attack_a_recipe_that_is_hostile_in_a_round(apart: Apart, attack: str, words: str):
    """The round commits without the site, whose logs say why, and the site answers the next one."""
    run, policy = f"summer-{attack}", apart.south / "policy.toml"
    before = policy.read_text()
    if attack == "hangs":       # a site that is too slow here is refused, too
        said = load_toml(SitePolicy, policy)
        save_toml(said.model_copy(update={"limits": said.limits.model_copy(update={"seconds": 30})}), policy, "short")
    assert apart.round(run, 1, attack) == "refused"
    policy.write_text(before)
    assert apart.round(run, 2) == "updated"
    first, second = apart.decisions(run)[1], apart.decisions(run)[2]
    assert first[-1] in {"failed", "limits"}
    assert second == ["carry out"]
    assert words in (apart.south / "site.log").read_text()
    assert not any(Path(folder, apart.canary).exists() for folder in ("/tmp", "/dev/shm"))
    with pytest.raises(BlockingIOError):
        apart.door.accept()
