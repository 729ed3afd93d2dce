"""Our epsilon against computations that share nothing with the accountant: an integral in the complex plane, an own FFT."""

import math

import pytest

from benchmarks.oracle import CASES, Case, by_contour, by_convolution, ours_of

MOST_ABOVE = 0.002
"""Of the cases on the page: how far ours is above the exact epsilon, at most."""


@pytest.mark.parametrize("case", [CASES[0], CASES[7], CASES[-2]], ids=str)
def test_ours_is_never_below_two_independent_computations_and_little_above(case: Case):
    exact, cells = by_contour(case), by_convolution(case, 1 << 18)
    assert cells == pytest.approx(exact, rel=1e-5)
    assert max(exact, cells) * (1 - 1e-7) <= ours_of(case) <= exact * (1 + MOST_ABOVE)


def test_the_integral_is_the_closed_form_without_sampling():
    """One Gaussian of mean mu = sqrt(T) / z (Balle and Wang 2018); z and T are on no page."""
    def tail(x: float) -> float:
        return math.erfc(x / math.sqrt(2)) / 2

    case = Case(1.0, 20.0, 100, 1e-9)
    mu, eps = math.sqrt(case.steps) / case.noise, by_contour(case)
    assert tail(eps / mu - mu / 2) - math.exp(eps) * tail(eps / mu + mu / 2) == pytest.approx(case.delta_dp, rel=1e-5)


def test_too_little_is_noticed():
    """The comparison can fail: one per cent less than ours is below."""
    assert 0.99 * ours_of(CASES[0]) < by_contour(CASES[0])
