"""One small federation per test; Great Expectations is imported once, so that sites judge rows in this process."""

from __future__ import annotations

from pathlib import Path

import great_expectations  # noqa: F401
import pytest

from tests import small_federation
from tests.small_federation import SmallFederation


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return small_federation.make(tmp_path)
