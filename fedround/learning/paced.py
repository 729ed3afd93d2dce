"""What of an agreement does not go with a pace at which answers to earlier plans count, in words."""

from __future__ import annotations

from fedround.aggregation.spec import Aggregation, uses_weights
from fedround.aggregation.staleness import Pace
from fedround.learning.spec import Training
from fedround.learning.trees.spec import Trees
from fedround.privacy.spec import PersonPrivacy, Privacy, RecordPrivacy


def objection_to_pace(pace: Pace, training: Training, privacy: Privacy, how: Aggregation, *, summed: bool,
                      chosen: bool) -> str | None:
    """Why the rest of an agreement does not go with `pace`; None if it does.

    Mostly for one reason: what is added up there comes from one base model, and these answers come from several.
    summed: whether members' numbers are added up under masks. chosen: whether a round asks some members only.
    """
    graded = privacy if isinstance(privacy, RecordPrivacy | PersonPrivacy) else None
    algorithm = training.algorithm
    objections = {
        "under masks, keys and noise are shared by those who answer one plan together: leave 'combine' out, or [pace]":
            summed,
        "sums of trees are of one base model, and say nothing about the next: leave [pace] out":
            isinstance(training, Trees),
        f"what '{algorithm.name}' keeps and serves is of one base model: agree on 'plain' or 'fedprox'":
            bool(algorithm.serves or algorithm.keeps),
        "fairness compares losses of one base model: leave 'fairness' out": how.fairness is not None,
        "the clip norm follows counts of one round, and answers to earlier plans counted against other norms: leave "
        "privacy.adaptive out": graded is not None and graded.adaptive is not None,
        "dp_ftrl takes its rows round by round, and who answers seldom would pay for passes that it does not make: agree on "
        "the mechanism 'dp_sgd'": graded is not None and graded.mechanism == "dp_ftrl",
        "who is asked follows from who still works: leave [selection] and [choices] sites out": chosen,
        f"staleness lowers weights, and {how} counts every site the same: say staleness = \"constant\", or agree on a rule "
        "that uses weights": pace.staleness != "constant" and not uses_weights(how),
    }
    return next((f"pace: {words}" for words, holds in objections.items() if holds), None)
