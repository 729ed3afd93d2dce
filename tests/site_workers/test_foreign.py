"""Clients that were written elsewhere: what they give back is all that is taken, and a hostile one ends in a refusal."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedround import codec, layout, sandbox
from fedround.errors import Cancelled, ContractError, SetupError
from fedround.learning.foreign.site import change
from fedround.learning.foreign.spec import files_of
from fedround.learning.recipe import load_recipe
from fedround.privacy import ledger
from fedround.privacy.noise import stream
from fedround.privacy.spec import DpSgd, GaussianUpdate, NoMechanism
from flows import rehearsal
from infra.settings import ForeignSettings, SiteSettings, load_toml, save_toml
from site_workers.foreign import host
from site_workers.site import Site
from tests.small_federation import NAMES, RECIPE, SmallFederation, make

pytestmark = pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))

SITE = {"unit": "site", "epsilon": 8.0, "delta_dp": 1e-5, "clip_norm": 1.0, "rounds": 3}
STEPS = '''
import os
import numpy as np
import pandas as pd

def train(parameters, settings):
    rows = pd.read_parquet(os.environ["ROWS"])
    return {name: array + np.float32(settings["by"] * len(rows)) for name, array in parameters.items()}
'''
NVFLARE = '''
import argparse
import nvflare.client as flare
from nvflare.client.tracking import SummaryWriter

parser = argparse.ArgumentParser()
parser.add_argument("--by", type=float)
by = parser.parse_args().by

def main():
    flare.init()
    writer = SummaryWriter()
    while flare.is_running():
        model = flare.receive()
        writer.add_scalar("loss", 1.0, global_step=model.current_round)
        print(flare.system_info()["site_name"])
        trained = {name: tensor + by * 300 for name, tensor in model.params.items()}
        flare.send(flare.FLModel(params=trained, metrics={"accuracy": 1.0}, meta={"NUM_STEPS_CURRENT_ROUND": 10 ** 9}))

if __name__ == "__main__":
    main()
'''


def recipe_of(code: str, kind: str = "function", **said: object) -> str:
    """A recipe whose client is this one file."""
    client = "client.py" if kind == "nvflare" else "client:train"
    files = {"client.py": hashlib.sha256(code.encode()).hexdigest()}
    said = {"kind": kind, "client": client, "files": files, "config": {"by": 0.001}, **said}
    return f"{RECIPE}\nfrom fedround.learning.foreign.spec import Foreign\nFOREIGN = Foreign(**{said!r})\n"


def federation_of(root: Path, code: str, kind: str = "function", **said: object) -> SmallFederation:
    """All sites have the client, and its own interpreter is ours."""
    found = make(root, recipe=recipe_of(code, kind, **said), units=("site",), max_epsilon=40.0, max_epsilon_site=8.0,
                 privacy=SITE, training=None)
    for name in found.names:
        (root / name / "client").mkdir()
        (root / name / "client" / "client.py").write_text(code)
        rows = str(root / "data" / name / "train.parquet")
        amend(found, name, ForeignSettings(python=sys.executable, data=(rows,), environment={"ROWS": rows}))
    return found


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, rows_are_judged_here: None) -> SmallFederation:
    """Not to be changed."""
    return federation_of(tmp_path_factory.mktemp("foreign"), STEPS)


def trained(site: Site, folder: Path, code: str, kind: str = "function", seconds: float = 60,
            cancelled: Callable[[], bool] = lambda: False, **said: object) -> dict[str, np.ndarray]:
    """What a client with this code makes of ones, at the site."""
    (folder / "client").mkdir()
    (folder / "client" / "client.py").write_text(code)
    (folder / "recipe.py").write_text(recipe_of(code, kind, **said))
    settings = site.settings.model_copy(update={
        "foreign": site.settings.foreign.model_copy(update={"folder": str(folder / "client")})})
    changed = replace(site, recipe=load_recipe(folder / "recipe.py"), settings=settings)
    return host.trainer(changed, 7, tuple(BASE), cancelled, seconds)(BASE)


def amend(federation: SmallFederation, name: str, foreign: ForeignSettings | None) -> None:
    path = federation.root / name / "site.toml"
    save_toml(load_toml(SiteSettings, path).model_copy(update={"foreign": foreign}), path, "a site")


def delta_of(federation: SmallFederation, name: str) -> np.ndarray:
    body = (federation.root / "store" / layout.delta(name, "spring", 1, 1)).read_bytes()
    coordinator = federation.coordinator
    schema = codec.schema_of(coordinator.recipe.build_model().state_dict())
    return codec.flatten(codec.decode(body, schema, "delta"))


@pytest.mark.parametrize(("code", "kind", "said"), [
    (STEPS, "function", {}), (NVFLARE, "nvflare", {"arguments": ("--by", "0.001")})], ids=["function", "nvflare"])
def test_what_it_gives_back_is_what_it_made_of_the_numbers_that_it_got(standing, tmp_path, code, kind, said):
    found = trained(standing.site("north"), tmp_path, code, kind, **said)
    assert {name: array.shape for name, array in found.items()} == {"a": (2, 2), "b": (3,)}
    assert all(np.allclose(array, 1.3, atol=1e-5) for array in found.values())


def test_it_finds_its_data_where_it_works_and_may_put_locks_beside_them(standing, tmp_path):
    site, data = standing.site("north"), tmp_path / "mine"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "numbers.txt").write_text("0.25")
    foreign = site.settings.foreign.model_copy(update={"data": (str(data),), "environment": {"HOME_OF_DATA": str(data)}})
    site = replace(site, settings=site.settings.model_copy(update={"foreign": foreign}))
    code = """import os, pathlib
