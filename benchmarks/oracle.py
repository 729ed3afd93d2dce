"""Our epsilon beside computations that share nothing with it; fills docs/privacy-audit.md.

    python -m benchmarks.oracle          # half a CPU minute

T steps of DP-SGD, each the sum of a Poisson sample (rate q) under Gaussian noise (multiplier sigma):

* `by_contour`: delta(epsilon) as an integral in the complex plane, through the saddle point (that of Alghamdi et al. 2023,
  arXiv:2208.09595, computed instead of approximated). It knows no grid of losses, so it rounds none.
* `by_convolution`: the privacy loss on a grid of 2^20 cells, rounded to the middle, composed by one FFT.
* Opacus' PRV accountant (Gopi, Lee and Wutschitz 2021, arXiv:2106.02848), whose bounds on both sides are shown.

Legend: X places of the noise, U places on the contour, C cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.pages import fill, table
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import DpSgd

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """`steps` sampled Gaussians, and the probability that goes with their epsilon."""

    rate: float
    noise: float
    steps: int
    delta_dp: float


CASES = (
    Case(0.1, 1.0, 300, 1e-5), Case(0.1, 1.0, 300, 1e-8), Case(0.1, 2.0, 300, 1e-5), Case(0.5, 2.0, 50, 1e-5),
    Case(0.5, 8.0, 2000, 1e-6), Case(0.64, 8.896, 200, 1e-5), Case(0.2133, 3.095, 200, 1e-5), Case(0.0284, 0.792, 200, 1e-5),
    Case(0.032, 1.1, 640, 1e-5), Case(0.01, 1.0, 1000, 1e-5), Case(0.04, 0.7, 1000, 1e-6), Case(0.01, 0.8, 5_000, 1e-6),
    Case(0.9, 4.0, 30, 1e-5), Case(0.05, 0.7, 200, 1e-10), Case(1.0, 4.0, 20, 1e-5))
"""The first is the issue's; the sixth to the eighth are banks of 400, 1,200 and 9,000 rows; the last has a closed form."""


def main() -> None:
    """Compute the table, and put it into the page."""
    rows = []
    for case in CASES:
        ours, exact, cells = ours_of(case), by_contour(case), by_convolution(case)
        low, high = by_opacus(case)
        rows.append([f"{case.rate:g}", f"{case.noise:g}", f"{case.steps:,}", f"{case.delta_dp:g}", f"{ours:.6f}",
                     f"{exact:.6f}", f"{cells:.6f}", f"{low:.3f} to {high:.3f}", f"{100 * (ours / exact - 1):+.3f} %"])
    told = table(["q", "noise", "steps", "delta", "our epsilon", "contour integral", "convolution", "Opacus' PRV, between",
                  "ours is above the integral by"], rows)
    fill(Path("docs/privacy-audit.md"), "oracle", told)
    print(told)


def ours_of(case: Case) -> float:
    """What the ledger charges."""
    return epsilon([DpSgd(noise_multiplier=case.noise, clip_norm=1.0, sampling_rate=case.rate, steps=case.steps)],
                   case.delta_dp)


# -- the integral ------------------------------------------------------------------------------------------------------


def by_contour(case: Case) -> float:
    """Epsilon at which the exact delta is `delta_dp`, of removing and of adding a row the larger.

    (1 - e^(epsilon - l))+ has the Laplace transform e^(-s epsilon) / (s (s + 1)). So delta(epsilon), its mean over the
    privacy loss l, is the integral of M(s) e^(-s epsilon) / (s (s + 1)) along any line Re s = a > 0, over 2 pi i, where M is
    the moment generating function of l. Near the saddle point little oscillates: the trapezoid rule converges exponentially.
    """
    def at(way: int) -> float:
        return _bisect(lambda eps: _log_delta(case, way, eps) > math.log(case.delta_dp))

    removed = at(1)
    return removed if _chernoff(case, -1, removed) <= math.log(case.delta_dp) else max(removed, at(-1))


