"""What the tests of bad input share: changed files, what a folder holds, a disk that is full."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

from fedround.signing import digest
from tests.small_federation import CONTRACT, RECIPE

ANOTHER_KEY = "ed25519:" + "07" * 32
APPROVED = ("--yes", "--digest", digest(RECIPE.encode())[:16], "--digest", digest(json.dumps(CONTRACT).encode())[:16])


def edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text, f"{pattern} is not in {path.name}"
    path.write_text(changed)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but logs and locks."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".log" and "prefect" not in path.parts and path.name != ".serving"}


def limited(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may not write a file of more than a few bytes: what a full disk looks like to a program."""
    return subprocess.run(
        [sys.executable, "-m", "fedround_cli.main", *arguments], cwd=folder, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)))
