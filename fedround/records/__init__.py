"""The values that cross a boundary: one type each, frozen, strict, unknown keys refused.

::

    Plan        what the coordinator asks of one round:       where it stands, what is agreed, and one question
    Answer      what a site says to it:                       releases, and with a question to train an update
    Refusal     a site's "no"
    Commit      how a model came to be
    PartialSum  what a region's updates add up to, by its regional coordinator
    Finding     what came of a question that makes no model
    Checkpoint  what a model is

Everything here can be written as JSON and read back unchanged. Nothing here holds a tensor, a record or a secret.
Units are in the names (`deadline_s`, `size_bytes`); `epsilon` is privacy spent, `delta_dp` a probability, and `delta`
alone is a model change.
"""

from fedround.records.committed import (
    Begun,
    Checkpoint,
    Commit,
    CommittedRefusal,
    CommittedUpdate,
    Finding,
    Rejection,
    Score,
    SiteLedger,
    SiteMemory,
    SiteWeight,
    Summed,
    SummedRegion,
)
from fedround.records.cosigned import Cosignature
from fedround.records.partial import Counted, PartialSum
from fedround.records.plan import Exclusion, LogHead, Plan, Ticket
from fedround.records.questions import (
    QUESTIONS,
    Blob,
    Countersign,
    Countersigned,
    DealShares,
    Evaluate,
    Join,
    Measure,
    OfferKeys,
    Placed,
    Question,
    Reveal,
    Sighted,
    Slot,
    Told,
    Train,
    named,
)
from fedround.records.said import ANSWERS, Answer, Masked, Reason, Refusal, SiteAnswer, Update

__all__ = [
    "ANSWERS", "QUESTIONS", "Answer", "Begun", "Blob", "Checkpoint", "Commit", "CommittedRefusal", "CommittedUpdate",
    "Cosignature", "Counted", "Countersign", "Countersigned", "DealShares", "Evaluate", "Exclusion", "Finding", "Join",
    "LogHead", "Masked", "Measure", "OfferKeys", "PartialSum", "Placed", "Plan", "Question", "Reason", "Refusal",
    "Rejection", "Reveal", "Score", "Sighted", "SiteAnswer", "SiteLedger", "SiteMemory", "SiteWeight", "Slot", "Summed",
    "SummedRegion", "Ticket", "Told", "Train", "Update", "named",
]
