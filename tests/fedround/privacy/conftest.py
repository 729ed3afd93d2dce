"""Here the accountant itself is tested: it remembers nothing of other tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedround.privacy import accounting
from tests.known import Prices


@pytest.fixture(autouse=True)
def the_accountant_itself(known_prices: Prices) -> Iterator[None]:
    accounting.ask(None)
    yield
    accounting.ask(known_prices)
