"""Numbers as lattice points in a ring, and the law of sums of rounded shares of noise."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedround.errors import ContractError, ToleranceError
from fedround.privacy.noise import GRID, stream
from fedround.secure_sums.lattice import ENOUGH_CELLS, bits_for, from_ring, law_error, to_ring, whole_cells
from fedround.statistics.counts import Counts
from fedround.statistics.sums import GaussianSum, RowsPart


@given(st.lists(st.lists(st.integers(-2**20, 2**20), min_size=4, max_size=4), min_size=1, max_size=12), st.integers(-6, 10))
def test_a_sum_in_the_ring_is_the_sum_of_the_lattice_points(points_ND, bits):
    lattice_ND, cells = np.ldexp(np.array(points_ND, dtype=np.float64), -bits), 1 << max(bits + 2, 0)
    total_D = sum(to_ring(row_D + 0.5 / cells, bits, cells).astype(np.uint64) for row_D in lattice_ND).astype(np.uint32)
    assert from_ring(total_D, bits).tolist() == lattice_ND.sum(axis=0).tolist()


def test_a_share_may_wrap_if_the_sum_does_not():
    one, other = np.array([3.0 * 2**31, -2.0**31]), np.array([-3.0 * 2**31 + 7, 2.0**31 - 1])
    assert from_ring(to_ring(one + 0.25, 0, 2) + to_ring(other + 0.25, 0, 2), 0).tolist() == [7.0, -1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_no_number_that_no_plan_has(bad):
    with pytest.raises(ContractError, match="finite"):
        to_ring(np.array([0.5 / 16, bad]), 3, 16)


@pytest.mark.parametrize("cells", [1000, 2**20, 2**40])
def test_numbers_that_are_noised_on_other_cells_are_refused(cells):
    """They would be rounded twice, which is not to round once."""
    numbers_D = (np.rint(np.linspace(-40, 40, 80_000) * cells) + 0.5) / cells
    to_ring(numbers_D, 3, cells)
    to_ring(numbers_D + 2.0**10, 3, cells)
    for other in (cells + 1, cells - 1):
        with pytest.raises(ContractError, match="noised on cells that divide its lattice's"):
            to_ring(numbers_D, 3, other)
    numbers_D[-1] += 0.2 / cells
    with pytest.raises(ContractError, match="noised on cells"):
        to_ring(numbers_D, 3, cells)


class Steps(GaussianSum):
    """Three numbers of each record."""

    shape: ClassVar[tuple[int, ...]] = (3,)

    def contributions(self, evidence):
        yield RowsPart(np.full((50, 3), 0.4))


class Tally(Counts):
    """Of three kinds of records."""

    shape: ClassVar[tuple[int, ...]] = (3,)

    def cells(self, evidence):
        return np.array([50, 0, 10**6])


@pytest.mark.parametrize("noise_std", [1e-3, 0.02, 0.3, 0.5, 1.0, 1.7, 40.0, 9000.0])
@pytest.mark.parametrize("kind", [Steps, Tally])
def test_what_statistics_say_lies_on_the_cells_that_they_were_given(kind, noise_std):
    bits = bits_for(1.0, noise_std, 12)
    cells = whole_cells(noise_std, bits)
    numbers_D = kind(noise_std=4.0).in_cells(cells).noised(None, stream(bytes(32), b"law"))
    to_ring(numbers_D, bits, cells)
    exact_D = np.array([20.0] * 3 if kind is Steps else [50, 0, 1e6])
    assert np.abs(numbers_D - exact_D).max() < 6 * noise_std + 1e-6


@given(st.floats(1e-3, 1e9), st.floats(1e-6, 1e4), st.integers(1, 1000))
def test_the_lattice_has_room_for_every_sum_and_enough_cells_of_noise(largest, std, members):
    try:
        bits = bits_for(largest, std, members)
    except ToleranceError as error:
        assert (largest + 12 * std * math.sqrt(members)) / std * 4 > 2**30, error
        return
    assert (largest + 12 * std * math.sqrt(members)) * 2.0**bits + members < 2**31
    assert std * 2.0**bits >= 4
    assert std * 2.0**bits < 2 * ENOUGH_CELLS
    cells = whole_cells(std, bits)
    assert std <= GRID / cells <= std * (1 + max(2**-17, std * 2**-27))
    assert cells * 2.0**-(bits + 1) == round(cells * 2.0**-(bits + 1))


def test_a_sum_that_could_leave_the_ring_is_refused_with_the_numbers():
    """12 members: 5e8 cells of 1/4 standard deviation are the last that fit."""
    assert bits_for(5.3e8, 1.0, 12) == 2
    with pytest.raises(ToleranceError, match=r"may reach 5.4e\+08.*only 2 cells, and it must have 4"):
        bits_for(5.4e8, 1.0, 12)
    assert bits_for(1000, 0.0, 12) == 21


def test_the_room_is_for_the_noise_of_all_members_together():
    """Noise of 4 cells, which a coarser lattice would make too few: 12 standard deviations of a hundred members' are 480."""
    assert bits_for(2.0**31 - 480 - 100 - 1, 4.0, 100) == 0
    with pytest.raises(ToleranceError):
        bits_for(2.0**31 - 480 - 100, 4.0, 100)