def train(parameters, settings):
    here = pathlib.Path(os.environ["HOME_OF_DATA"])
    (here / "deep" / "numbers.lock").write_text("mine")
    assert here == pathlib.Path("mine").absolute()
    by = float(pathlib.Path("mine/deep/numbers.txt").read_text())
    try:
        (here / "deep" / "numbers.txt").write_text("spoilt")
    except PermissionError:
        return {name: array + by for name, array in parameters.items()}
"""
    assert np.array_equal(trained(site, tmp_path, code)["b"], np.full(3, 1.25, np.float32))
    assert [(path.name, path.read_text()) for path in (data / "deep").iterdir()] == [("numbers.txt", "0.25")]


def test_without_noise_the_update_is_what_it_gives_back_less_the_base():
    base = {"a": np.full((2, 2), 3.0, np.float32)}
    found = change(base, lambda given: {"a": given["a"] * 2}, NoMechanism(), stream(bytes(32), b"x"))
    assert np.array_equal(found["a"], base["a"])
    with pytest.raises(ContractError, match="nobody sees their gradients"):
        change(base, lambda given: given, DpSgd(noise_multiplier=1.0, clip_norm=1.0, sampling_rate=1.0, steps=1),
               stream(bytes(32), b"x"))


def test_under_the_unit_site_the_change_is_cut_and_noised_outside_of_it(tmp_path, rows_are_judged_here):
    """17 coordinates of 1000 each: more than 4,000 clip norms long. A retry sends the same bytes, and a round follows."""
    federation = federation_of(tmp_path, STEPS, config={"by": 1000.0 / 300})
    planned = federation.plan()
    assert [federation.answer(name, planned) for name in NAMES] == ["update"] * 3
    charged = ledger.read(federation.site("north").ledger).charges[0].mechanisms
    assert [type(one) for one in charged] == [GaussianUpdate]
    bound = 1.0 + 8 * charged[0].noise_multiplier * np.sqrt(17)
    assert all(np.linalg.norm(delta_of(federation, name)) < bound for name in NAMES)
    sent = delta_of(federation, "north")
    federation.answer("north", planned)
    assert np.array_equal(delta_of(federation, "north"), sent)
    assert len(federation.commit(planned).commit.updates) == 3
    assert len(federation.round().updates) == 3


def reason_of(federation: SmallFederation, name: str) -> tuple[str, str]:
    path = sorted((federation.root / "store" / layout.refusals(name, "spring", 1, 1, "train")).parent.glob("refusal-*"))[-1]
    body = json.loads(path.read_bytes())["body"]
    return body["reason"], body["detail"]


BASE = {"b": np.ones(3, np.float32), "a": np.ones((2, 2), np.float32)}
HOSTILE = {
    "nan": "import numpy as np\ndef train(p, s): return {n: a * np.nan for n, a in p.items()}",
    "infinite": "import numpy as np\ndef train(p, s): return {n: np.full_like(a, 3e38) * 10 for n, a in p.items()}",
    "shapes": "def train(p, s): return {n: a.ravel()[:1] for n, a in p.items()}",
    "missing": "def train(p, s): return {}",
    "raises": "def train(p, s): raise RuntimeError('canary-77125')",
    "exits": "import os\ndef train(p, s): os._exit(0)",
    "socket": "import socket\ndef train(p, s): socket.create_connection(('127.0.0.1', 9)); return p",
    "key": "import glob\ndef train(p, s): open(s['key']).read(); return p",
    "memory": "def train(p, s): return [bytearray(1 << 30) for _ in range(10)]",
    "floods": "import os, sys, glob\n"
              "def train(p, s):\n"
              "    for name in os.listdir('/proc/self/fd'):\n"
              "        try:\n"
              "            for _ in range(10 << 10): os.write(int(name), bytes(1 << 20))\n"
              "        except OSError: pass\n"
              "    return p",
    "pickle": "import os\ndef train(p, s):\n"
              "    for name in os.listdir('/proc/self/fd'):\n"
              "        if int(name) > 2:\n"
              "            try: os.write(int(name), b'cos\\nsystem\\n(S\"touch canary\"\\ntR.')\n"
              "            except OSError: pass\n"
              "    os._exit(0)",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_attack_what_a_hostile_client_gives_back_is_not_taken(standing, tmp_path, what, caplog):
    site = standing.site("north")
    limits = site.policy.limits.model_copy(update={"memory_mb": 4096})
    site = replace(site, policy=site.policy.model_copy(update={"limits": limits}))
    with pytest.raises(ContractError) as error:
        change(BASE, lambda _: trained(site, tmp_path, HOSTILE[what], config={"key": str(site.folder / "keys/identity.pem")}),
               NoMechanism(), stream(bytes(32), b"x"))
    assert "canary" not in str(error.value)
    assert not list(tmp_path.rglob("canary"))


def test_attack_a_hostile_client_ends_in_a_refusal_that_says_nothing_of_rows(tmp_path, rows_are_judged_here, caplog):
    federation = federation_of(tmp_path, HOSTILE["raises"])
    planned = federation.plan()
    assert federation.answer("north", planned) == "refusal"
    reason, detail = reason_of(federation, "north")
    assert (reason, "canary" in detail) == ("failed", False)
    assert not (tmp_path / "store" / layout.delta("north", "spring", 1, 1)).exists()


def test_attack_a_client_that_hangs_is_ended(standing, tmp_path):
    with pytest.raises(ContractError, match="was not done in 1 s"):
        trained(standing.site("north"), tmp_path, "import time\ndef train(p, s): time.sleep(3600)", seconds=1)


def test_attack_a_client_that_fills_the_disk_is_ended(standing, tmp_path, monkeypatch):
    free = iter([1000, 900, 499])
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free, 400)))
    with pytest.raises(ContractError, match="half of the free space"):
        trained(standing.site("north"), tmp_path, "import time\ndef train(p, s): time.sleep(3600)")


def test_attack_a_client_that_nobody_can_watch_is_ended(standing, tmp_path, monkeypatch):
    """Whatever goes wrong for who watches it, the time does not go on for ever."""
    free = iter([1000])
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(ContractError, match="could not be watched"):
        trained(standing.site("north"), tmp_path, "import time\ndef train(p, s): time.sleep(3600)")


DEEP = """
import os
def train(p, s):
    os.symlink("/etc", "link")
    os.mkdir("closed", 0)
    for _ in range(1500):
        os.mkdir("d"); os.chdir("d")
        open("file", "w").close()
    return p
