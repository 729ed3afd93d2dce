"""What must never be in the tree: secrets, machine paths, host names, packages, giant files. `python -m tests.hygiene`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MAX_BYTES = 3 << 20
FORBIDDEN = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}"),
    "an access key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a token": re.compile(r"\b(ghp|glpat|pypi|hf|xox[bp])[-_][A-Za-z0-9_-]{20,}"),
    "a machine path": re.compile(r"(?<![\w.])/(work|farm|root|home/[a-z]+|Users/[a-z]+|opt/(wheels|pypi))/"),
    "a private address": re.compile(r"\b(10\.\d{1,3}|192\.168|172\.(1[6-9]|2\d|3[01]))(\.\d{1,3}){2}\b"),
    "a registry host": re.compile(r"\b(pypi\.org|pythonhosted\.org|registry\.npmjs\.org|deb\.debian\.org)\b"),
    "an assert that -O removes": re.compile(r"^\s*assert "),
}
PACKAGES = ("fedround/", "fedround_cli/", "flows/", "tasks/", "site_workers/", "validation/", "infra/")


def findings(root: Path) -> list[str]:
    """One line per problem in the files that git tracks or would track."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    found = []
    for name in filter(None, listed):
        path = root / name
        if not path.is_file():
            continue
        if name.endswith((".tar.gz", ".whl")):
            found.append(f"{name}: a package that somebody has downloaded")
        if path.stat().st_size > MAX_BYTES:
            found.append(f"{name}: larger than {MAX_BYTES} bytes")
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for what, pattern in FORBIDDEN.items():
            if name == "tests/hygiene.py" or ("assert" in what and not name.startswith(PACKAGES)):
                continue
            found += [f"{name}:{number}: {what}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    return found


if __name__ == "__main__":
    problems = findings(Path(__file__).resolve().parents[1])
    print("\n".join(problems) or "hygiene: no secrets, host names, machine paths, packages or giant files")
    sys.exit(1 if problems else 0)
