"""What benchmarks that take minutes have in common: results that are remembered, and tables that are put into a page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedround.errors import SetupError


class Memory:
    """Results by what they depend on, as JSON in one file; what is there is not computed again.

    A change of code is not noticed: delete the file after one.
    """

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def recall(self, name: str, depends_on: object, compute: Callable[[], Any]) -> Any:
        """What `compute` gave for the same `name` and `depends_on` (both JSON), now or earlier."""
        key = f"{name} {hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]}"
        if key not in self._known:
            self._known[key] = json.loads(json.dumps(compute()))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._known, indent=1))
        return self._known[key]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(page: Path, part: str, text: str) -> None:
    """Put `text` between the lines `<!-- part -->` and `<!-- end -->` of a page. Raises SetupError if they are not there."""
    before, start, rest = page.read_text().partition(f"<!-- {part} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not start or not end:
        raise SetupError(f"{page.name}: has no part '{part}'; it begins with '<!-- {part} -->' and ends with '<!-- end -->'")
    page.write_text(f"{before}{start}{text.strip()}\n{end}{after}")
