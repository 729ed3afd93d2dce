"""Numbers and their words."""

from __future__ import annotations

import pytest

from fedround.errors import ToleranceError
from fedround.secure_sums.spec import SecureSum
from fedround.spoken import how_many


@pytest.mark.parametrize(("number", "says"), [(0, "0 rows count"), (1, "1 row counts"), (12_000, "12,000 rows count")])
def test_a_number_has_its_noun_and_its_verb(number: int, says: str):
    assert how_many(number, "row", "counts", "count") == says
    assert how_many(number, "row") == says.rsplit(" ", 1)[0]


def test_a_core_message_speaks_of_one_as_of_one():
    with pytest.raises(ToleranceError, match=r"^a secure sum of 2 members, threshold 2, 1 dropout and 0 colluders"):
        SecureSum(threshold=2, dropouts=1, colluders=0).check(2)
