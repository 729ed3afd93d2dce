"""The error that noise gives, told before anybody is asked, and the noise that gives the least."""

from __future__ import annotations

import math

import numpy as np
import pytest

from validation.group_cells import CountedGroup
from validation.group_error import Expected, quietest
from validation.group_gaps import judged, shares

SITES = 12


@pytest.mark.parametrize("noise_std", [0.0, 3.0, 8.0])
def test_it_is_about_what_the_draws_say_afterwards(noise_std):
    people_G, rate = np.array([1_800.0, 2_700.0]), 0.3
    told = Expected("sex", people_G, rate, 2, SITES).half_width(noise_std)
    cells_G22 = people_G[:, None, None] * np.array([[0.78], [0.22]]) * np.array([1 - rate, rate])
    counted = CountedGroup("sex", ("f", "m"), cells_G22, noise_std * SITES ** 0.5)
    found = judged([counted], 30, np.random.default_rng(0), 4_000, by=shares)
    (gap,) = (one for one in found.gaps if one.measure == "demographic_parity")
    assert gap.value == 0, "so the upper end is the half-width"
    assert gap.high == pytest.approx(told, rel=0.08)


def test_the_best_noise_costs_the_same_and_no_attribute_is_worse_off_than_the_worst_was():
    expected = [Expected("sex", np.array([1_800.0, 2_700.0]), 0.3, 2, SITES),
                Expected("age", np.array([1_400.0, 1_700.0, 400.0]), 0.3, 2, SITES)]
    before = [5.0, 5.0]
    best = quietest(expected, before)
    assert math.fsum(1 / std ** 2 for std in best) == pytest.approx(math.fsum(1 / std ** 2 for std in before), rel=1e-6)
    widths = [one.half_width(std) for one, std in zip(expected, best, strict=True)]
    assert max(widths) < max(one.half_width(std) for one, std in zip(expected, before, strict=True))
    assert widths[0] == pytest.approx(widths[1], rel=1e-6), "the small group gets the quieter counts"
    rng = np.random.default_rng(0)
    for share in rng.random(50):
        other = [1 / math.sqrt(part * sum(1 / std ** 2 for std in before)) for part in (share, 1 - share)]
        assert max(one.half_width(std) for one, std in zip(expected, other, strict=True)) >= max(widths) - 1e-9


def test_a_group_of_nobody_has_no_error_that_is_known():
    expected = [Expected("sex", np.array([100.0, 0.0]), 0.3, 2, SITES)]
    assert math.isinf(expected[0].half_width(5.0))
    assert quietest(expected, [5.0]) == (5.0,)
