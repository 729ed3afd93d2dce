"""What a row adds to a sum is never longer than was asked for, and the sum is exact, whatever the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.learning.by_rows import Dense, Outer

SIZES = st.sampled_from([1e-44, 1e-30, 1e-15, 1e-3, 1.0, 1e3, 1e15, 1e18])
CELLS = st.sampled_from([100.0, 14_000.0, 2.0 ** 28, 2.0 ** 42, 2.0 ** 50, 1e18])
WIDTHS = st.sampled_from([(1, 1), (3, 5), (2, 700)])


def drawn(generator: torch.Generator, rows: int, width: int, sizes: list[float]) -> torch.Tensor:
    part = torch.randn(rows, width, generator=generator) * torch.tensor(sizes)[:, None]
    part[:, ::3] *= 1e-6            # of many sizes in one vector
    return part


def added(part, share_B, longest: float) -> list[int]:
    total_D = torch.zeros(part.dense().shape[1], dtype=torch.int64)
    part.add_to(total_D, share_B, longest)
    return total_D.tolist()


@settings(max_examples=60, deadline=None)
@given(st.data(), WIDTHS, CELLS, st.booleans(), st.integers(0, 2 ** 31))
def test_attack_no_vector_gets_longer_by_being_cut_and_their_sum_is_that_of_each_alone(data, width, longest, outer, seed):
    """In whole numbers of Python, which know no rounding."""
    generator, rows = torch.Generator().manual_seed(seed), 4
    sizes = [data.draw(st.lists(SIZES, min_size=rows, max_size=rows)) for _ in range(2)]
    left, right = (drawn(generator, rows, side, of) for side, of in zip(width, sizes, strict=True))
    part = Outer(left, right) if outer else Dense(right)
    length_B = part.squares().sqrt()
    share_B = torch.where(length_B > 0, longest * (1 - 1e-6) / length_B.clamp(min=1e-300), 0.0).clamp(max=1e200)
    whole = added(part, share_B, longest)
    alone = [added(part, torch.where(torch.arange(rows) == row, share_B, 0.0), longest) for row in range(rows)]
    assert [sum(numbers) for numbers in zip(*alone, strict=True)] == whole
    assert all(sum(number ** 2 for number in row) <= longest ** 2 for row in alone)


@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-20, 1.0, 1e17, 3e38, np.inf, np.nan])
def test_the_length_of_a_long_vector_is_never_told_too_short(size):
    part_BD = torch.randn(3, 4096 + 17, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    part_BD[1] *= size
    part_BD[2, ::2] *= size
    exact_B = part_BD.double().square().sum(1)
    found_B = Dense(part_BD).squares()
    if np.isfinite(size):
        assert (found_B >= exact_B * (1 - 1e-12)).all()
        assert found_B.numpy() == pytest.approx(exact_B.numpy(), rel=4e-5, abs=1e-40)
    else:
        assert found_B.isfinite().tolist() == [True, False, False]
    assert found_B[0] == Dense(part_BD[[0, 0, 0]]).squares()[0], "a row's length hangs on its company"
