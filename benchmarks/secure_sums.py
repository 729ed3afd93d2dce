"""What secure sums cost, beside Flower's SecAgg+ on the same work; and the tables of what colluders get. Fills
docs/secure-sums.md.

    python -m benchmarks.secure_sums [--flower PYTHON]

PYTHON: an interpreter with flwr 1.42 (`python -m venv v; v/bin/pip install flwr==1.42.0`); without it costs are not measured.
CPU seconds of one process with one thread, in turns. Of each the quickest turn counts, so that a busy machine changes
little; the ratios are what to believe. Ours sets up 40 sums at once, SecAgg+ each sum by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.pages import fill, table
from fedround.secure_sums.bounds import fewest_honest, most_colluders, opened_by
from fedround.secure_sums.dealing import check_deal, deal
from fedround.secure_sums.keys import offer
from fedround.secure_sums.lattice import from_ring, to_ring
from fedround.secure_sums.masking import UInt32, mask
from fedround.secure_sums.revealing import Reveals, reveal, unmask
from fedround.secure_sums.spec import SecureSum

PAGE = Path("docs/secure-sums.md")
EPOCH, CONTEXT, BITS, CELLS = b"e" * 32, b"p" * 32, 8, 1 << 20
USUAL = {3: (0,), 4: (0, 1), 5: (0, 1), 6: (0, 1), 8: (0, 1, 2), 10: (1, 2), 12: (1, 2, 3), 20: (2, 3), 40: (3, 5),
         100: (5, 8, 9)}
"""Dropouts by members, for the table of bounds."""
SIGNED = {5: (2,), 8: (2, 3), 12: (2, 3, 4, 5), 20: (4, 8), 40: (5, 10), 100: (9, 25, 40)}
"""The same, where members sign first."""


def bounds_table() -> str:
    """What holds for how many colluders, with the highest threshold that the dropouts allow."""
    rows = []
    for members, every in USUAL.items():
        for dropouts in every:
            threshold = members - dropouts
            most = most_colluders(threshold, dropouts, members)
            if most is not None:
                rows.append(_row(SecureSum(threshold=threshold, dropouts=dropouts, colluders=most), members))
    return table(HEAD, rows)


def thresholds_table() -> str:
    """The same of twelve members, for every threshold that holds at all."""
    rows = []
    for dropouts in range(4):
        for threshold in range(12 - dropouts, 1, -1):
            most = most_colluders(threshold, dropouts, 12)
            if most is not None and (dropouts > 0 or threshold == 12):
                rows.append(_row(SecureSum(threshold=threshold, dropouts=dropouts, colluders=most), 12))
    return table(HEAD, rows)


def signed_table() -> str:
    """What holds only where members sign who is in a sum before they reveal, with the highest threshold."""
    rows = []
    for members, every in SIGNED.items():
        for dropouts in every:
            threshold = members - dropouts
            most = most_colluders(threshold, dropouts, members, "signed")
            if most is not None:
                rows.append(_row(SecureSum(threshold=threshold, dropouts=dropouts, colluders=most, consistency="signed"),
                                 members))
    return table(HEAD, rows)


HEAD = ("members", "dropouts", "threshold", "colluders, at most", "honest in a sum then", "with one more", "open one member",
        "silent, too")


def _row(spec: SecureSum, members: int) -> tuple[str, ...]:
    more = fewest_honest(spec, members, spec.colluders + 1)
    return tuple(map(str, (members, spec.dropouts, spec.threshold, spec.colluders, spec.shared_by(members), more,
                           opened_by(spec, members), spec.least(members) - spec.threshold)))


# -- what it costs -------------------------------------------------------------------------------------------------------


class Ours:
    """A cohort of whom the last members drop out after their keys were dealt. The work is that of its first member."""

    def __init__(self, members: int, dropouts: int, size: int, slots: int):
        self.names = [f"site-{number:03d}" for number in range(members)]
        self.threshold, self.survivors = members - dropouts, self.names[:members - dropouts]
        self.dropped = self.names[members - dropouts:]
        self.secrets = {name: name.encode().ljust(32, b".") for name in self.names}
        self.roster = {name: offer(secret, EPOCH, slots) for name, secret in self.secrets.items()}
        self.dealt = {name: deal(secret, EPOCH, name, self.roster, self.threshold) for name, secret in self.secrets.items()}
        self.numbers_D = (np.rint(CELLS * np.random.default_rng(0).normal(size=size)) + 0.5) / CELLS
        self.me, self.secret = self.names[0], self.secrets[self.names[0]]

    def set_up(self) -> None:
        """Its part of an epoch: offer, deal, check what all others dealt."""
        offer(self.secret, EPOCH, len(self.roster[self.me].slots))
        deal(self.secret, EPOCH, self.me, self.roster, self.threshold)
        for dealer, dealt in self.dealt.items():
            check_deal(self.secret, EPOCH, self.me, self.roster, dealer, dealt, self.threshold)

    def mask(self) -> UInt32:
        """Its first message: from numbers to masked ones."""
        return mask(to_ring(self.numbers_D, BITS, CELLS), self.secret, EPOCH, self.me, self.roster, 0, CONTEXT)

    def reveal(self, name: str) -> Reveals:
        """A member's second message."""
        return reveal(self.secrets[name], EPOCH, name, self.roster, self.dealt, 0, self.survivors, self.dropped,
                      self.threshold)

    def unmask(self, total_D: UInt32, reveals: dict[str, Reveals]) -> object:
        """What the coordinator does when all have revealed."""
        found = unmask(total_D, EPOCH, self.roster, self.dealt, 0, CONTEXT, self.survivors, self.dropped, reveals,
                       self.threshold)
        return from_ring(found.total_D, BITS)