def _bisect(too_small: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    while too_small(high):
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


def _log_delta(case: Case, way: int, eps: float) -> float:
    def height(a: float) -> float:
        return _moment(case, way, a) - a * eps - math.log(a) - math.log1p(a)

    a = _lowest(height)
    wide = max(abs(height(a * 1.01) - 2 * height(a) + height(a * 0.99)) / (0.01 * a) ** 2, 1e-12) ** -0.5
    last = 14 * wide
    u_U = np.linspace(0, last, 601)
    log_U = _log_moment(case, way, a + 1j * u_U, last) - (a + 1j * u_U) * eps
    log_U = log_U - np.log(a + 1j * u_U) - np.log(1 + a + 1j * u_U)
    top = log_U[0].real
    if log_U[-1].real > top - 11:
        raise ValueError(f"{case}: so few steps leave a tail on the contour that is not integrated")
    part_U = np.exp(log_U - top).real
    return float(top + math.log(float(np.trapezoid(part_U, u_U)) / math.pi))


def _chernoff(case: Case, way: int, eps: float) -> float:
    """What log delta(eps) is at most, since (1 - e^(eps - l))+ <= e^(a (l - eps)) a^a / (1 + a)^(1 + a) for every a > 0."""
    def bound(a: float) -> float:
        return _moment(case, way, a) - a * eps + a * math.log(a) - (1 + a) * math.log1p(a)

    return bound(_lowest(bound))


def _moment(case: Case, way: int, a: float) -> float:
    return float(_log_moment(case, way, np.array([a]), 0.0)[0].real)


def _lowest(height: Callable[[float], float]) -> float:
    """Where a convex function is lowest, from 0.001 to 300: golden section."""
    low, high, golden = math.log(1e-3), math.log(300), (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if height(math.exp(left)) < height(math.exp(right)) else (left, high)
    return math.exp((low + high) / 2)


def _log_moment(case: Case, way: int, s_U: npt.NDArray[Any], last: float) -> npt.NDArray[np.complex128]:
    """`steps` times the logarithm of E e^(s loss) of one step, (U,). way: 1 removes a row, -1 adds one."""
    q, sigma, most = case.rate, case.noise, float(np.real(s_U[0]))
    # Trapezoids converge once their frequency exceeds the integrand's: last/sigma² by e^(iuL), 14/sigma by itself.
    dx = 0.6 * 2 * math.pi / (last / sigma ** 2 + 14 / sigma)
    x_X = np.arange(-12 * sigma - (most if way < 0 else 0), 1 + 12 * sigma + (most if way > 0 else 0), dx)
    log_q_X = -x_X ** 2 / (2 * sigma ** 2) - math.log(sigma * math.sqrt(2 * math.pi))
    loss_X = (np.logaddexp(math.log1p(-q), math.log(q) + (2 * x_X - 1) / (2 * sigma ** 2)) if q < 1
              else (2 * x_X - 1) / (2 * sigma ** 2))
    base_X = log_q_X + (loss_X if way > 0 else 0.0)
    top = float((base_X + most * way * loss_X).max())
    sums = [np.exp(base_X + part * way * loss_X - top).sum() for part in np.atleast_1d(s_U)]
    found: npt.NDArray[np.complex128] = case.steps * (np.log(np.array(sums, dtype=np.complex128) * dx) + top)
    return found


# -- the convolution ---------------------------------------------------------------------------------------------------


def by_convolution(case: Case, cells: int = 1 << 20) -> float:
    """The same from the privacy loss on a grid, of removing and of adding a row the larger."""
    return max(_on_grid(case, way, cells) for way in (1, -1))


def _on_grid(case: Case, way: int, cells: int) -> float:
    from scipy.special import ndtr  # type: ignore[import-untyped]

    q, sigma = case.rate, case.noise
    reach = math.log1p(q * math.expm1(min((2 * (1 + 9 * sigma) - 1) / (2 * sigma ** 2), 600)))
    spread = q * math.sqrt(case.steps * math.expm1(min(sigma ** -2, 50)))
    end = 12 * spread + spread ** 2 + reach
    width = 2 * end / cells

    def below(loss_C: Float64) -> Float64:
        """The probability of a loss below."""
        at_C = way * loss_C
        with np.errstate(invalid="ignore", divide="ignore"):
            x_C = sigma ** 2 * np.log((np.exp(at_C) - (1 - q)) / q) + 0.5
        x_C = np.where(np.isnan(x_C), -np.inf, x_C)
        mass_C = (1 - q) * ndtr(x_C / sigma) + q * ndtr((x_C - 1) / sigma) if way > 0 else ndtr(-x_C / sigma)
        return np.asarray(mass_C, dtype=np.float64)

    place_C = np.arange(-cells // 2, cells // 2)
    one_C = below((place_C + 0.5) * width) - below((place_C - 0.5) * width)
    whole_C = np.fft.fftshift(np.fft.irfft(np.fft.rfft(np.fft.ifftshift(one_C)) ** case.steps, cells))
    loss_C = place_C * width
    tail_C = np.cumsum(whole_C[::-1])[::-1]
    light_C = np.cumsum((whole_C * np.exp(-np.maximum(loss_C, 0)))[::-1])[::-1]
    positive = cells // 2 + 1
    delta_C = tail_C[positive:] - np.exp(loss_C[positive:]) * light_C[positive:]
    return float(np.interp(-case.delta_dp, -delta_C, loss_C[positive:]))


# -- another project's -------------------------------------------------------------------------------------------------


def by_opacus(case: Case) -> tuple[float, float]:
    """Between which bounds Opacus' PRV accountant has it."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(case.noise, case.rate, case.steps)]
    discrete = accountant._get_dprv(eps_error=0.01, delta_error=case.delta_dp / 1000)
    low, _, high = discrete.compute_epsilon(case.delta_dp, delta_error=case.delta_dp / 1000, eps_error=0.01)
    return float(low), float(high)


if __name__ == "__main__":
    main()
