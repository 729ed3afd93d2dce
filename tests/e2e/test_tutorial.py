"""The tutorial works as it stands: its files are written, its commands typed, and what it shows is what comes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pages import ROOT, appears, steps
from tests.e2e.warm import fedround_on

PAGE = (ROOT / "docs" / "tutorial.md").read_text()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that PostgreSQL's own user can pass through; what still runs there is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="fedround-tutorial-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        subprocess.run([sys.executable, "-m", "fedround_cli.main", "down", "--home", ".fedround"], cwd=name, check=False,
                       env=environment(), capture_output=True)


@pytest.fixture
def programs() -> Iterator[Path]:
    """A folder for the PATH, with a short name: a socket lies in it."""
    with tempfile.TemporaryDirectory(prefix="fedround-programs-") as name:
        yield Path(name)


def environment(*first: Path) -> dict[str, str]:
    """The reader's: the product's environment is active and no option comes from outside. first: folders on the PATH."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FEDROUND_", "PREFECT_"))}
    path = os.pathsep.join(map(str, [*first, Path(sys.executable).parent, os.environ["PATH"]]))
    return clean | {"PATH": path, "COLUMNS": "120", "PYTHONPATH": str(ROOT)}


@pytest.mark.stack
def test_the_tutorial_works_as_it_stands(folder: Path, programs: Path):
    """One shell for the whole page, so that its background jobs are the shell's; any command that fails stops it."""
    page = steps(PAGE)
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, step in enumerate(page):
        for name, body in step.files.items():
            script.append(f"cat > {name} <<'END OF FILE'\n{body}END OF FILE")
        script += [f"echo '<step {number}>'", step.commands]
    with fedround_on(programs, environment(), cold=("coordinator start", "site start north")):
        shell = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, env=environment(programs), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
    assert shell.returncode == 0, (shell.stdout, logs)

    for number, step in enumerate(page):
        output = shell.stdout.partition(f"<step {number}>\n")[2].partition(f"<step {number + 1}>\n")[0]
        unseen = [line for line in step.seen if not appears(line, output)]
        assert not unseen, f"after\n{step.commands}\nthe page shows\n{unseen}\nwhich is not in\n{output}"


def test_every_block_of_the_tutorial_is_understood():
    """A typing mistake in a fence would silently drop a step."""
    page = steps(PAGE)
    assert [name for step in page for name in step.files] == ["make_rows.py", "recipe.py", "contract.json", "settings.toml"]
    assert len(page) == PAGE.count("```bash") > 10
    assert sum(len(step.seen) for step in page) > 30
