"""A retry repeats the noise; everything else gets other noise; it is Gaussian, uniform and cheap."""

import hashlib
import itertools
import math
import stat
from decimal import ROUND_FLOOR, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedround import locked
from fedround.errors import ContractError, SetupError
from fedround.privacy import noise
from fedround.privacy.noise import (
    FINE,
    GRID,
    SECRET_BYTES,
    Stream,
    create_secret,
    keep_secret,
    load_secret,
    noised_counts,
    stream,
)
from tests.disk import is_durable, watched

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

    info = b"fedround/3/noise" + (4).to_bytes(8, "little") + PLAN + (4).to_bytes(8, "little") + ROWS
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
    neighbours = normal[:-1], normal[1:]
    assert abs(float(np.corrcoef(*neighbours)[0, 1])) < 5 / math.sqrt(100_000)
    assert abs(float(np.corrcoef(neighbours[0] ** 2, neighbours[1] ** 2)[0, 1])) < 5 / math.sqrt(100_000)


def test_noise_is_never_reused_inside_a_stream():
    """Also across the internal blocks: no value comes twice among 200,000 of 53 bits."""
    generator = stream(SECRET, PLAN)
    numbers = np.concatenate([generator.random(150_000), generator.random(50_000)])
    assert len(np.unique(numbers)) == len(numbers)
    assert ((numbers >= 0) & (numbers < 1)).all()
    normal = generator.normal(1.0, 200_000)
    assert len(np.unique(np.abs(normal))) > len(normal) - 150       # of about 2**29 cells: some 40 pairs meet by chance


@settings(max_examples=40)
@given(size=st.one_of(st.integers(0, 70_000), st.tuples(st.integers(0, 9), st.integers(0, 9))),
       scale=st.floats(0, 1e6))
def test_sizes_and_scales(size, scale):
    normal = stream(SECRET, PLAN).normal(scale, size)
    assert normal.shape == (size if isinstance(size, tuple) else (size,))
    assert np.isfinite(normal).all()
    assert np.array_equal(normal, stream(SECRET, PLAN).normal(1.0, size) * scale)


# -- the law, and its low bits -------------------------------------------------------------------------------------------


def test_the_shares_of_whole_standard_deviations_are_those_of_the_normal_law():
    """Chi-square over the m of the rejection; above 30 with probability 1e-4 (5 degrees of freedom: 25.7)."""
    sample = stream(SECRET, PLAN).normal(1.0, 1_000_000)
    expected = np.array([math.erf((m + 1) / math.sqrt(2)) - math.erf(m / math.sqrt(2)) for m in range(6)]) * len(sample)
    seen = np.bincount(np.abs(sample).astype(int), minlength=6)[:6]
    assert ((seen - expected) ** 2 / expected).sum() < 30
    assert abs(int((sample > 0).sum()) - 500_000) < 2_500


def test_the_shares_of_strips_and_of_places_in_them_are_those_of_the_normal_law():
    """Chi-square over the 200 strips below 25/8 standard deviations, 8 parts of a strip, and the rest."""
    cells = stream(SECRET, PLAN, b"strips").cells(1_000_000)
    x = np.where(cells < 0, ~cells, cells) / FINE
    ends = np.append(np.arange(201) / noise.STRIPS, np.inf)
    share = np.array([math.erf(end / math.sqrt(2)) for end in ends])
    expected = np.diff(share) * len(x)
    seen = np.histogram(x, ends)[0]
    assert ((seen - expected) ** 2 / expected).sum() < 200 + 5 * math.sqrt(2 * 200)
    parts = np.bincount((x * noise.STRIPS * 8).astype(int) % 8, minlength=8)
    assert np.abs(parts - len(x) / 8).max() < 5 * math.sqrt(len(x) / 8) + 0.002 * len(x)


def test_where_32_bits_and_doubles_are_in_doubt_exact_arithmetic_decides_the_same(monkeypatch):
    """The exact way, taken for one in six instead of one in ten million, must agree wherever the quick one is certain."""
    calls, real, thresholds = [], noise._decide, np.array([float(share) for share in noise._thresholds()])

    def decide(pick, place, coin, more):
        calls.append(real(pick, place, coin, more))
        drawn, fraction, chance = pick / 2 ** 32 + more[0] / 2 ** 96, place / 2 ** 63, coin / 2 ** 32 + more[3] / 2 ** 96
        strip = int(np.searchsorted(thresholds, drawn, side="right"))
        assert calls[-1] == (strip, chance < math.exp(-fraction * (strip + fraction / 2) / noise.STRIPS ** 2))
        return calls[-1]

    quick = stream(SECRET, PLAN).cells(20_000)
    law = noise._Law.of(1 << 21)
    monkeypatch.setattr(noise, "_law", lambda: law)
    monkeypatch.setattr(noise, "_decide", decide)
    sample = stream(SECRET, PLAN).cells(20_000)
    assert len(calls) > 500
    assert distance_to(lambda x: math.erfc(-x / math.sqrt(2)) / 2, sample / FINE) < 2.2
    monkeypatch.setattr(Stream, "_words", _without_more(Stream._words))
    assert np.array_equal(stream(SECRET, PLAN).cells(20_000), quick)


