"""The tutorial works as it stands: its files are written, its commands typed, and what it shows is what comes."""

from __future__ import annotations

import pytest

from tests.e2e.pages import ROOT, steps
from tests.e2e.reader import a_folder, type_all

PAGE = (ROOT / "docs" / "tutorial.md").read_text()


@pytest.mark.stack
def test_the_tutorial_works_as_it_stands():
    with a_folder() as folder:
        type_all(steps(PAGE), folder, cold=("coordinator start", "site start north"))


def test_every_block_of_the_tutorial_is_understood():
    """A typing mistake in a fence would silently drop a step."""
    page = steps(PAGE)
    assert [name for step in page for name in step.files] == ["make_rows.py", "recipe.py", "contract.json", "settings.toml"]
    assert len(page) == PAGE.count("```bash") > 10
    assert sum(len(step.seen) for step in page) > 30
