"""Each compression against its description, one number at a time."""

from __future__ import annotations

import math
import statistics
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedround.compression import quantised, wire
from fedround.compression.spec import CountSketch, Quantised, TopK

SEED = bytes(range(32))
NUMBERS = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=2100)


def float32(number: float) -> float:
    return struct.unpack("<f", struct.pack("<f", number))[0]


@given(st.integers(1, 2100), st.integers(0, 10 ** 6), st.sampled_from([8, 4]))
def test_quantised(size, seed, bits):
    vector = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    draws = np.random.default_rng(seed + 1).random(size)
    how, top = Quantised(bits=bits), 127 if bits == 8 else 7
    expected, scale = [], 0.0
    for i, (x, u) in enumerate(zip(vector.tolist(), draws.tolist(), strict=True)):
        if i % quantised.BLOCK == 0:
            scale = max(abs(y) for y in vector[i:i + quantised.BLOCK].tolist())
        length = abs(x) * (top / scale) if abs(x) < scale else float(top)
        steps = math.floor(length) + (u < length - math.floor(length))
        expected.append(float32(math.copysign(steps, x) * (scale / top)))
    body = wire.compress(vector, how, lambda _: draws, SEED)
    assert [abs(a - b) < 1e-12 for a, b in zip(wire.expanded(body, how, size, SEED).tolist(), expected, strict=True)] == [
        True] * size


@given(NUMBERS, st.sampled_from([0.01, 0.2, 0.5]))
def test_top_k(numbers, share):
    count = max(1, math.ceil(share * len(numbers)))
    largest = sorted(range(len(numbers)), key=lambda i: (-abs(numbers[i]), i))[:count]
    vector = np.array(numbers, np.float32)
    body = wire.compress(vector, TopK(share=share), np.zeros, SEED)
    assert wire.expanded(body, TopK(share=share), len(numbers), SEED).tolist() == [
        x if i in set(largest) else 0.0 for i, x in enumerate(numbers)]


def splitmix(state: int) -> int:
    """Steele, Lea and Flood 2014."""
    mask = 2 ** 64 - 1
    z = state & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return z ^ z >> 31


@given(st.integers(10, 200), st.integers(0, 10 ** 6))
def test_count_sketch(size, seed):
    how, vector = CountSketch(rows=3, size=0.5, share=0.1), np.random.default_rng(seed).normal(size=size).astype(np.float32)
    width, golden = int(0.5 * size) // 3, 0x9E3779B97F4A7C15
    table, places = [[0.0] * width for _ in range(3)], []
    for i, x in enumerate(vector.tolist()):
        places.append([])
        for row in range(3):
            key = int.from_bytes(SEED[:8], "little") ^ golden * (row + 1) % 2 ** 64
            word = splitmix((i + 1) * golden + key)
            column, sign = (word >> 33) * width >> 31, 1 if word & 1 else -1
            table[row][column] += sign * x
            places[-1].append((row, column, sign))
    seeming = [statistics.median(sign * float32(table[row][column]) for row, column, sign in three) for three in places]
    largest = set(sorted(range(size), key=lambda i: (-abs(seeming[i]), i))[:max(1, math.ceil(0.1 * size))])
    scale = sum(seeming[i] * float(vector[i]) for i in largest) / sum(seeming[i] ** 2 for i in largest)
    body = wire.compress(vector, how, np.zeros, SEED)
    found = wire.expanded(body, how, size, SEED).tolist()
    assert all(abs(x - (scale * seeming[i] if i in largest else 0.0)) < 1e-4 for i, x in enumerate(found))
