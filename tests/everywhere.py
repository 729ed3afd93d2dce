"""The tests as other processors would run them, with one and two threads, and on a busy machine.

    python -m tests.everywhere [--only Haswell,busy] [anything that pytest understands]
    make test-everywhere ARGS="-n 2 tests/fedround tests/parity"

OpenBLAS has other code for other processors, and splits sums by the number of threads: last bits differ, and no verdict may
hang on them. OPENBLAS_CORETYPE chooses the code. For a processor without AVX-512, NumPy and torch do without it, too. A core
type whose code does not run here is reported as "not here", which is not "passed".

A busy machine has two programs on every core that compute without an end (at nice 19). They end with this one, however it
ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

CORE_TYPES = {"Haswell": False, "Zen": False, "SkylakeX": True}
"""What OpenBLAS calls them, and whether they have AVX-512."""

THREADS = (1, 2)
LOOPS_PER_CORE = 2

PROBE = """
import numpy as np, threadpoolctl
for kind in (np.float32, np.float64):
    some = np.arange(40_000, dtype=kind).reshape(200, 200)
    np.linalg.eigvalsh(some @ some.T)
print(*{library["architecture"] for library in threadpoolctl.threadpool_info() if library["internal_api"] == "openblas"})
"""
WIDE = """
from numpy._core._multiarray_umath import __cpu_dispatch__ as could, __cpu_features__ as can
print(*(name for name in could if can[name] and ("AVX512" in name or name == "X86_V4")))
"""
"""Prints what NumPy would do with AVX-512 here, in NumPy's own words."""

LOOP = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG: end when the parent ends (Linux)
os.nice(19)
while os.getppid() != 1:
    pass
"""


@dataclass(frozen=True)
class Place:
    """Where the tests run."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    core_type: str | None = None
    busy: bool = False

    def missing(self) -> str | None:
        """Why the tests cannot run there from here; None if they can."""
        if self.core_type is None:
            return None
        probe = subprocess.run([sys.executable, "-c", PROBE], env=os.environ | self.environment, capture_output=True,
                               text=True, check=False)
        if probe.returncode != 0:
            return f"not here: a product of matrices ends with {probe.returncode}"
        runs = probe.stdout.strip()
        return None if runs == self.core_type else f"not here: this OpenBLAS runs the code for {runs} instead"


def places() -> list[Place]:
    """All of them."""
    wide = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True).stdout.strip()
    narrow = {"NPY_DISABLE_CPU_FEATURES": wide, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
              "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    found = []
    for core_type, is_wide in CORE_TYPES.items():
        for threads in THREADS:
            environment = {f"{library}_NUM_THREADS": str(threads) for library in ("OPENBLAS", "OMP", "MKL")}
            environment |= {"OPENBLAS_CORETYPE": core_type} | ({} if is_wide else narrow)
            found.append(Place(f"{core_type} with {threads} thread{'s'[:threads - 1]}", environment, core_type))
    return [*found, Place("busy", busy=True)]


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many programs compute meanwhile, without an end and with the least priority."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


def run(place: Place, arguments: Sequence[str]) -> str:
    """One word for the tests' end, or why they were not run."""
    if (missing := place.missing()) is not None:
        return missing
    with busy_loops(LOOPS_PER_CORE * (os.cpu_count() or 1) if place.busy else 0):
        code = subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], env=os.environ | place.environment,
                              check=False).returncode
    return "passed" if code == 0 else f"FAILED: pytest ended with {code}"


def main() -> int:
    """Run the tests everywhere; 0 if they pass wherever they can run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="places whose name begins with one of these, separated by commas")
    asked, arguments = parser.parse_known_args()
    os.environ.pop("OPENBLAS_L2_SIZE", None)
    chosen = [place for place in places() if place.name.startswith(tuple(asked.only.split(",")))]
    said = {}
    for place in chosen:
        print(f"-- {place.name}", flush=True)
        said[place.name] = run(place, arguments)
    print("\n".join(f"{name:24} {what}" for name, what in said.items()))
    return 0 if "passed" in said.values() and not any(what.startswith("FAILED") for what in said.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
