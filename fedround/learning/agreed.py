"""What of an agreement does not go with its learner, whichever that is."""

from __future__ import annotations

from typing import assert_never

from fedround.aggregation.spec import Aggregation
from fedround.compression.spec import Compression
from fedround.learning.algorithms import Ditto
from fedround.learning.foreign.agreed import objection_to_foreign
from fedround.learning.foreign.spec import Foreign
from fedround.learning.spec import LocalTraining, Parts, ServerOptimizer, Training
from fedround.learning.trees.agreed import objection_to_trees
from fedround.learning.trees.spec import Trees
from fedround.learning.union.spec import UnionStep
from fedround.privacy.spec import Privacy


def objection_to_learner(training: Training, privacy: Privacy, optimizer: ServerOptimizer, how: Aggregation,
                         compression: Compression | None, parts: Parts, personal: Ditto | None) -> str | None:
    """Why the rest of an agreement does not go with the learner; None if it does."""
    if (why_not := training.objection_to(privacy) or training.algorithm.objection_to(compression, how)) is not None:
        return why_not
    match training:
        case LocalTraining():
            return None if personal is None else personal.objection(training)
        case Trees():
            return objection_to_trees(training, privacy, optimizer, how, compression, parts, personal)
        case Foreign():
            return objection_to_foreign(privacy, how, parts, personal)
        case UnionStep():
            return None         # sums say it: `fedround.learning.union.agreed`
        case _:
            assert_never(training)
