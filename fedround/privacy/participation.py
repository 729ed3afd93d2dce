"""Which rounds a record takes part in, where rows go round by round in a fixed order (`DpFtrl`), and what is paid for it.

Round r takes the L = steps · batch_size rows from place (r - 1) L on, again from the first row after the last of N. Laid out
on a line they are the places (r - 1) L … r L - 1, cut into passes of N rows. L <= N, so a record is in one round of each pass
at most: in R rounds ceil(R L / N) times, and not R times. Each time it is in one tree (Kairouz et al. 2021, arXiv:2103.00039,
algorithm 2, begun anew); the other rounds of a pass depend on it only through what that tree released. So a record pays for
the passes that were touched, and the sequence of them composes adaptively (fixed participations: Choquette-Choo et al. 2023,
arXiv:2211.06530). A round that is answered twice, on the same rows, is paid for once more.

This holds as long as the rows and their order are the same; they are named by a digest. Other rows are counted anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedround.privacy.entries import Charge, without_clip_norm
from fedround.privacy.spec import DpFtrl, Mechanism


def times_paid(mechanism: Mechanism, rounds: int) -> int:
    """How often a record pays for this mechanism at most, if it is applied in the first so many rounds of a run."""
    if isinstance(mechanism, DpFtrl) and mechanism.rows is not None:
        return min(rounds, -(-rounds * mechanism.steps * mechanism.batch_size // mechanism.rows))
    return rounds


def times_left(mechanism: Mechanism, rounds: int) -> int:
    """The same of any so many rounds in sequence, wherever the first of them begins."""
    if isinstance(mechanism, DpFtrl) and mechanism.rows is not None and rounds > 0:
        return min(rounds, times_paid(mechanism, rounds) + 1)
    return rounds


def passes(mechanism: DpFtrl, round_number: int, rows: int) -> range:
    """The passes that a round touches: one or two."""
    taken = mechanism.steps * mechanism.batch_size
    first = (round_number - 1) * taken
    return range(first // rows, (first + taken - 1) // rows + 1)


def counted(charge: Charge, before: Iterable[Charge], rounds: int) -> Charge:
    """The charge, with how often each of its mechanisms counts.

    before: what was charged earlier. rounds: for so many the run's promise is; a round beyond them counts once at least.
    """
    earlier = [one for one in before if charge.order is not None and (
        one.federation, one.run, one.partition, one.order) == (
        charge.federation, charge.run, charge.partition, charge.order)]
    return charge.model_copy(update={"times": tuple(_times(one, charge, earlier, rounds) for one in charge.mechanisms)})


def _times(mechanism: Mechanism, charge: Charge, earlier: Iterable[Charge], rounds: int) -> int:
    if not isinstance(mechanism, DpFtrl) or mechanism.rows is None or charge.order is None:
        return 1
    alike = without_clip_norm(mechanism)
    answered = {one.round for one in earlier if alike in map(without_clip_norm, one.mechanisms)}
    if charge.round in answered:
        return 1
    touched = {number for one in answered for number in passes(mechanism, one, mechanism.rows)}
    new = len({*passes(mechanism, charge.round, mechanism.rows)} - touched)
    return max(1, new) if len(answered) >= rounds else new
