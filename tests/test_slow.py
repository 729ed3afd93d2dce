"""What is left to `make test-all` is there: a name that is none would leave out nothing, and nobody would see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slow import SLOW

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("place", SLOW)
def test_what_is_left_out_is_there(place: str):
    found = [path for path in (ROOT / place).parent.glob(f"{Path(place).name}*") if path.is_dir() or path.suffix == ".py"]
    assert found, place
    for name in SLOW[place]:
        assert f"def {name.partition('[')[0]}" in (ROOT / place).read_text(), name
