"""Whom selections ask, without training: how far the weight of who is asked lies from what was agreed, and who waits.

    python -m benchmarks.selection

Twelve members of equal weight, four asked in a round. One refuses whenever it is asked. Losses are made up, from 0.1 to 0.65,
and do not change: the most that `power_of_choice` can lean. A mean of 200 runs, each with a name of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from fedround.selection import Chance, MemberRecord, PowerOfChoice, Random, Reliable, selected

NAMES = tuple(f"s{number:02d}" for number in range(12))
LOSS = {name: 0.1 + 0.05 * number for number, name in enumerate(NAMES)}
REFUSES = NAMES[5]
SELECTIONS = {
    "`random`": Random(sites=4), "`random`, `within = 3`": Random(sites=4, within=3),
    "`reliable`": Reliable(sites=4), "`reliable`, `within = 6`": Reliable(sites=4, within=6),
    "`power_of_choice`, 8 candidates": PowerOfChoice(sites=4, candidates=8),
    "`power_of_choice`, 8 candidates, `within = 6`": PowerOfChoice(sites=4, candidates=8, within=6)}
RUNS, ROUNDS = 200, (10, 40)


def played(how: Random | Reliable | PowerOfChoice, run: str, rounds: int) -> list[tuple[str, ...]]:
    """Who is asked in each round."""
    seen, found = list[dict[str, bool]](), list[tuple[str, ...]]()
    for number in range(1, rounds + 1):
        past = dict.fromkeys(NAMES, MemberRecord())
        for one in seen[len(seen) - min(how.looks_back, len(seen)):]:
            for name, standing in past.items():
                past[name] = (replace(standing, rested=standing.rested + 1) if name not in one else MemberRecord(
                    asked=standing.asked + 1, used=standing.used + one[name],
                    loss=LOSS[name] if one[name] else standing.loss))
        asked = selected(how, NAMES, dict.fromkeys(NAMES, 1.0), past, Chance(run, number))
        seen.append({name: name != REFUSES for name in asked})
        found.append(asked)
    return found


def main() -> None:
    """Print the table."""
    print("| selection | moved, 10 rounds | moved, 40 | asked least, of 40 | asked most | who refuses | longest wait |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for words, how in SELECTIONS.items():
        runs = [played(how, f"run-{number}", ROUNDS[-1]) for number in range(RUNS)]
        moved = [100 * np.mean([_moved(run[:rounds]) for run in runs]) for rounds in ROUNDS]
        times = [Counter(name for asked in run for name in asked) for run in runs]
        others = [[one[name] for name in NAMES if name != REFUSES] for one in times]
        print(f"| {words} | {moved[0]:.0f} % | {moved[1]:.0f} % | {np.mean([min(one) for one in others]):.1f} | "
              f"{np.mean([max(one) for one in others]):.1f} | {np.mean([one[REFUSES] for one in times]):.1f} | "
              f"{np.mean([max(_longest(run, name) for name in NAMES) for run in runs]):.1f} |")


def _moved(rounds: list[tuple[str, ...]]) -> float:
    """The total variation distance between who was asked and equal shares."""
    times = Counter(name for asked in rounds for name in asked)
    return float(sum(abs(times[name] / sum(times.values()) - 1 / len(NAMES)) for name in NAMES) / 2)


def _longest(rounds: list[tuple[str, ...]], name: str) -> int:
    """The most rounds in a row in which a member was not asked."""
    longest = waited = 0
    for asked in rounds:
        waited = 0 if name in asked else waited + 1
        longest = max(longest, waited)
    return longest


if __name__ == "__main__":
    main()
