"""The spectral filter where the farthest rows tie, against fifty digits: rounding must not remove one of two equal rows."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from fedround.aggregation.spectral import spectral_filter

ROWS, F = 12, 4


def in_fifty_digits(x_ND, f: int) -> list[mpmath.mpf]:
    """The weights of the rows, as `spectral_filter` words them. Rows whose distances agree to 40 digits are equally far."""
    with mpmath.workdps(50):
        rows, size = len(x_ND), len(x_ND[0])
        x = [[mpmath.mpf(float(value)) for value in row] for row in x_ND]
        mass, best, lowest = [mpmath.mpf(1)] * rows, [mpmath.mpf(1) / rows] * rows, mpmath.inf
        while mpmath.fsum(mass) > rows - 2 * f:
            total = mpmath.fsum(mass)
            share = [m / total for m in mass]
            middle = [mpmath.fsum(s * row[d] for s, row in zip(share, x, strict=True)) for d in range(size)]
            arms = [[value - centre for value, centre in zip(row, middle, strict=True)] for row in x]
            covariance = mpmath.matrix(size, size)
            for i in range(size):
                for j in range(size):
                    covariance[i, j] = mpmath.fsum(s * arm[i] * arm[j] for s, arm in zip(share, arms, strict=True))
            values, vectors = mpmath.eigsy(covariance)
            if values[size - 1] < lowest:
                best, lowest = share, values[size - 1]
            along = [mpmath.fsum(arm[d] * vectors[d, size - 1] for d in range(size)) ** 2 if m > 0 else mpmath.mpf(0)
                     for arm, m in zip(arms, mass, strict=True)]
            farthest = max(along)
            mass = [mpmath.mpf(0) if a >= farthest * (1 - mpmath.mpf(10) ** -40) else m * (1 - a / farthest)
                    for a, m in zip(along, mass, strict=True)]
        return best


@pytest.mark.parametrize("reference", [0, ROWS - 1], ids=["about a colluder", "about an honest row"])
@pytest.mark.parametrize("seed", range(4))
def test_identical_colluders_go_together_whatever_the_reference(seed: int, reference: int):
    """Rounding left one of them a mass of 3e-16, which set the threshold: the answer was off by up to 78 %."""
    x_ND = np.random.default_rng(seed).standard_normal((ROWS, 2)).astype(np.float32).astype(float)
    x_ND[:F] = np.float32(20 / 3)
    arms_ND = x_ND - x_ND[reference]
    weight_N = spectral_filter(arms_ND @ arms_ND.T, F)
    assert weight_N == pytest.approx(np.array([float(weight) for weight in in_fifty_digits(x_ND, F)]), abs=1e-9)
    assert not weight_N[:F].any()
