"""Noise that only the site can predict, that a retry repeats, and whose low bits reveal nothing.

A site keeps one secret of 32 bytes. The noise of one release is a function of that secret and of everything the release
depends on (plan, rows, …), so after a crash the same release gets the same bytes, and nobody can average two draws; any
other release gets noise that cannot be told from independent noise without the secret.

The uniform bits are AES-256 in counter mode under a key from HKDF-SHA256 (RFC 5869), so the generator is cryptographic.

Floating point. Gaussian numbers that are generated and added in floating point reveal the value that they were added to,
because different sums reach different sets of doubles (Mironov 2012, doi 10.1145/2382196.2382264; Jin et al. 2022,
arXiv:2112.05307), and float sums move by more than one clipped record when a record leaves (Casacuberta et al. 2022,
arXiv:2207.10635). So whatever is noised is counted in *cells*, `1/GRID` of the noise's standard deviation:

* every record's contribution is cut to whole cells, towards zero, which never makes it longer, and added up in integers
  (`fedround.learning.gradients`): a record's share of the sum is what it is, in any order, to the last bit;
* the noise is a Gaussian rounded to the middle of its cell, so every output is a whole number and a half, whatever the rows:
  neighbouring data sets reach the same set of outputs, with the ratio of probabilities of the Gaussian mechanism. Rounding
  commutes with adding whole cells, so this *is* the Gaussian mechanism followed by rounding, and costs no more;
* what comes later (momentum, float32 weights, the upload) is computed from such outputs and public numbers only.

Promised: if the key stream were uniform bits, the joint law of n numbers would be within n · 2**-100 of the exact one (total
variation): no lost tails, no coarse ones. It is sampled by rejection (Karney 2016, arXiv:1303.6257), whose comparisons are
decided in double precision only where that is certain.

Not promised: that the time a draw takes tells nothing; that two machines of different kind give the same bytes (an
exponential next to a threshold may be decided on another path); anything about a model whose gradient of one row depends on
the other rows of its batch.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from decimal import Context, Decimal
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedround import locked
from fedround.errors import ContractError, SetupError
from fedround.files import create_once, write_whole

SECRET_BYTES = 32

GRID = 2.0 ** 28
"""Cells in one standard deviation of noise. In them a million clipped records are summed exactly (below 2**52)."""

Float64 = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Size = int | tuple[int, ...]

_DOMAIN = b"fedround/2/noise"
_BOUND = b" noise secret"
_BLOCK = 1 << 15                # numbers made at once: they stay in the processor's cache
_ZEROS = bytes(24 * _BLOCK)


class NoiseSource(Protocol):
    """The source of all randomness of a site. With privacy it must be derived from the site's secret, and no draw may be
    used twice.
    """

    def random(self, size: int) -> Float64:
        """Uniform in [0, 1)."""
        ...

    def normal(self, scale: float, size: int) -> Float64:
        """Gaussian, mean 0, standard deviation `scale`."""
        ...


def noised_counts(counts: npt.NDArray[np.int64], std: float, noise: NoiseSource) -> Float64:
    """Counts with Gaussian noise of standard deviation `std` (more by at most one part in GRID / std), all on one grid.

    One record in one count is worth a whole number of cells, at most GRID / std. Raises ContractError if `std` is not in
    (0, GRID].
    """
    if not 0 < std <= GRID:
        raise ContractError(f"noise on counts must be above 0 and at most {GRID:.0f}, got {std}")
    cells_of_one = math.floor(GRID / std)
    return (counts * float(cells_of_one) + noise.normal(GRID, counts.size).reshape(counts.shape)) / cells_of_one


class Stream:
    """A sequence of random numbers; the same key and the same calls give the same numbers."""

    def __init__(self, key: bytes):
        # Every key serves one stream only, so the counter may start at zero.
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def random(self, size: Size) -> Float64:
        """Uniform numbers in [0, 1), multiples of 2**-53."""
        flat = np.empty(math.prod(size) if isinstance(size, tuple) else size)
        for start in range(0, flat.size, 2 * _BLOCK):
            part = flat[start:start + 2 * _BLOCK]
            part[:] = _uniform(self._words(part.size))
        return flat.reshape(size)

    def normal(self, scale: float, size: Size) -> Float64:
        """Gaussian numbers with mean 0 and standard deviation `scale`, rounded to (whole number + 1/2) · scale / GRID.

        With scale GRID the numbers count cells, and nothing is rounded when they are added to whole numbers below 2**51.
        """
        if not (math.isfinite(scale) and scale >= 0):
            raise ContractError(f"the standard deviation of noise must be finite and not negative, got {scale}")
        flat = np.empty(math.prod(size) if isinstance(size, tuple) else size)
        filled = 0
        while filled < flat.size:
            accepted = self._try(min(_BLOCK, (flat.size - filled) * 3 // 2 + 8))[:flat.size - filled]
            flat[filled:filled + accepted.size] = accepted
            filled += accepted.size
        flat *= 1 / GRID
        flat *= scale
        return flat.reshape(size)

    def _try(self, tries: int) -> Float64:
        """The accepted ones (5 of 7) of so many tries: in cells, whole numbers and a half.

        ± (m + f): m is drawn with weights exp(-m²/2), f is uniform in [0, 1), and the sum is accepted with probability
        exp(-f (2 m + f) / 2), which makes its density exp(-(m + f)²/2).
        """
        pick, place, coin = self._words(3 * tries).reshape(3, tries)
        step = np.searchsorted(_STEPS, _uniform(pick), side="right")
        whole, fraction = step >> 1, _uniform(place)
        chance, drawn = np.exp(fraction * (whole + fraction / 2) * -1), _uniform(coin)
        accepted = drawn < chance
        for i in np.flatnonzero((step & 1 == 1) | (np.abs(drawn - chance) < _DOUBT)):
            whole[i], accepted[i] = _decide(*(int(word) for word in (pick[i], place[i], coin[i], *self._words(3))))
        cells = (whole * GRID + (place >> np.uint64(64 - 28))) + 0.5
        return np.where(pick & np.uint64(1), -cells, cells)[accepted]

    def _words(self, count: int) -> Words:
        return np.frombuffer(self._cipher.update(_ZEROS[:8 * count]), dtype="<u8")


def _uniform(words: Words) -> Float64:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0 ** -53


_EXACT = Context(prec=60)
_DOUBT = 2.0 ** -46             # what rounding can do to a comparison in doubles, and more
_WHOLE = 24                     # standard deviations: beyond lie 2**-418 of all numbers


def _thresholds() -> list[Decimal]:
    """Below the m-th: the share of whole parts up to m."""
    weights = [_EXACT.exp(Decimal(-m * m) / 2) for m in range(_WHOLE)]
    total = sum(weights, Decimal(0))
    return [_EXACT.divide(sum(weights[:m + 1], Decimal(0)), total) for m in range(_WHOLE - 1)]


def _steps(doubt: float) -> Float64:
    """An odd index in this list means: too near to a threshold, or to one, to decide the whole part in double precision."""
    apart = [float(threshold) for threshold in _THRESHOLDS if 1 - threshold > 4 * Decimal(doubt)]
    return np.array([threshold + side for threshold in apart for side in (-doubt, doubt)] + [1 - 2 * doubt])


_THRESHOLDS = _thresholds()
_STEPS = _steps(_DOUBT)


def _decide(pick: int, place: int, coin: int, *more: int) -> tuple[int, bool]:
    """The whole part, and whether it is accepted with the fraction: as in `_try`, each number with 64 bits more."""
    drawn, fraction, chance = (_EXACT.divide(Decimal((word >> 11 << 64) + extra), Decimal(1 << 117))
                               for word, extra in zip((pick, place, coin), more, strict=True))
    whole = sum(threshold <= drawn for threshold in _THRESHOLDS)
    return whole, chance < _EXACT.exp(-_EXACT.multiply(fraction, whole + fraction / 2))


def stream(secret: bytes, *context: bytes) -> Stream:
    """The noise of one release.

    context: everything that the release depends on, at least a digest of the plan and one of the rows. Parts are
    length-prefixed: ("ab", "c") and ("a", "bc") are different contexts.
    Raises ContractError for a secret of another length than 32 bytes, or without context.
    """
    if len(secret) != SECRET_BYTES:
        raise ContractError(f"a noise secret has {SECRET_BYTES} bytes, got {len(secret)}")
    if not context:
        raise ContractError("noise needs a context (plan and rows); without one every release would get the same noise")
    info = _DOMAIN + b"".join(struct.pack("<Q", len(part)) + part for part in context)
    return Stream(HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret))


def create_secret(path: Path, passphrase: bytes | None = None) -> None:
    """Make a site's noise secret from the operating system's randomness, mode 0600; one that is there stays.

    passphrase: locks it (`fedround.locked`). A lost secret cannot be made again: a retry after the loss would draw new noise.
    """
    create_once(path, _file(os.urandom(SECRET_BYTES), passphrase))


def keep_secret(path: Path, secret: bytes, passphrase: bytes | None) -> None:
    """Write the same secret again, behind another passphrase or none; a crash leaves the old file or the new one."""
    write_whole(path, _file(secret, passphrase), durable=True)


def load_secret(path: Path, passphrase: Callable[[], bytes]) -> tuple[bytes, bool]:
    """The site's noise secret, and whether it lies behind a passphrase.

    passphrase: asked for only if it does. Raises SetupError if the file is not such a secret, can be read by others, or does
    not open.
    """
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SetupError(f"{path} can be read by other users (mode {mode:o}): run 'chmod 600 {path}'")
    file = path.read_bytes()
    if file.startswith(locked.BEGIN):
        try:
            return locked.unlock(file, passphrase(), _BOUND), True
        except ValueError:
            raise SetupError(f"{path}: the passphrase does not open this noise secret, or the file is damaged; try again, "
                             "then restore it from your backup") from None
    if len(file) != SECRET_BYTES:
        raise SetupError(f"{path} is not a noise secret: it has {len(file)} bytes, expected {SECRET_BYTES}; restore "
                         "it from your backup")
    return file, False


def _file(secret: bytes, passphrase: bytes | None) -> bytes:
    return secret if passphrase is None else locked.lock(secret, passphrase, _BOUND)
