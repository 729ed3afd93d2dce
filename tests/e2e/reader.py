"""A reader of the documentation: types what its pages say, in one shell, and sees what comes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.pages import ROOT, Step, appears
from tests.e2e.warm import fedround_on


@contextmanager
def a_folder() -> Iterator[Path]:
    """An empty folder that PostgreSQL's own user can pass through; what still runs there is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="fedround-tutorial-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        subprocess.run([sys.executable, "-m", "fedround_cli.main", "down", "--home", ".fedround"], cwd=name, check=False,
                       env=environment(), capture_output=True)


def environment(*first: Path) -> dict[str, str]:
    """The reader's: the product's environment is active and no option comes from outside. first: folders on the PATH."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FEDROUND_", "PREFECT_"))}
    path = os.pathsep.join(map(str, [*first, Path(sys.executable).parent, os.environ["PATH"]]))
    return clean | {"PATH": path, "COLUMNS": "120", "PYTHONPATH": str(ROOT)}


def type_all(page: list[Step], folder: Path, cold: tuple[str, ...] = ()) -> None:
    """One shell for all steps, so that its background jobs are the shell's; any command that fails stops it. What a step
    shows must come. cold: how the commands begin that are started as ever (`warm.fedround_on`).
    """
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, step in enumerate(page):
        for name, body in step.files.items():
            script.append(f"cat > {name} <<'END OF FILE'\n{body}END OF FILE")
        script += [f"echo '<step {number}>'", step.commands]
    with (tempfile.TemporaryDirectory(prefix="fedround-programs-") as short,        # a short name: a socket lies in it
          fedround_on(Path(short), environment(), cold)):
        shell = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, env=environment(Path(short)), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
    assert shell.returncode == 0, (shell.stdout, logs)

    for number, step in enumerate(page):
        output = shell.stdout.partition(f"<step {number}>\n")[2].partition(f"<step {number + 1}>\n")[0]
        unseen = [line for line in step.seen if not appears(line, output)]
        assert not unseen, f"after\n{step.commands}\nthe page shows\n{unseen}\nwhich is not in\n{output}"
