"""When a secure sum holds: the conditions, each just met and just not."""

from __future__ import annotations

import pytest

from fedround.errors import ToleranceError
from fedround.secure_sums.spec import SecureSum


def spec(threshold, dropouts, colluders, consistency="counted"):
    return SecureSum(threshold=threshold, dropouts=dropouts, colluders=colluders, consistency=consistency)


@pytest.mark.parametrize(("members", "one"), [
    (12, spec(10, 2, 5)), (12, spec(9, 2, 2)), (12, spec(11, 1, 8)), (3, spec(2, 0, 0)), (3, spec(3, 0, 1)),
    (5, spec(4, 1, 1)), (100, spec(92, 8, 27)), (13, spec(10, 3, 0)), (12, spec(12, 0, 10)),
    (12, spec(9, 3, 5, "signed")), (5, spec(3, 2, 0, "signed")), (100, spec(80, 20, 59, "signed"))])
def test_what_holds(members, one):
    one.check(members)
    assert one.least(members) == members - one.dropouts
    assert one.shared_by(members) == members - one.dropouts - one.colluders >= 2


@pytest.mark.parametrize(("members", "one", "words"), [
    (2, spec(2, 0, 0), "3 to 1000 members"),
    (12, spec(11, 2, 0), "only 10 can say"),
    (12, spec(6, 2, 0), "at least 7"),
    (12, spec(8, 2, 4), "at least 9"),
    (12, spec(12, 0, 11), "two honest"),
    (12, spec(9, 3, 0), "leave 4"), (12, spec(10, 2, 6), "leave 3 honest ones out"),            # D(D+1) = n - c
    (12, spec(9, 2, 3), "raise the threshold up to 10"),        # D(D+1) < n - c, and the threshold is too low for it
    (100, spec(92, 8, 28), "leave 9 honest"), (12, spec(9, 3, 5), "consistency = \"signed\""),
    (12, spec(9, 3, 6, "signed"), "at least 10"), (12, spec(10, 3, 0, "signed"), "only 9 can say"),
    (12, spec(9, 3, 8, "signed"), "at least 11"), (5, spec(5, 0, 4, "signed"), "two honest"),
])
def test_what_does_not(members, one, words):
    with pytest.raises(ToleranceError, match=words):
        one.check(members)


def test_with_the_highest_threshold_the_bound_is_the_product_of_dropouts():
    """(D+1)(t-c) > D(n-c) is D(D+1) < n-c where t = n-D; a lower threshold asks for more."""
    for members in range(3, 25):
        for dropouts in range(members - 2):
            for colluders in range(members - dropouts - 1):
                cut = spec(max(2, members - dropouts), dropouts, colluders).cut(members)
                assert (cut <= dropouts) == (dropouts * (dropouts + 1) < members - colluders)
                if members - dropouts - 1 > max(colluders, 1):
                    assert spec(members - dropouts - 1, dropouts, colluders).cut(members) >= cut


def test_what_holds_for_all_members_holds_for_a_roster_without_those_who_never_offered_keys():
    """They count among the dropouts, and the threshold stays."""
    found = 0
    for members in range(3, 20):
        for dropouts in range(members):
            for colluders in range(members):
                for threshold in range(2, members - dropouts + 1):
                    one = spec(threshold, dropouts, colluders)
                    try:
                        one.check(members)
                    except ToleranceError:
                        continue
                    for gone in range(1, dropouts + 1):
                        assert 2 * threshold > members - gone + colluders
                        assert spec(threshold, dropouts - gone, colluders).cut(members - gone) <= dropouts - gone
                        found += 1
    assert found > 900
