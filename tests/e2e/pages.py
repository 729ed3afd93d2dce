"""The documentation as data: what a reader would type, the files a reader would write, and what a reader would see."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"^`([\w.-]+)`")


@dataclass
class Step:
    """A block of commands, and the lines that the page shows after it."""

    commands: str
    files: dict[str, str]
    """What the reader has written since the step before, by name."""
    seen: list[str] = field(default_factory=list)


def steps(page: str) -> list[Step]:
    """The `bash` blocks of a page in order, each with the `console` lines that follow it.

    A block of another kind is a file if the paragraph above it begins with the file's name; `text` is only read.
    """
    found, files = [], dict[str, str]()
    for fence in FENCE.finditer(page):
        kind, body = fence.groups()
        if kind == "bash":
            found.append(Step(body, files))
            files = {}
        elif kind == "console":
            found[-1].seen += body.splitlines()
        elif kind != "text":
            paragraph = page[:fence.start()].rstrip().rpartition("\n\n")[2]
            name = FILE_NAME.match(paragraph)
            assert name, f"the paragraph above this block does not begin with a file's name:\n{body}"
            files[name[1]] = body
    return found


def appears(line: str, output: str) -> bool:
    """Whether a line of a page is in the output; '…' stands for anything on one line, spaces for any spaces."""
    pattern = r"[^\n]*".join(r"[ \t]+".join(map(re.escape, re.split(r"[ \t]+", part))) for part in line.strip().split("…"))
    return re.search(pattern, output) is not None
