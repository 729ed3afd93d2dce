"""The pages of docs/how-to/ work as they stand, one after the other, in the federation that the tutorial makes."""

from __future__ import annotations

import pytest
import yaml

from tests.e2e.pages import ROOT, Step, steps
from tests.e2e.reader import a_folder, type_all

FOLDER = ROOT / "docs" / "how-to"
NAV = next(part["How to"] for part in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"] if "How to" in part)
NAMES = [name for part in NAV if isinstance(part, dict) for name in part.values()]
"""In the order of the list of pages, which is that of typing."""


def tutorial(last: str) -> list[Step]:
    """The tutorial up to and with the section that begins so."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    before, heading, after = page.partition(f"\n## {last}")
    assert heading, last
    return steps(before + heading + after.partition("\n## ")[0])


@pytest.mark.stack
def test_the_pages_work_as_they_stand():
    pages = [step for name in NAMES for step in steps((ROOT / "docs" / name).read_text())]
    stop = [Step("kill $(jobs -p) && wait\nfedround down\n", {})]
    with a_folder() as folder:
        type_all([*tutorial("8. "), *pages, *stop], folder)


def test_every_page_is_typed():
    assert {path.name for path in FOLDER.glob("*.md")} == {"index.md", *(name.removeprefix("how-to/") for name in NAMES)}
    assert len(NAMES) >= 12
    silent = [name for name in NAMES if not steps((ROOT / "docs" / name).read_text())]
    assert silent == []