@given(st.integers(0, 2**32 - 1), st.integers(-2**40, 2**40))
def test_rounding_the_noises_cells_to_the_lattice_is_rounding_the_exact_number(place, whole):
    """An exact number in a cell of the noise, and the middle of that cell, have the same nearest lattice point."""
    std, bits = 1.7, 8
    cells = whole_cells(std, bits)
    exact = (whole + place / 2**32) / cells
    assert to_ring(np.array([(whole + 0.5) / cells]), bits, cells) == np.rint(exact * 2**bits) % 2**32


def _rounded(shift, std, reach):
    """The law of a rounded Gaussian around `shift`, on -reach..reach."""
    edges = (np.arange(-reach, reach + 2) - 0.5 - shift) / std
    below = np.array([0.5 * math.erfc(-edge / math.sqrt(2)) for edge in edges])
    return np.diff(below)


@pytest.mark.parametrize(("std", "members"), [(0.5, 2), (0.5, 4), (0.7, 3), (0.9, 2)])
def test_the_law_of_the_sum_by_exact_convolution(std, members):
    """Where shares are small enough for the error to be seen: the factor stays within the bound, and near half of it is
    reached. The law at the module's head: a Gaussian of std * sqrt(N) around the sum, N - 1 uniforms, rounded."""
    reach, shifts = 40, np.linspace(0.5, 0.31, members)
    summed = _rounded(shifts[0], std, reach)
    for shift in shifts[1:]:
        summed = np.convolve(summed, _rounded(shift, std, reach))
    fine = 64                                                   # uniforms by quadrature: midpoints
    smooth = np.array([1.0])
    for _ in range(members):
        smooth = np.convolve(smooth, np.full(fine, 1 / fine))
    offsets = (np.arange(len(smooth)) - (len(smooth) - 1) / 2) / fine
    wide, points = std * math.sqrt(members), np.arange(-members * reach, members * reach + 1)
    near = np.abs(points - shifts.sum()) < 4 * wide
    density = np.array([(smooth * np.exp(-np.square(point - shifts.sum() - offsets) / (2 * wide**2))).sum()
                        for point in points[near]]) / (wide * math.sqrt(2 * math.pi))
    ratio = np.abs(summed[near] / density - 1).max()
    bound = law_error(std, members)
    assert bound / 50 < ratio < bound + 2e-4                    # quadrature


def test_with_the_least_cells_nothing_can_be_told():
    assert law_error(4.0, 1000) < 1000 * 2.0**-226
    assert law_error(4.0, 12) * 1e7 < 2.0**-200


def test_the_law_of_the_sum_that_is_drawn():
    """Shares of four cells from the sampler, rounded and added in the ring: mean, variance and shape, with room."""
    members, size, std = 6, 20_000, 0.5
    bits = bits_for(1e8, std, members)
    cells = whole_cells(std, bits)
    assert 4 <= std * 2**bits <= 8
    total_D, exact = np.zeros(size, dtype=np.uint32), np.linspace(-3, 2.9, members)
    for member, value in enumerate(exact):
        noise_D = stream(bytes(32), b"law", bytes([member])).normal(GRID, size)
        total_D += to_ring((math.floor(value * cells) + noise_D) / cells, bits, cells)
    sums_D = from_ring(total_D, bits) - exact.sum()
    variance = members * (std**2 + 2.0**(-2 * bits) / 12)
    assert abs(sums_D.mean()) < 5 * math.sqrt(variance / size)
    assert abs(sums_D.var() / variance - 1) < 5 * math.sqrt(2 / size)
    at = np.sort(sums_D / math.sqrt(variance))
    normal = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in at])
    step = 2.0**-bits / math.sqrt(2 * math.pi * variance)      # a lattice has steps
    assert np.abs(normal - np.arange(size) / size).max() < 2.2 / math.sqrt(size) + step