def _without_more(words):
    """The words that the exact way asks for are taken from elsewhere, so that the numbers stay comparable."""
    return lambda self, count: np.full(5, 1 << 63, np.uint64) if count == 5 else words(self, count)


@pytest.mark.parametrize("pick", [0, 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1, "a threshold", "before it", "after it"])
def test_a_pick_is_certain_or_said_to_be_in_doubt(pick):
    """Whatever bits follow, the strip that 32 bits say is that of the whole number, unless they are in doubt."""
    law, thresholds = noise._law(), noise._thresholds()
    if isinstance(pick, str):
        pick = int(law.below[30]) + {"a threshold": 0, "before it": -1, "after it": 1}[pick]
    strips, doubted = law.strips(np.array([pick], np.uint64))
    ends = [sum(threshold <= Decimal(pick + more) / 2 ** 32 for threshold in thresholds)
            for more in (0, 1 - Decimal(2) ** -80)]
    assert bool(doubted[0]) or ends == [strips[0]] * 2
    assert bool(doubted[0]) == (pick in law.below.tolist())
    guided = int(law.guide[pick >> 16])
    assert guided in (noise._UNSURE, int(strips[0]))
    assert guided == noise._UNSURE or not doubted[0]


def test_a_coin_that_accepts_surely_accepts_at_the_end_of_its_strip():
    law = noise._law()
    for strip in (0, 1, 63, 200, 500, noise.STRIPS * 24 - 1):
        lowest = noise._EXACT.exp(Decimal(-(2 * strip + 1)) / (2 * noise.STRIPS ** 2))
        assert 0 < lowest * 2 ** 32 - int(law.surely[strip]) < 3


