"""Canonical JSON: byte for byte what the library writes, and its errors."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import rfc8785

from fedround import canonical

EDGES = [0.0, -0.0, 1.0, -5.0, 0.1, 1e-4, 9.999999999999999e-5, 1e-5, 1e-6, 1e-7, 123456.789, 1e15, 999999999999999.9,
         1e16, 1e20, 1e21, 1e22, 2.0**53, 1.7976931348623157e308, 5e-324, -1e-4, 1 / 3, 4503599627370496.5, 0.00012345]


@pytest.mark.parametrize("value", [
    *EDGES, 0, -1, 2**53 - 1, 1 - 2**53, True, False, None, "", [], {}, (), [[]], {"a": {}},
    "".join(map(chr, range(256))), "é€😀", {"é": 1, "z": 2}, {"\U0001f600": 1, "\ufb33": 2}, {"b": 1, "a": [True, 1, 1.0]},
    {"10": 0, "9": 0, "A": 0, "a": 0, "": 0, "\n": 0},
])
def test_every_value_as_the_library_writes_it(value: object):
    assert canonical.dumps(value) == rfc8785.dumps(value)


def test_numbers_of_all_sizes_as_the_library_writes_them():
    bits = np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64)
    numbers = [x for x in (struct.unpack("<d", int(b).to_bytes(8, "little"))[0] for b in bits) if np.isfinite(x)]
    numbers += [x * 10.0**e for e in range(-9, 23) for x in (1.0, 1.5, 0.1, 9.999999999999999, -7.25)]
    assert canonical.dumps(numbers) == rfc8785.dumps(numbers)


@pytest.mark.parametrize("value", [
    float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {1: 2}, {"\ud800": 1}, b"bytes", {1, 2}])
def test_what_has_no_form_raises_as_the_library_does(value: object):
    with pytest.raises((ValueError, TypeError)) as theirs:
        rfc8785.dumps(value)
    with pytest.raises(type(theirs.value)):
        canonical.dumps([value])
