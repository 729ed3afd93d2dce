"""What colluders get, by formula and by looking at every lie; and that the page's tables are the code's."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.secure_sums import bounds_table, signed_table, thresholds_table
from fedround.errors import ToleranceError
from fedround.secure_sums.bounds import fewest_honest, most_colluders, opened_by
from fedround.secure_sums.spec import SecureSum
from tests.fedround.secure_sums.test_equivocation import countersigned, every, outcomes

PAGE = (Path(__file__).parents[3] / "docs/secure-sums.md").read_text()


@pytest.mark.parametrize("members", [3, 4, 5])
def test_the_fewest_honest_members_in_a_sum_are_those_that_every_lie_finds(members: int):
    looked = 0
    for spec in every(members):
        sizes, both = outcomes(spec, members, (0,) * members)
        assert fewest_honest(spec, members, spec.colluders) == (1 if both else min(sizes))
        if members < 5:
            sizes, both = countersigned(spec, members)
            signed = spec.model_copy(update={"consistency": "signed"})
            assert fewest_honest(signed, members, spec.colluders) == (1 if both else min(sizes))
        looked += 1
    assert looked > 4


def test_within_the_promise_it_is_what_noise_is_shared_by_and_beyond_it_is_less():
    for members in (3, 5, 8, 12, 20):
        for spec in every(members):
            try:
                spec.check(members)
            except ToleranceError:
                continue
            for colluders in range(spec.colluders + 1):
                fewest = fewest_honest(spec, members, colluders)
                assert fewest >= members - spec.dropouts - colluders >= spec.shared_by(members)
            assert fewest_honest(spec, members, members - 1) == 1
            last = most_colluders(spec.threshold, spec.dropouts, members)
            assert last is not None
            assert last >= spec.colluders
            assert last < opened_by(spec, members)
            if spec.dropouts > 0 and last < opened_by(spec, members) - 1:
                beyond = fewest_honest(spec, members, last + 1)
                assert beyond < members - spec.dropouts - last - 1
    assert most_colluders(6, 3, 9) is None
    assert most_colluders(10, 2, 12) == 5
    assert fewest_honest(SecureSum(threshold=10, dropouts=2, colluders=5), 12, 5) == 5
    assert fewest_honest(SecureSum(threshold=10, dropouts=2, colluders=5), 12, 6) == 3
    assert opened_by(SecureSum(threshold=10, dropouts=2, colluders=5), 12) == 8
    signed = SecureSum(threshold=9, dropouts=3, colluders=5, consistency="signed")
    assert (fewest_honest(signed, 12, 5), fewest_honest(signed, 12, 6)) == (4, 1)
    assert most_colluders(9, 3, 12) is None
    assert most_colluders(9, 3, 12, "signed") == opened_by(signed, 12) - 1 == 5


@pytest.mark.parametrize(("part", "table"), [("bounds", bounds_table), ("thresholds", thresholds_table),
                                            ("signed", signed_table)])
def test_the_pages_tables_are_the_codes(part: str, table):
    assert f"<!-- {part} -->\n{table()}\n<!-- end -->" in PAGE
