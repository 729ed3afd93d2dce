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

import functools
import math
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

FINE = 2.0 ** 42
"""The same for sums of gradients: there a row may be a product of two vectors of whole numbers, of which each has half of the
digits (`fedround.learning.by_rows`)."""

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Size = int | tuple[int, ...]

_DOMAIN = b"fedround/3/noise"
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

    def cells(self, size: int) -> Int64:
        """Gaussian, mean 0, standard deviation FINE, rounded down to whole numbers."""
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
        cells = self.cells(math.prod(size) if isinstance(size, tuple) else size)
        cells >>= int(FINE / GRID).bit_length() - 1
        flat = cells.astype(np.float64)
        flat += 0.5
        flat *= 1 / GRID
        flat *= scale
        return flat.reshape(size)

    def cells(self, size: int) -> Int64:
        """Gaussian numbers with mean 0 and standard deviation FINE, rounded down to whole numbers."""
        flat = np.empty(size, np.int64)
        filled = 0
        while filled < size:
            accepted = self._try(min(_BLOCK, (size - filled) * 65 // 64 + 2), _law())[:size - filled]
            flat[filled:filled + len(accepted)] = accepted
            filled += len(accepted)
        return flat

    def _try(self, tries: int, law: _Law) -> Int64:
        """The accepted ones (all but 6 of 1,000) of so many tries.

        ± (k + f) / STRIPS: the strip k is drawn with weights exp(-(k / STRIPS)²/2), f is uniform in [0, 1), and the number is
        accepted with probability exp(-f (2 k + f) / (2 STRIPS²)), which makes its density exp(-x²/2). Of a first word the
        upper half picks the strip and the lower one is the coin, of a second one the last bit is the sign and the rest is f.
        """
        first, second = self._words(2 * tries).reshape(2, tries)
        strip = law.guide[first >> np.uint64(48)]
        unsure = np.flatnonzero(strip == _UNSURE)
        strip[unsure], doubted = law.strips(first[unsure] >> np.uint64(32))
        coin = first & np.uint64(2 ** 32 - 1)
        open_ = np.flatnonzero(coin >= law.surely[strip])
        accepted = np.ones(tries, np.bool_)
        place = (second[open_] >> np.uint64(11)).astype(np.float64) * 2.0 ** -53
        left = np.exp(place * (strip[open_] + place / 2) * (-1 / STRIPS ** 2)) * 2.0 ** 32 - (coin[open_] + 0.5)
        accepted[open_] = left > 0
        for i in np.union1d(unsure[doubted], open_[np.abs(left) < law.doubt]):
            word = int(first[i])
            strip[i], accepted[i] = _decide(word >> 32, int(second[i]) >> 1, word % 2 ** 32, self._words(5).tolist())
        cells = strip.astype(np.uint64)
        cells <<= np.uint64(_STRIP_BITS)
        cells |= second >> np.uint64(64 - _STRIP_BITS)
        cells ^= -(second & np.uint64(1))           # -(x + f) rounded down is -x - 1: every bit turned
        whole: Int64 = cells.view(np.int64)
        return whole[accepted]

    def _words(self, count: int) -> Words:
        return np.frombuffer(self._cipher.update(_ZEROS[:8 * count]), dtype="<u8")


def _uniform(words: Words) -> Float64:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0 ** -53


STRIPS = 64
"""Strips of one standard deviation."""

_STRIP_BITS = 36                # FINE / STRIPS is 2**36
_WHOLE = 24                     # standard deviations: beyond lie 2**-418 of all numbers
_UNSURE = 2 ** 16 - 1
_EXACT = Context(prec=60)


@dataclass(frozen=True, eq=False)
class _Law:
    """What decides nearly all numbers from 32 bits and doubles, and knows where it does not."""

    below: Int64
    """Of all numbers, in 2**-32: the share that lies below the strips 1, 2, …, rounded down."""
    surely: Words
    """By strip: coins below this, in 2**-32, accept whatever the place in the strip."""
    guide: npt.NDArray[np.uint16]
    """By the first 16 bits of a pick: its strip, or that they do not say it."""
    doubt: int
    """Nearer to a threshold than this, in 2**-32, more bits decide. 1 is what is not known, and what doubles round."""

    @classmethod
    def of(cls, doubt: int) -> _Law:
        """For a doubt of 1 or more."""
        below = np.array([int(_EXACT.multiply(share, 2 ** 32)) for share in _thresholds()])
        strips = np.arange(_WHOLE * STRIPS)
        surely = np.floor(np.exp(-(2 * strips + 1) / (2 * STRIPS ** 2)) * 2.0 ** 32) - 1
        law = cls(below, surely.astype(np.uint64), np.empty(0, np.uint16), doubt)
        ends = np.arange(2 ** 16, dtype=np.uint64) << np.uint64(16)
        (low, here), (high, there) = law.strips(ends), law.strips(ends + np.uint64(2 ** 16 - 1))
        inside = (low == high) & ~here & ~there
        return replace(law, guide=np.where(inside, low, _UNSURE).astype(np.uint16))

    def strips(self, pick: Words) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
        """The strips of picks of 32 bits, and which of them are in doubt."""
        pick = pick.view(np.int64)
        strip = np.searchsorted(self.below, pick, side="right")
        ends = np.concatenate([[-2 ** 32], self.below, [2 ** 33]])
        return strip.astype(np.uint16), (pick - ends[strip] < self.doubt) | (ends[strip + 1] - pick < self.doubt)


def _thresholds() -> list[Decimal]:
    """The share of all numbers that lies below each strip but the first."""
    weight, ratio = Decimal(1), _EXACT.exp(Decimal(-1) / (2 * STRIPS ** 2))
    squared, sums = _EXACT.multiply(ratio, ratio), [weight]
    for _ in range(1, _WHOLE * STRIPS):         # exp(-k²/2s²) is the last one times exp(-(2k-1)/2s²)
        weight, ratio = _EXACT.multiply(weight, ratio), _EXACT.multiply(ratio, squared)
        sums.append(_EXACT.add(sums[-1], weight))
    return [_EXACT.divide(part, sums[-1]) for part in sums[:-1]]


@functools.cache
def _law() -> _Law:
    return _Law.of(1)


@functools.cache
def _exact_thresholds() -> list[Decimal]:
    return _thresholds()


def _decide(pick: int, place: int, coin: int, more: Sequence[int]) -> tuple[int, bool]:
    """The strip, and whether it is accepted with the place in it: as in `_try`, each number with 64 or 128 bits more.

    pick and coin have 32 bits, place has 63.
    """
    drawn = Decimal((pick << 128) + (more[0] << 64) + more[1])
    fraction = _EXACT.divide(Decimal((place << 64) + more[2]), Decimal(1 << 127))
    chance = _EXACT.divide(Decimal((coin << 128) + (more[3] << 64) + more[4]), Decimal(1 << 160))
    strip = bisect_right(_exact_thresholds(), _EXACT.divide(drawn, Decimal(1 << 160)))
    power = _EXACT.multiply(fraction, _EXACT.add(Decimal(strip), _EXACT.divide(fraction, 2)))
    return strip, chance < _EXACT.exp(_EXACT.divide(-power, STRIPS ** 2))


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
