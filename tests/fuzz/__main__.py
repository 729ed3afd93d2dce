"""`python -m tests.fuzz [SECONDS]`: the fuzz tests again and again, always with other inputs, until the time is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time

TIMES = 20


def main(seconds: float) -> int:
    """The exit status: not 0 as soon as an input is found that breaks the law; pytest has shown it then."""
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turn += 1
        print(f"turn {turn}", flush=True)
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/fuzz"],
                              env={**os.environ, "FEDROUND_FUZZ": str(TIMES)}, check=False)
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0))