def ours(members: int, dropouts: int, size: int, slots: int = 40) -> dict[str, float]:
    """CPU seconds and bytes of one member, and of the coordinator."""
    cohort = Ours(members, dropouts, size, slots)
    masked_D, reveals = cohort.mask(), {name: cohort.reveal(name) for name in cohort.survivors}
    return {"set up": seconds(cohort.set_up), "mask": seconds(cohort.mask),
            "reveal": seconds(lambda: cohort.reveal(cohort.me)), "unmask": seconds(lambda: cohort.unmask(masked_D, reveals)),
            "set up bytes": len(cohort.roster[cohort.me].to_bytes()) + len(cohort.dealt[cohort.me].to_bytes()),
            "mask bytes": masked_D.nbytes, "reveal bytes": len(reveals[cohort.me].to_bytes())}


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    work()
    return time.process_time() - before


def flowers(python: str, members: int, dropouts: int, size: int) -> dict[str, float]:
    """The same of Flower's, in a process of its own."""
    done = subprocess.run([python, Path(__file__).with_name("flower_sums.py"), *map(str, (members, dropouts, size))],
                          check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
    return dict(json.loads(done.stdout.splitlines()[-1]))


CASES = ((12, 2, 10_000), (12, 2, 1_000_000), (12, 2, 10_000_000))
ALONE = ((100, 8, 1_000_000),)
"""Of ours only, and once: to set up a hundred sites of SecAgg+ with all as neighbours takes minutes, and it is not meant for
that.
"""
WORK = {"set up": "set up", "mask": "numbers under masks", "reveal": "reveal", "unmask": "the sum, at the coordinator"}


def costs(python: str, turns: int) -> str:
    """Both on the same work, in turns; of each the quickest turn, and the ratios' range over turns."""
    rows = []
    for case in (*CASES, *ALONE):
        mine, theirs = [], []
        for _ in range(turns if case in CASES else 1):
            mine.append(ours(*case))
            if case in CASES:
                theirs.append(flowers(python, *case))
        for what, words in WORK.items():
            ratios = [other[what] / one[what] for one, other in zip(mine, theirs, strict=False)]
            rows.append([f"{case[0]} sites, {case[1]} drop out, {case[2]:,} numbers: {words}", _least(mine, what),
                         _least(theirs, what), f"{_digits(min(ratios), 2)} to {_digits(max(ratios), 2)}" if ratios else "",
                         *(f"{one[0][what + ' bytes']:,}" if one and what != "unmask" else "" for one in (mine, theirs))])
    return table(("work of one site", "ours, CPU ms", "SecAgg+, CPU ms", "times ours", "ours, bytes", "SecAgg+, bytes"), rows)


def _least(turns: list[dict[str, float]], what: str) -> str:
    return _digits(1000 * min(turn[what] for turn in turns), 3) if turns else ""


def _digits(number: float, digits: int) -> str:
    """So many of them, and no exponent."""
    return f"{float(f'{number:.{digits}g}'):.10g}"


def main() -> None:
    """Fill the page's tables; the costs only if there is something to compare with."""
    parser = argparse.ArgumentParser(description="What secure sums cost, and what colluders get.")
    parser.add_argument("--flower", metavar="PYTHON", help="an interpreter with flwr 1.42; without it costs are not measured")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    fill(PAGE, "bounds", bounds_table())
    fill(PAGE, "thresholds", thresholds_table())
    fill(PAGE, "signed", signed_table())
    if asked.flower is not None:
        fill(PAGE, "costs", costs(asked.flower, asked.turns))


if __name__ == "__main__":
    main()