"""


def test_attack_what_a_client_leaves_behind_is_removed(standing, tmp_path, monkeypatch):
    """A folder too deep for a path would stay on the disk, one more each round, and each round would fail."""
    places = tmp_path / "places"
    places.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    found = trained(standing.site("north"), tmp_path, DEEP)
    assert all(np.array_equal(found[name], array) for name, array in BASE.items())
    assert list(places.iterdir()) == []


def test_a_cancelled_round_ends_it(standing, tmp_path):
    with pytest.raises(Cancelled):
        trained(standing.site("north"), tmp_path, "import time\ndef train(p, s): time.sleep(3600)", cancelled=lambda: True)


def test_attack_code_that_was_changed_after_approval_does_not_run_and_costs_nothing(federation_with_client, caplog):
    federation = federation_with_client
    path = federation.root / "north" / "client" / "client.py"
    path.write_text(path.read_text() + "\n# one more line")
    assert federation.answer("north", federation.plan()) == "refusal"
    assert ledger.read(federation.site("north").ledger).charges == ()
    assert "is not the one that the approved recipe names" in caplog.text


@pytest.fixture
def federation_with_client(standing: SmallFederation, tmp_path: Path) -> SmallFederation:
    """To be changed."""
    return standing.copy(tmp_path / "copy")


def test_what_it_prints_stays_at_the_site(standing, tmp_path, caplog):
    site = replace(standing.site("north"), folder=tmp_path)
    trained(site, tmp_path, "def train(p, s):\n    print('canary-77125')\n    return p")
    log = tmp_path / host.LOG
    assert (log.read_text(), log.stat().st_mode & 0o777) == ("canary-77125\n", 0o600)
    assert "canary" not in caplog.text


def test_attack_what_it_prints_is_obeyed_by_no_terminal(standing, tmp_path):
    """Its operator reads it there."""
    site = replace(standing.site("north"), folder=tmp_path)
    code = "print('\\x1b]0;title\\x07\\x1b[2J 50 %\\r\\tä \\u009b2J\\x00')"
    plain = "import sys\n    sys.stdout.reconfigure(encoding='utf-8')"
    trained(site, tmp_path, f"def train(p, s):\n    {plain}\n    {code}\n    return p")
    assert (tmp_path / host.LOG).read_bytes().decode() == "?]0;title??[2J 50 %\n\tä ?2J?\n"


@pytest.mark.parametrize(("foreign", "words"), [
    (None, "no section \\[foreign\\]"),
    (ForeignSettings(python="/nowhere/python"), "there is no program"),
    (ForeignSettings(python=sys.executable, folder="elsewhere"), "cannot be read"),
    (ForeignSettings(python=sys.executable, data=("nowhere",)), "which is not there"),
    (ForeignSettings(python=sys.executable, data=(".",)), "the site's keys lie below it")])
def test_what_is_missing_is_named(standing, foreign, words):
    site = standing.site("north")
    with pytest.raises((SetupError, ContractError), match=words):
        host.check(replace(site, settings=site.settings.model_copy(update={"foreign": foreign})))


def test_a_rehearsal_never_lets_it_see_rows(federation_with_client):
    federation = federation_with_client
    federation.plan()
    with pytest.raises(SetupError, match="reads its own data"):
        rehearsal.rehearse(federation.site("north"))


def test_only_the_unit_site_goes_with_it(tmp_path):
    with pytest.raises(ContractError, match="protect no single record"):
        make(tmp_path, recipe=recipe_of(STEPS), training=None)


@pytest.mark.parametrize(("said", "words"), [
    ({"client": "client:train", "kind": "nvflare"}, "write the script's name"),
    ({"client": "client.py", "kind": "function"}, "write module and name"),
    ({"client": "other:train", "kind": "function"}, "'other.py'.* is not among them"),
    ({"client": "client:train", "kind": "function", "files": {"../client.py": "0" * 64}}, "files"),
    ({"client": "client:train", "kind": "function", "files": {"client.py": "f00"}}, "files")])
def test_what_a_recipe_says_wrongly_is_said(tmp_path, said, words):
    given = {"files": {"client.py": "0" * 64}, **said}
    text = f"{RECIPE}\nfrom fedround.learning.foreign.spec import Foreign\nFOREIGN = Foreign(**{given!r})\n"
    (tmp_path / "recipe.py").write_text(text)
    with pytest.raises(ContractError, match=words):
        load_recipe(tmp_path / "recipe.py")


def test_files_of_a_folder(tmp_path):
    with pytest.raises(ContractError, match="no Python file"):
        files_of(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "client.py").write_bytes(b"x = 1\r\n")
    assert files_of(tmp_path) == {"app/client.py": hashlib.sha256(b"x = 1\r\n").hexdigest()}