@pytest.mark.parametrize("place", [0, 1, 5, 63, 64, 200])
def test_where_a_pick_is_on_the_edge_the_bits_that_follow_decide_it(place, monkeypatch):
    """A draw whose 32 bits are those of a threshold: 128 more say on which side of it the draw is."""
    edge = int(noise._EXACT.multiply(noise._thresholds()[place], Decimal(1 << 160)).to_integral_value(ROUND_FLOOR))
    pick, rest = edge >> 128, edge & (1 << 128) - 1
    for more, strip in ((rest - 1, place), (rest + 1, place + 1)):
        words = [np.array([pick << 32, 0], dtype=np.uint64),
                 np.array([more >> 64, more & (1 << 64) - 1, 0, 0, 0], dtype=np.uint64)]
        monkeypatch.setattr(Stream, "_words", lambda _self, _count, words=words: words.pop(0))
        assert Stream(bytes(32))._try(1, noise._law()).tolist() == [strip * int(FINE) // noise.STRIPS]


def test_a_tie_in_all_known_bits_is_decided_by_the_bits_that_follow():
    """A coin that equals the chance to 32 bits, and to 96: what comes after it tells."""
    fraction, strip = 1 << 61, 100                                              # 1/4 of 2**63
    pick = int(noise._thresholds()[strip - 1] * 2 ** 32) + 1
    chance = noise._EXACT.exp(noise._EXACT.divide(-(8 * strip + 1), 32 * noise.STRIPS ** 2))
    tie = int(noise._EXACT.multiply(chance, 2 ** 32))
    decided = [noise._decide(pick, fraction, tie, [0, 0, 0, more, more]) for more in (0, 2 ** 64 - 1)]
    assert decided == [(strip, True), (strip, False)]
    more = int(noise._EXACT.multiply(chance, 2 ** 96)) % 2 ** 64
    assert [noise._decide(pick, fraction, tie, [0, 0, 0, more, last])[1] for last in (0, 2 ** 64 - 1)] == [True, False]


def test_thresholds_ascend_and_leave_nothing_out():
    thresholds = noise._thresholds()
    assert all(low < high for low, high in itertools.pairwise(thresholds[:15 * noise.STRIPS]))
    assert thresholds == sorted(thresholds)
    assert len(thresholds) + 1 == 24 * noise.STRIPS
    assert 1 - thresholds[-1] < Decimal(10) ** -55
    total = sum(math.exp(-(k / noise.STRIPS) ** 2 / 2) for k in range(24 * noise.STRIPS))
    assert float(thresholds[0]) == pytest.approx(1 / total)
    assert float(thresholds[70] - thresholds[69]) == pytest.approx(math.exp(-(70 / noise.STRIPS) ** 2 / 2) / total)


@settings(max_examples=50)
@given(total=st.integers(-2 ** 45, 2 ** 45), change=st.integers(-2 ** 28, 2 ** 28))
def test_attack_mironov_neighbouring_totals_reach_the_same_outputs(total, change):
    """Every output is a whole number and a half, and any of them can come from either total: the low bits tell nothing."""
    drawn = stream(SECRET, PLAN).normal(GRID, 200)
    one = total + drawn
    assert np.array_equal(np.mod(one, 1), np.full(200, 0.5))
    needed = one - (total + change)                     # the noise that makes the same output from the neighbour
    assert np.array_equal((total + change) + needed, one)
    assert np.array_equal(np.mod(needed, 1), np.full(200, 0.5))


def test_attack_mironov_succeeds_against_floating_point_noise():
    """What the grid is for: of noise added in doubles, most outputs of one total cannot come from its neighbour at all."""
    output = 0.0 + np.random.default_rng(1).normal(0, 1, 4096)
    nearest = output - 0.3                              # the noise that a total of 0.3 would need
    assert (0.3 + nearest != output).mean() > 0.1


@pytest.mark.parametrize("std", [0.3, 1.0, 10.0, 9999.5])
def test_noised_counts_lie_on_one_grid_with_the_noise_that_was_declared(std):
    counts = np.arange(0, 50_000, dtype=np.int64)
    cells_of_one = math.floor(GRID / std)
    first = noised_counts(counts, std, stream(SECRET, PLAN))
    cells = first * cells_of_one
    assert np.abs(cells - np.floor(cells) - 0.5).max() < 0.02          # a division, and back
    added = first - counts
    assert std * (1 - 5 / math.sqrt(100_000)) < added.std() < std * (1 + 5 / math.sqrt(100_000))
    assert std <= GRID / cells_of_one < std * (1 + 1e-4)


@pytest.mark.parametrize("std", [0.0, -1.0, 1e9, math.nan])
def test_counts_without_a_usable_noise_are_refused(std):
    with pytest.raises(ContractError, match="noise on counts"):
        noised_counts(np.zeros(3, dtype=np.int64), std, stream(SECRET, PLAN))


# -- the interface -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_standard_deviation_that_is_none_is_refused(scale):
    with pytest.raises(ContractError, match="standard deviation"):
        stream(SECRET, PLAN).normal(scale, 3)


def test_a_short_secret_and_an_empty_context_are_refused():
    with pytest.raises(ContractError, match="32 bytes"):
        stream(b"short", PLAN)
    with pytest.raises(ContractError, match="context"):
        stream(SECRET)


def nobody() -> bytes:
    raise AssertionError("a secret that is not locked needs no passphrase")


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "noise.secret"
    create_secret(path)
    secret = load_secret(path, nobody)
    assert len(secret[0]) == SECRET_BYTES
    assert not secret[1]
    create_secret(path)
    assert load_secret(path, nobody) == secret
    create_secret(tmp_path / "other.secret")
    assert load_secret(tmp_path / "other.secret", nobody) != secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noise.secret", "other.secret"]


def test_a_secret_that_others_can_read_or_that_is_cut_is_refused(tmp_path):
    path = tmp_path / "noise.secret"
    create_secret(path)
    path.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        load_secret(path, nobody)
    path.chmod(0o600)
    path.write_bytes(b"")
    with pytest.raises(SetupError, match="not a noise secret"):
        load_secret(path, nobody)


def test_a_locked_secret_opens_with_its_passphrase_and_as_nothing_else(tmp_path):
    path = tmp_path / "noise.secret"
    create_secret(path, b"four quite long words")
    secret, is_locked = load_secret(path, lambda: b"four quite long words")
    assert is_locked
    assert secret not in path.read_bytes()
    with pytest.raises(SetupError, match="the passphrase does not open this noise secret"):
        load_secret(path, lambda: b"four quite other words")
    with pytest.raises(ValueError, match="another passphrase"):
        locked.unlock(path.read_bytes(), b"four quite long words")      # a signing key, say
    with watched() as happened:
        keep_secret(path, secret, None)
    assert load_secret(path, nobody) == (secret, False)
    assert is_durable(happened, path)
