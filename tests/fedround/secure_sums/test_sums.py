"""The sum is the plain sum, whoever is missing; and everything that is not what it should be is refused, by name."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fedround.errors import ContractError, QuorumError
from tests.fedround.secure_sums.cohorts import Cohort, values

FOUR = Cohort(4, 3)


@pytest.mark.parametrize("members", [3, 4, 5, 6])
def test_the_plain_sum_for_every_pattern_of_dropouts(members: int):
    """And for every subset of revealers of the size that is needed."""
    cohort = Cohort(members, members // 2 + 1, slots=1)
    values_ND = values(members)
    masked_ND = {name: cohort.mask(name, values_ND[i]) for i, name in enumerate(cohort.names)}
    seen = 0
    for size in range(cohort.threshold, members + 1):
        for survivors in combinations(cohort.names, size):
            total_D = sum((masked_ND[name] for name in survivors), np.zeros(5, np.uint32))
            want_D = sum((values_ND[cohort.names.index(name)] for name in survivors), np.zeros(5, np.uint32))
            reveals = {name: cohort.reveal(name, survivors) for name in survivors}
            for speakers in combinations(survivors, cohort.threshold):
                found = cohort.unmask(total_D, survivors, {name: reveals[name] for name in speakers})
                assert found.total_D.tolist() == want_D.tolist()
                assert found.wrong == ()
                seen += 1
            assert cohort.unmask(total_D, survivors, reveals).total_D.tolist() == want_D.tolist()
    assert seen > members


def test_a_vector_of_several_blocks():
    cohort, size = Cohort(3, 2, slots=1), 2 * (1 << 15) + 17
    values_ND = values(3, size)
    total_D = cohort.mask("lund", values_ND[0]) + cohort.mask("oslo", values_ND[2])
    reveals = {name: cohort.reveal(name, ("lund", "oslo")) for name in ("lund", "oslo")}
    assert (cohort.unmask(total_D, ("lund", "oslo"), reveals).total_D == values_ND[0] + values_ND[2]).all()


def test_the_same_arguments_give_the_same_bytes_and_nothing_given_is_changed():
    values_D = values(1)[0]
    before = values_D.copy()
    assert FOUR.mask("lund", values_D).tobytes() == FOUR.mask("lund", values_D).tobytes()
    assert (values_D == before).all()
    again = Cohort(4, 3)
    assert again.roster == FOUR.roster
    assert again.dealt == FOUR.dealt
    assert again.reveal("lund", again.names[:3]) == FOUR.reveal("lund", FOUR.names[:3])
    total_D = np.zeros(5, np.uint32)
    FOUR.unmask(total_D, FOUR.names, {name: FOUR.reveal(name, FOUR.names) for name in FOUR.names})
    assert not total_D.any()


def test_fewer_revealers_than_the_threshold_make_no_sum():
    reveals = {name: FOUR.reveal(name, FOUR.names) for name in FOUR.names[:2]}
    with pytest.raises(QuorumError, match="2 members revealed their shares rightly, 3 must"):
        FOUR.unmask(values(1)[0], FOUR.names, reveals)


@pytest.mark.parametrize(("survivors", "dropped"), [
    (["lund", "aarhus", "oslo"], []), (["lund", "aarhus", "oslo"], ["oslo", "turku"]),
    (["lund", "aarhus", "oslo"], ["turku", "gent"]), (["lund", "lund", "aarhus", "oslo"], ["turku"])])
def test_survivors_and_dropped_are_a_partition_of_the_roster(survivors, dropped):
    from fedround.secure_sums.revealing import reveal
    with pytest.raises(ContractError, match="each once"):
        reveal(FOUR.secret("lund"), FOUR.epoch, "lund", FOUR.roster, FOUR.dealt, 0, survivors, dropped, 3)
