"""Noise that is shared has two prices: of the sum, and alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import BudgetError
from fedround.privacy import ledger
from fedround.privacy.accounting import Batch, epsilon, epsilon_of_batches
from fedround.privacy.ledger import Bound, Charge
from fedround.privacy.spec import DpSgd, GaussianCounts, GaussianUpdate, RowSum, shared
from fedround.privacy.units import alone, dearest

DELTA, MEMBERS = 1e-5, 9
OWN = (DpSgd(noise_multiplier=6.0, clip_norm=1.0, sampling_rate=0.3, steps=1), GaussianCounts(noise_std=20.0),
       RowSum(noise_multiplier=7.0),
       DpSgd(noise_multiplier=6.0, clip_norm=2.0, sampling_rate=0.3, steps=1, rows_per_person=3))
SHARED = tuple(shared(one, MEMBERS) for one in OWN)
QUIETER = (DpSgd(noise_multiplier=2.0, clip_norm=1.0, sampling_rate=0.3, steps=1), GaussianCounts(noise_std=20.0 / 3),
           RowSum(noise_multiplier=7.0 / 3), OWN[3].model_copy(update={"noise_multiplier": 2.0}))


@pytest.mark.parametrize(("own", "together", "quieter"), list(zip(OWN, SHARED, QUIETER, strict=True)))
def test_the_sums_noise_is_paid_for_in_full_and_alone_a_third_of_it_among_nine(own, together, quieter):
    """Everybody adds a third: nine of them make the whole."""
    assert together != own
    assert epsilon([together] * 4, DELTA) == epsilon([own] * 4, DELTA)
    of_one = epsilon([alone(together)] * 4, DELTA)
    assert of_one == pytest.approx(epsilon([quieter] * 4, DELTA), rel=1e-6)
    assert of_one > epsilon([own] * 4, DELTA)
    assert alone(together) == alone(alone(together))


def test_what_shares_nothing_costs_the_same_alone():
    update = GaussianUpdate(noise_multiplier=2.0, clip_norm=1.0)
    assert shared(update, MEMBERS) == update
    assert [alone(one) for one in (*OWN, update)] == [*OWN, update]


@given(st.integers(2, 1000), st.floats(1e-3, 1e3))
def test_alone_never_has_more_noise_than_its_share(members, noise):
    found = alone(RowSum(noise_multiplier=noise, shared_by=members)).noise_multiplier
    assert found <= noise / math.sqrt(members)
    assert found >= noise / math.sqrt(members) * (1 - 1e-9)


def test_a_count_of_clipped_gradients_is_shared_like_the_gradients():
    step = DpSgd(noise_multiplier=6.0, clip_norm=1.0, sampling_rate=1.0, steps=1, count_noise_std=3.0, shared_by=MEMBERS)
    assert alone(step).noise_multiplier == pytest.approx(2.0)
    assert alone(step).count_noise_std == pytest.approx(1.0)


@pytest.mark.parametrize("charges", [
    [SHARED[:2], SHARED[:2]], [SHARED[:2], OWN[:2]], [SHARED[:2], tuple(shared(one, 4) for one in OWN[:2])],
    [SHARED[2:3], SHARED[:2]], [SHARED[3:], OWN[:2]]])
def test_the_dearest_of_charges_is_no_cheaper_than_any_of_them_together_and_alone(charges):
    """A lost ledger is made again from it: it must bound both prices."""
    found = dearest(charges)
    for charge in charges:
        assert epsilon(found, DELTA) >= epsilon(charge, DELTA)
        assert epsilon(map(alone, found), DELTA) >= epsilon(map(alone, charge), DELTA)


def test_batches_that_were_chosen_later_have_both_prices_too():
    batches = [Batch(((SHARED[0], 5),)), Batch(((SHARED[0], 5), (SHARED[1], 2)), ((SHARED[1], 1),))]
    own = [Batch(((OWN[0], 5),)), Batch(((OWN[0], 5), (OWN[1], 2)), ((OWN[1], 1),))]
    assert epsilon_of_batches(batches, DELTA) == epsilon_of_batches(own, DELTA)
    assert epsilon_of_batches([one.alone() for one in batches], DELTA) > epsilon_of_batches(own, DELTA)


# -- the ledger --------------------------------------------------------------------------------------------------------


def a_charge(number: int) -> Charge:
    return Charge(federation="banks", run="spring", round=number, purpose="train", plan=f"{number:064x}",
                  mechanisms=SHARED[:2], delta_dp=DELTA, utc=f"2026-03-01T10:{number:02d}:00Z")


def bound(most: float) -> Bound:
    return Bound(most, DELTA, "record", None, "the site's policy allows", alone=True)


def test_a_ledger_tells_both_prices_and_keeps_each_within_its_bound(tmp_path):
    book = ledger.create(tmp_path / "ledger.jsonl", "loans")
    book = ledger.charge(book, a_charge(1), 2.0, alone=bound(5.0))
    together, by_itself = ledger.spent(book, DELTA), ledger.spent(book, DELTA, alone=True)
    assert together == epsilon(OWN[:2], DELTA)
    assert by_itself == epsilon(map(alone, SHARED[:2]), DELTA)
    assert ledger.held(book, DELTA, alone=True) == by_itself
    before = book.head
    with pytest.raises(BudgetError, match="as if nobody else added noise"):
        ledger.charge(book, a_charge(2), 2.0, alone=bound(by_itself * 1.1))
    assert ledger.read(book.path).head == before
    with pytest.raises(BudgetError):
        ledger.charge(book, a_charge(2), together * 1.1, alone=bound(50.0))


def test_the_share_is_read_back_from_the_file(tmp_path):
    book = ledger.create(tmp_path / "ledger.jsonl", "loans")
    ledger.charge(book, a_charge(1), 2.0)
    assert ledger.read(book.path).charges[0].mechanisms == SHARED[:2]
