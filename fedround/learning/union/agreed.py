"""What of an agreement does not go with secure sums, in words."""

from __future__ import annotations

from fedround.aggregation.spec import Aggregation
from fedround.compression.spec import Compression
from fedround.learning.algorithms import Ditto
from fedround.learning.foreign.spec import Foreign
from fedround.learning.spec import LocalTraining, Parts, Training
from fedround.learning.union.spec import UnionStep
from fedround.privacy.spec import NoPrivacy, PersonPrivacy, Privacy, RecordPrivacy, SitePrivacy


def objection_to_sums(training: Training, privacy: Privacy, aggregation: Aggregation | None, compression: Compression | None,
                      parts: Parts, personal: Ditto | None, beside: tuple[str, ...]) -> str | None:
    """Why the rest of an agreement does not go with `combine`; None if it does.

    Mostly for one reason: nobody sees what a single site sent, so nobody can judge it or weigh it.
    aggregation: as it was agreed; None: nothing was said. beside: names of other settings that were agreed on, of those that
    read single updates or count single sites' rows otherwise.
    """
    graded = privacy if isinstance(privacy, RecordPrivacy | PersonPrivacy) else None
    return _first({
        "updates are added up and seen by nobody, so no rule, gate, history or fairness can judge or weigh one: leave "
        "[aggregation] out, or leave combine out": aggregation is not None,
        "masks hide numbers of a fixed length, and what compression keeps back of one site's update cannot be told: leave "
        "[compression] out": compression is not None,
        "noise is shared in one release a round, and steps at a site need the whole of it in each: agree on the learner "
        "'union_step', or on trees": isinstance(training, LocalTraining | Foreign),
        "one sum without noise tells of its rows what it tells, whoever adds it up, and has no public bound that says how "
        "long it is: agree on the unit 'record' or 'person'": isinstance(privacy, NoPrivacy),
        "under the unit 'site' all of a site's update is hidden by noise as long as the update, whether or not others add "
        "theirs: agree on the unit 'record' or 'person'": isinstance(privacy, SitePrivacy),
        "noise from a tree is one site's own, over its own steps: agree on the mechanism 'dp_sgd'":
            graded is not None and graded.mechanism != "dp_sgd",
        "the clip norm cannot follow counts that nobody sees of one site: leave privacy.adaptive out":
            graded is not None and graded.adaptive is not None,
        "a part that stays at a site, and a personal model, are trained by steps of the site's own: leave parts.private and "
        "[personal] out": bool(parts.private) or personal is not None,
        f"{beside[0] if beside else ''} goes by what single sites sent or have: leave it out": bool(beside),
    })


def objection_without_sums(training: Training) -> str | None:
    """Why a learner needs `combine`, where there is none; None if it does not."""
    if isinstance(training, UnionStep):
        return ("the learner 'union_step' adds up what all sites found, with noise that they share: agree on combine = "
                "{name = \"secure_sum\", threshold = …, dropouts = …, colluders = …}, or on steps at the sites")
    return None


def _first(objections: dict[str, bool]) -> str | None:
    return next((f"combine: {words}" for words, holds in objections.items() if holds), None)
