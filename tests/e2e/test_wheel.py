"""What is installed from a wheel, far from the checkout, runs the demonstration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
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
    return build(source, built)


def build(source: Path, folder: Path) -> Path:
    """A wheel of these sources, in this folder."""
    subprocess.run([sys.executable, "-m", "uv", "build", "-q", "--wheel", "--no-build-isolation", "-o", str(folder),
                    str(source)], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_it_installs_names_of_its_own_and_the_five_folders_of_the_pipeline(wheel: Path):
    with ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == OURS


def test_the_images_build_has_all_that_it_copies_in_the_order_of_its_file(wheel: Path, tmp_path: Path):
    """No image is built here: its instructions are carried out by hand, from what they copy and from nothing else."""
    said = (ROOT / "infra" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    for line in said:
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            assert target.startswith("/build")
            for source in sources:
                place = tmp_path / target.strip("/") / ("" if target == f"/build/{source}" else source)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / source, place)
    lock = (tmp_path / "build" / "requirements.lock").read_text().splitlines()
    for package in ("uv", "torch"):
        assert f"grep '^{package}==' /build/requirements.lock" in "\n".join(said)
        assert len([line for line in lock if line.startswith(f"{package}==")]) == 1
    built = build(tmp_path / "build", tmp_path / "built")
    with ZipFile(wheel) as ours, ZipFile(built) as image:
        assert sorted(ours.namelist()) == sorted(image.namelist())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    install(wheel, folder, sys.executable)
    return folder


def install(wheel: Path, folder: Path, python: str) -> None:
    """An environment that has the wheel, and of the checkout's own only the libraries: a path file does not read the path
    files of the folder that it names, so an editable install of fedround stays out of sight.

    python: of our version; what the lock names for its patch level alone is installed besides.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True, capture_output=True)
    (libraries,) = (folder / "lib").glob("python*/site-packages")
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "bin" / "weed").symlink_to(Path(sysconfig.get_path("scripts")) / "weed")     # a library's program
    by_patch = folder / "by_patch.txt"
    by_patch.write_text("".join(line for line in (ROOT / "requirements.lock").read_text().splitlines(keepends=True)
                                if f"'{sys.version_info.major}.{sys.version_info.minor}." in line))
    needed = [str(wheel), *(() if python == sys.executable else ("-r", str(by_patch)))]
    subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "--no-deps", "--python",
                    str(folder / "bin" / "python"), *needed], check=True, capture_output=True)


def run(environment: Path, folder: Path, *command: str, user: int | None = None) -> str:
    """A command of the environment, in a folder that has nothing of the checkout. user: as somebody else, whose home the
    folder is.
    """
    clean = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}}
    who: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    if user is not None:
        clean = {key: clean[key] for key in ("LANG", "PATH") if key in clean} | {"HOME": str(folder)}
    done = subprocess.run([str(environment / "bin" / command[0]), *command[1:]], cwd=folder, env=clean, check=False,
                          capture_output=True, text=True, **who)
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


def trained(told: str, home: Path) -> None:
    """What the demonstration says and leaves."""
    assert "round   2   12 updates  AUC 0." in told
    assert "everything is stopped" in told
    assert (home / "coordinator" / "reports" / "demo" / "00002.html").exists()


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """That everybody may enter: pytest's own is closed to others, again by every pytest that starts."""
    folder = Path(tempfile.mkdtemp(prefix="fedround-wheel-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(900)
def test_the_demonstration_runs(environment: Path, open_folder: Path):
    home = open_folder / "demo"
    trained(run(environment, open_folder, "fedround", "demo", "--rounds", "2", "--home", str(home)), home)


# -- as nobody in particular -------------------------------------------------------------------------------------------

NOBODY = 65_534
"""A user without a name, a home or any right: every Linux has the number, and none has files of it."""


def readable_python() -> str:
    """An interpreter of this version, and beside it these libraries, that somebody else may run. An interpreter below a home
    that is closed to others is none.
    """
    if os.geteuid() != 0:
        pytest.skip("not root: all tests here run as an unprivileged user, and nobody else can be")
    here = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (str(here), *(str(Path(folder) / version) for folder in ("/usr/local/bin", "/usr/bin"))):
        try:
            done = subprocess.run([python, "-c", "import numpy"], check=False, capture_output=True, user=NOBODY, group=NOBODY,
                                  extra_groups=[], cwd="/", env={"PYTHONPATH": sysconfig.get_path("purelib")})
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip(f"no {version} with these libraries that an unprivileged user may read: {here} and its libraries are closed "
                "to others")


@pytest.mark.timeout(900)
def test_the_demonstration_runs_for_a_user_without_any_right(wheel: Path, open_folder: Path):
    """Servers, coordinator, twelve sites, two rounds. Nothing of it is root's."""
    environment, home = open_folder / "environment", open_folder / "home"
    install(wheel, environment, readable_python())
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    demo = home / "demo"
    trained(run(environment, home, "fedround", "demo", "--rounds", "2", "--home", str(demo), user=NOBODY), demo)
    assert {path.lstat().st_uid for path in home.rglob("*")} == {NOBODY}
