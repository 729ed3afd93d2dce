"""What a coordinator and some members who work together can learn of a slot, for every setting and any number of them.

docs/secure-sums.md has the proof and the table, tests/fedround/secure_sums/test_equivocation.py looks at every lie.
"""

from __future__ import annotations

from fedround.errors import ToleranceError
from fedround.secure_sums.spec import Consistency, SecureSum


def fewest_honest(spec: SecureSum, members: int, colluders: int) -> int:
    """Over how few honest members a sum is that the coordinator can learn with so many colluders, who may be more than
    `spec.colluders`. 1: the numbers of one member.
    """
    honest, threshold = spec.smallest(members) - colluders, spec.threshold
    if colluders >= threshold or (spec.dropouts > 0 and 2 * threshold <= members + colluders):
        return 1
    return max(1, honest - spec.model_copy(update={"colluders": colluders}).cut(members))


def most_colluders(threshold: int, dropouts: int, members: int, consistency: Consistency = "counted") -> int | None:
    """With how many colluders at most these settings hold; None: with none at all."""
    holding = None
    for colluders in range(members):
        try:
            SecureSum(threshold=threshold, dropouts=dropouts, colluders=colluders, consistency=consistency).check(members)
        except ToleranceError:
            break
        holding = colluders
    return holding


def opened_by(spec: SecureSum, members: int) -> int:
    """How many colluders the coordinator needs to read one member's numbers."""
    return next(colluders for colluders in range(members) if fewest_honest(spec, members, colluders) == 1)
