"""What the last `fedround verify` of a run found, as its pages and the index say it.

A note beside the pages, for people. Nobody signs it, and nothing is decided by it: whoever doubts it proves the run again.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from fedround.values import Value
from tasks.reporting.record import RoundRecord
from tasks.reporting.words import moment


class Verified(Value):
    """One proof of a run: how far it came, and what did not hold."""

    run: str
    at: AwareDatetime
    """By the clock of the machine that did it."""
    commits: tuple[str, ...]
    """Digests of the commits that were proven, from round 0 on."""
    signatures: Annotated[int, Field(ge=0)]
    hashes: Annotated[int, Field(ge=0)]
    recomputed: Annotated[int, Field(ge=0)]
    """How many rounds' models were computed again from the sites' updates."""
    lost: tuple[str, ...] = ()
    """Sites that altered or took away what they had signed. All the rest holds."""
    problem: str = ""
    """The first thing that does not hold; nothing is proven from there on. Empty: all holds."""

    @property
    def reached(self) -> str:
        """The last round that is proven, in words."""
        return f"round {len(self.commits) - 1}" if self.commits else "no round"


def verdict(verified: Verified | None, record: RoundRecord) -> str:
    """One of "never", "failed", "not this round", "another commit", "in part", "holds", for the record's round."""
    if verified is None:
        return "never"
    if verified.problem:
        return "failed"
    if record.round >= len(verified.commits):
        return "not this round"
    if record.lineage is not None and record.lineage.commit != verified.commits[record.round]:
        return "another commit"
    return "in part" if verified.lost else "holds"


def is_doubtful(verified: Verified | None, record: RoundRecord) -> bool:
    """Whether the proof found something that a reader must not overlook."""
    return verdict(verified, record) in {"failed", "another commit", "in part"}


def said_of(verified: Verified | None, record: RoundRecord) -> str:
    """What the last proof says of a round, in sentences."""
    if verified is None:
        return f"never, in this folder: 'fedround verify {record.run}' writes here what it finds"
    when, proven = moment(verified.at), f"the run is proven up to {verified.reached}"
    match verdict(verified, record):
        case "failed":
            return f"{when}: it does not hold. {verified.problem}. Before that, {proven}"
        case "not this round":
            return f"{when}: {proven}; this round came later"
        case "another commit":
            return (f"{when}: {proven}, but the commit of round {record.round} that the store has is "
                    f"{verified.commits[record.round]}, not the one that this page tells")
        case _:
            but = f", but not what {', '.join(verified.lost)} signed: it was altered or is gone" if verified.lost else ""
            again = (f"{verified.recomputed} of {len(verified.commits) - 1} models computed again from the sites' updates"
                     if verified.recomputed else "no model was computed again (--recompute)")
            return f"{when}: {proven}{but}; {verified.signatures} signatures, {verified.hashes} hashes, {again}"


def in_short(verified: Verified | None, record: RoundRecord) -> str:
    """The same for a table of runs. record: the run's last."""
    if verified is None:
        return "–"
    words = {"failed": "does not hold", "not this round": f"up to {verified.reached}", "another commit": "another commit",
             "in part": f"holds, but for {', '.join(verified.lost)}", "holds": "holds"}
    return f"{words[verdict(verified, record)]}, {moment(verified.at)}"
