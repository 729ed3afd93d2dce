"""A sum under homomorphic encryption (CKKS): run by benchmarks/encrypted.py with an interpreter that has TenSEAL 0.3.18.

    python benchmarks/ckks_sums.py MEMBERS SIZE DEGREE BITS,BITS,… SCALE

Prints CPU seconds, bytes and the largest error as JSON. DEGREE: of the ring; half as many numbers are in a ciphertext.
BITS: of its primes. SCALE: bits after the point.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main(members: int, size: int, degree: int, bits: list[int], scale: int) -> dict[str, float]:
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=degree, coeff_mod_bit_sizes=bits, n_threads=1)
    context.global_scale = 2 ** scale
    whole = np.random.default_rng(0).normal(size=size).astype(np.float32)
    found = {"encrypt": 0.0, "add": 0.0, "open": 0.0, "bytes": 0.0, "error": 0.0}
    for start in range(0, size, degree // 2):
        block = whole[start:start + degree // 2]
        began = time.process_time()
        body = ts.ckks_vector(context, block).serialize()
        encrypted = time.process_time()
        total = ts.ckks_vector_from(context, body)
        for _ in range(members - 1):
            total += ts.ckks_vector_from(context, body)
        added = time.process_time()
        opened = np.array(total.decrypt())
        found["encrypt"] += encrypted - began
        found["add"] += added - encrypted
        found["open"] += time.process_time() - added
        found["bytes"] += len(body)
        found["error"] = max(found["error"], float(np.abs(opened - members * block).max()))
    return found


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:4]), [int(one) for one in sys.argv[4].split(",")], int(sys.argv[5]))))
