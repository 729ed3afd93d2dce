"""The accountant in a child process, for a long-lived process that rarely needs it.

The accountant imports scipy: 70 MB that a site would hold for good. `settle` has it answer from a child instead, which begins
with the first question and ends with `rest`; what was answered is remembered here. A campaign asks one question a round, the
same again and one round more. So a child answers ahead, for the rounds to come, and most rounds need none.

The numbers are those that this process would compute: floats travel as text that is read back to the last bit.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedround.errors import SetupError
from fedround.parent import as_parent, end_with_parent
from fedround.privacy import accounting
from fedround.privacy.accounting import Composed

AHEAD = 8
"""For how many coming rounds a child answers in advance."""

_REMEMBERED = 1024
_PATIENCE_S = 600.0


def settle() -> Apart:
    """From now on no question is answered in this process. Call `rest` on the returned value after the last question."""
    apart = Apart()
    accounting.ask(apart)
    return apart


class Apart:
    """Questions to a child, and its answers."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._known: dict[Composed, float] = {}
        self._asked: list[Composed] = []
        """Before the last `rest`, oldest first."""
        self._now: list[Composed] = []

    def __call__(self, asked: Composed) -> float:
        """As `accounting.total`. Raises SetupError if the child dies or is silent for ten minutes."""
        if asked not in self._known:
            self._known |= self._answered(asked)
        self._now.append(asked)
        return self._known[asked]

    def rest(self) -> None:
        """End the child, if there is one, and wait for its end."""
        self._asked, self._now = [*self._asked, *self._now][-_REMEMBERED:], []
        self._known = dict([*self._known.items()][-_REMEMBERED:])
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _answered(self, asked: Composed) -> Mapping[Composed, float]:
        """The answer, and the answers to the questions that are expected next, judging from this one and an earlier one."""
        questions = [asked, *ahead(asked, next((old for old in reversed(self._asked) if steps(old, asked)), None))]
        try:
            answers = self._converse(json.dumps([asdict(question) for question in questions]))
        except (OSError, ValueError):
            self.rest()
            raise SetupError("the accountant's process ended without an answer; is there enough memory? The round can be run "
                             "again: what was charged is not charged twice") from None
        return dict(zip(questions, answers, strict=True))

    def _converse(self, line: str) -> list[float]:
        if self._child is None:
            # The child needs no secret of this process, and gets none.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                                                "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **as_parent()})
        print(line, file=self._child.stdin, flush=True)
        answers = self._child.stdout
        if answers is None or not select.select([answers], [], [], _PATIENCE_S)[0]:
            raise TimeoutError
        found: list[float] = json.loads(answers.readline())
        return found


def steps(old: Composed, new: Composed) -> bool:
    """Whether `new` asks about all that `old` does, and more."""
    return old != new and old.delta_dp == new.delta_dp and all(
        Counter(dict(before)) <= Counter(dict(after))
        for before, after in ((old.sampled, new.sampled), (old.precisions, new.precisions)))


def ahead(asked: Composed, old: Composed | None) -> list[Composed]:
    """The next questions, assuming that the difference between `old` and `new` repeats."""
    if old is None or asked.later:      # a later campaign's cost does not follow from the first one's
        return []

    def further(before: tuple[tuple[Any, int], ...], now: tuple[tuple[Any, int], ...], turn: int) -> tuple[Any, ...]:
        past = dict(before)
        return tuple((one, times + turn * (times - past.get(one, 0))) for one, times in now)

    return [Composed(further(old.sampled, asked.sampled, turn), further(old.precisions, asked.precisions, turn),
                     asked.delta_dp) for turn in range(1, AHEAD + 1)]


def _read(question: dict[str, Any]) -> Composed:
    """All of the question again, from JSON, which has lists only."""
    return Composed(**{name: _as_tuples(said) for name, said in question.items()})


def _as_tuples(said: Any) -> Any:
    return tuple(map(_as_tuples, said)) if isinstance(said, list) else said


def _main() -> None:
    """The child: one list of questions a line, one list of answers a line, until nobody listens."""
    end_with_parent()
    for line in sys.stdin:
        answers = [accounting.total(_read(question)) for question in json.loads(line)]
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
