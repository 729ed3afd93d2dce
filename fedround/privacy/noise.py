"""Noise that only the site can predict, and that a retry repeats.

A site keeps one secret of 32 bytes. The noise of one release is a function of that secret and of everything the release
depends on (plan, rows, …), so after a crash the same release gets the same bytes, and nobody can average two draws; any
other release gets noise that cannot be told from independent noise without the secret.

Promised: the uniform bits are AES-256 in counter mode under a key from HKDF-SHA256 (RFC 5869), so the generator is
cryptographic. Not promised: that the result has the exact law of real-valued Gaussian noise. The doubles come from
Box-Muller on 53-bit uniforms (nothing beyond 8.6 standard deviations), and the low bits of floating-point noise can
betray what it was added to (Mironov 2012, doi 10.1145/2382196.2382264; for Gaussians Jin et al. 2022,
arXiv:2112.05307). Nor that two machines of different kind, or two versions of numpy, give the same last bit.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedround.errors import ContractError, SetupError
from fedround.privacy.files import create_once

SECRET_BYTES = 32
_DOMAIN = b"fedround/1/noise"
_BLOCK = 1 << 15                # pairs of normals made at once: they stay in the processor's cache
_ZEROS = bytes(16 * _BLOCK)

Size = int | tuple[int, ...]


class Stream:
    """A sequence of random numbers; the same key and the same calls give the same numbers."""

    def __init__(self, key: bytes):
        # Every key serves one stream only, so the counter may start at zero.
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def random(self, size: Size) -> npt.NDArray[np.float64]:
        """Uniform numbers in [0, 1), multiples of 2**-53."""
        flat = np.empty(math.prod(size) if isinstance(size, tuple) else size)
        for start in range(0, flat.size, 2 * _BLOCK):
            part = flat[start:start + 2 * _BLOCK]
            part[:] = self._uniform(part.size)
        return flat.reshape(size)

    def normal(self, scale: float, size: Size) -> npt.NDArray[np.float64]:
        """Gaussian numbers with mean 0 and standard deviation `scale`."""
        if not (math.isfinite(scale) and scale >= 0):
            raise ContractError(f"the standard deviation of noise must be finite and not negative, got {scale}")
        flat = np.empty(math.prod(size) if isinstance(size, tuple) else size)
        for start in range(0, flat.size, 2 * _BLOCK):
            part = flat[start:start + 2 * _BLOCK]
            half = (part.size + 1) // 2
            radius = np.sqrt(-2 * np.log1p(-self._uniform(half)))      # 1 - u is in (0, 1]: the logarithm is finite
            angle = 2 * np.pi * self._uniform(half)
            np.multiply(radius, np.cos(angle), out=part[:half])
            part[half:] = (radius * np.sin(angle))[:part.size - half]
        flat *= scale
        return flat.reshape(size)

    def _uniform(self, size: int) -> npt.NDArray[np.float64]:
        words = np.frombuffer(self._cipher.update(_ZEROS[:8 * size]), dtype="<u8")
        return (words >> np.uint64(11)).astype(np.float64) * 2.0 ** -53


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


def load_or_create_secret(path: Path) -> bytes:
    """The site's noise secret; made from the operating system's randomness at the first call, mode 0600.

    Raises SetupError if the file is not such a secret or can be read by others. A lost secret cannot be made again:
    a retry after the loss would draw new noise.
    """
    if not path.exists():
        create_once(path, os.urandom(SECRET_BYTES))
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SetupError(f"{path} can be read by other users (mode {mode:o}): run 'chmod 600 {path}'")
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise SetupError(f"{path} is not a noise secret: it has {len(secret)} bytes, expected {SECRET_BYTES}; restore "
                         "it from your backup")
    return secret
