"""A retry repeats the noise; everything else gets other noise; it is Gaussian, uniform and cheap."""

import hashlib
import math
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround.errors import ContractError, SetupError
from fedround.privacy.noise import SECRET_BYTES, Stream, load_or_create_secret, stream

SECRET = bytes(range(32))
PLAN, ROWS = b"plan", b"rows"


def draw(generator: Stream) -> bytes:
    return generator.random(100).tobytes() + generator.normal(2.0, (7, 11)).tobytes()


def test_a_retry_repeats_the_bytes():
    assert draw(stream(SECRET, PLAN, ROWS)) == draw(stream(SECRET, PLAN, ROWS))


@pytest.mark.parametrize("other", [
    (SECRET[::-1], PLAN, ROWS), (SECRET, b"plan2", ROWS), (SECRET, PLAN, b"rows2"), (SECRET, PLAN),
    (SECRET, ROWS, PLAN), (SECRET, b"planr", b"ows"), (SECRET, PLAN + ROWS), (SECRET, PLAN, ROWS, b""),
], ids=["secret", "plan", "rows", "no rows", "order", "moved border", "joined", "empty part"])
def test_any_other_release_gets_unrelated_noise(other):
    one = stream(SECRET, PLAN, ROWS).normal(1.0, 50_000)
    two = stream(*other).normal(1.0, 50_000)
    assert abs(float(np.corrcoef(one, two)[0, 1])) < 5 / math.sqrt(50_000)


def test_the_keystream_is_aes_256_in_counter_mode_under_hkdf_sha256():
    """An independent construction, so that nobody swaps the generator for a weaker one unnoticed."""
    import hmac

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    info = b"fedround/1/noise" + (4).to_bytes(8, "little") + PLAN + (4).to_bytes(8, "little") + ROWS
    extracted = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    key = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    words = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(24))
    expected = [int.from_bytes(words[i:i + 8], "little") // 2 ** 11 / 2 ** 53 for i in (0, 8, 16)]
    assert stream(SECRET, PLAN, ROWS).random(3).tolist() == expected


def distance_to(cdf, sample: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic times sqrt(n): above 2.2 with probability 1e-4."""
    ordered = np.sort(sample)
    expected = np.array([cdf(x) for x in ordered])
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max()) * math.sqrt(len(ordered)))


def test_normal_is_gaussian_and_random_is_uniform():
    generator = stream(SECRET, PLAN)
    normal = generator.normal(3.0, 100_001)
    assert distance_to(lambda x: math.erfc(-x / 3 / math.sqrt(2)) / 2, normal) < 2.2
    assert distance_to(lambda x: x, generator.random(100_000)) < 2.2
    halves = normal[:50_000], normal[50_000:100_000]    # the two numbers of a Box-Muller pair
    assert abs(float(np.corrcoef(*halves)[0, 1])) < 5 / math.sqrt(50_000)
    assert abs(float(np.corrcoef(halves[0] ** 2, halves[1] ** 2)[0, 1])) < 5 / math.sqrt(50_000)


def test_noise_is_never_reused_inside_a_stream():
    """Also across the internal blocks: no value comes twice among 200,000 of 53 bits."""
    generator = stream(SECRET, PLAN)
    numbers = np.concatenate([generator.random(150_000), generator.random(50_000)])
    assert len(np.unique(numbers)) == len(numbers)
    assert ((numbers >= 0) & (numbers < 1)).all()
    normal = generator.normal(1.0, 200_000)
    assert len(np.unique(np.abs(normal))) == len(normal)


@settings(max_examples=40, deadline=None)
@given(size=st.one_of(st.integers(0, 70_000), st.tuples(st.integers(0, 9), st.integers(0, 9))),
       scale=st.floats(0, 1e6))
def test_sizes_and_scales(size, scale):
    normal = stream(SECRET, PLAN).normal(scale, size)
    assert normal.shape == (size if isinstance(size, tuple) else (size,))
    assert np.isfinite(normal).all()
    assert np.array_equal(normal, stream(SECRET, PLAN).normal(1.0, size) * scale)


def test_the_rarest_uniform_number_makes_finite_noise(monkeypatch):
    """Zero comes once in 2**53; a logarithm of it would be infinite."""
    monkeypatch.setattr(Stream, "_uniform", lambda self, size: np.zeros(size))
    assert stream(SECRET, PLAN).normal(1.0, 4).tolist() == [0.0] * 4


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_standard_deviation_that_is_none_is_refused(scale):
    with pytest.raises(ContractError, match="standard deviation"):
        stream(SECRET, PLAN).normal(scale, 3)


def test_a_short_secret_and_an_empty_context_are_refused():
    with pytest.raises(ContractError, match="32 bytes"):
        stream(b"short", PLAN)
    with pytest.raises(ContractError, match="context"):
        stream(SECRET)


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "noise.secret"
    secret = load_or_create_secret(path)
    assert len(secret) == SECRET_BYTES
    assert load_or_create_secret(path) == secret
    assert load_or_create_secret(tmp_path / "other.secret") != secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noise.secret", "other.secret"]


def test_a_secret_that_others_can_read_or_that_is_cut_is_refused(tmp_path):
    path = tmp_path / "noise.secret"
    load_or_create_secret(path)
    path.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        load_or_create_secret(path)
    path.chmod(0o600)
    path.write_bytes(b"")
    with pytest.raises(SetupError, match="not a noise secret"):
        load_or_create_secret(path)
