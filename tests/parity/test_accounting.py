"""The cached accountant against dp_accounting's own, one event at a time."""

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant
from hypothesis import example, given
from hypothesis import strategies as st

from fedround.privacy import sampled
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpSgd, GaussianCounts

DELTA = 1e-5


def naive(accountant, mechanisms) -> float:
    for mechanism in mechanisms:
        if isinstance(mechanism, GaussianCounts):
            accountant.compose(GaussianDpEvent(mechanism.noise_std))
        else:
            step = PoissonSampledDpEvent(mechanism.sampling_rate, GaussianDpEvent(mechanism.noise_multiplier))
            accountant.compose(step, mechanism.steps)
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("mechanisms", [
    [DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.33, steps=10), GaussianCounts(noise_std=20.0)] * 3,
    [DpSgd(noise_multiplier=0.8, clip_norm=1.0, sampling_rate=0.03, steps=10), GaussianCounts(noise_std=20.0)] * 2,
    [DpSgd(noise_multiplier=2.0, clip_norm=1.0, sampling_rate=1.0, steps=3), GaussianCounts(noise_std=3.0),
     DpSgd(noise_multiplier=1.2, clip_norm=9.0, sampling_rate=0.1, steps=7)],
], ids=["large rate", "small rate", "mixture"])
def test_a_campaign_costs_what_dp_accounting_says(mechanisms):
    exact = naive(PLDAccountant(value_discretization_interval=5e-4), mechanisms)
    total = epsilon(mechanisms, DELTA)
    assert exact - 1e-3 <= total <= exact * 1.005
    assert total < naive(RdpAccountant(), mechanisms)


def bits(pmf) -> dict:
    """All that a distribution is, as dp_accounting holds it."""
    return {name: part.tobytes() if isinstance(part, np.ndarray) else part for name, part in vars(pmf).items()}


@given(st.floats(0.3, 30), st.floats(1e-4, 1), st.integers(3, 8))
@example(1.0, 1.0, 6)
@example(0.8, 0.5, 4)
@example(2.0, 0.75, 1)
@example(2.0, -np.expm1(-0.25), 2)          # the loss that is told by a record's absence is a cell's
def test_all_losses_at_once_are_one_after_another_to_the_last_bit(noise, rate, fine):
    ours = sampled.distribution(noise, rate, 2.0 ** -fine)
    theirs = from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=2.0 ** -fine)
    assert bits(ours._pmf_remove) == bits(theirs._pmf_remove)
    assert bits(ours._pmf_add) == bits(theirs._pmf_add)
    assert ours._symmetric == theirs._symmetric == (rate == 1)
