"""Proof of a sum that was read under masks: who was asked to reveal what, and that the sum is what the answers give.

Every signature and every digest of the keys, the dealt shares and the reveals is checked. Whoever may read the sites' answers
computes the sum again from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from fedround.errors import ChainError, ContractError, LostError, QuorumError, StoreDeniedError, TrustError
from fedround.federation import Federation
from fedround.records import Answer, Plan, Reveal, Summed, Told
from fedround.secure_sums.revealing import Reveals
from infra.epochs import check_countersigned, read_epoch
from infra.history import read_plan_at
from infra.stores import ObjectStore
from tasks import evidence
from tasks.collected import Sum
from tasks.plan import Planned
from tasks.unmask import by_group, read_sum

_OF_ITS_PLAN = ("federation", "federation_digest", "log", "run", "parent", "base_model", "rest", "agreed")


@dataclass(frozen=True)
class SumProof:
    """What was proven of one sum."""

    plan: Plan
    """That asked for the reveals."""
    revealed: tuple[str, ...]
    signatures: int
    sum: Sum | None
    """The sum, computed again; None: what it is made of may not be read here, or is gone."""
    gone: Mapping[str, str]
    """By site: what it has altered or taken away since, in words."""


def prove_sum(store: ObjectStore, key: str, members: Federation, planned: Planned, said: Summed | None,
              told: Sequence[Told], answers: Mapping[str, Answer]) -> SumProof:
    """Prove how the sum of the answers in `told` was read.

    key: the coordinator's. members: the federation file that holds for the plan. answers: those that may be read, proven.
    Raises ChainError or TrustError for what does not hold. What only a member can have altered is not read, and no sum then.
    """
    plan, source = planned.plan, f"sum of {planned.in_words}"
    if said is None or plan.asks.slot is None:
        raise ChainError(f"{source}: its plan has its answers masked, and nothing says how their sum was read")
    reveal, named = read_plan_at(store, plan.run, said.reveal.round, said.reveal.attempt, "reveal", key)
    if named != said.reveal.digest:
        raise ChainError(f"{source}: another plan to reveal than the one that is named lies there")
    asks = reveal.asks
    if not isinstance(asks, Reveal) or asks.of != planned.digest or any(
            getattr(reveal, field) != getattr(plan, field) for field in _OF_ITS_PLAN):
        raise ChainError(f"{source}: what was revealed is about another plan")
    if sorted((one.site, one.answer) for one in asks.survivors) != sorted((one.site, one.answer) for one in told):
        raise ChainError(f"{source}: shares were revealed for the sum of other answers than those that are named")
    check_countersigned(store, key, members, reveal, source)
    epoch = read_epoch(store, key, members, plan.run, plan.federation_digest, plan.asks.slot.dealt)
    if not epoch.is_whole or {*asks.dropped, *(one.site for one in asks.survivors)} != epoch.dealt.keys():
        raise ChainError(f"{source}: not everybody who dealt shares is in the sum or dropped out of it")
    found, vectors, gone = dict[str, Reveals](), dict[str, bytes](), dict[str, str]()
    for one in said.reveals:
        with _of_a_member(one.site, gone):
            answer = evidence.answer(store, members, reveal, named, one)
            found[one.site] = Reveals.from_bytes(evidence.file(store, reveal, answer), f"what '{one.site}' revealed")
    for site, answer in sorted(answers.items()):
        with _of_a_member(site, gone):
            vectors[site] = evidence.file(store, plan, answer)
    listed = 0 if asks.countersigned is None else 1 + len(asks.countersigned.by)
    signatures = 1 + 2 * len(epoch.dealt) + 4 + len(found) + listed
    if len(found) < len(said.reveals) or len(vectors) < len(told):
        return SumProof(reveal, tuple(found), signatures, None, gone)
    try:
        totals = by_group(epoch, planned, ((site, np.frombuffer(vector, "<u4")) for site, vector in vectors.items()))
        again = read_sum(epoch, members, planned, Planned(reveal, named, planned.parent), totals, found, said.reveals)
    except (QuorumError, ContractError) as error:
        raise TrustError(f"{source}: {error}") from None
    if again.said != said:
        raise ChainError(f"{source}: names others whose shares are wrong than those whose are")
    return SumProof(reveal, tuple(found), signatures, again, gone)


@contextmanager
def _of_a_member(site: str, gone: dict[str, str]) -> Iterator[None]:
    """Around reading what a member signed: it may have altered it since, and this credential may not read it."""
    try:
        yield
    except StoreDeniedError:
        return
    except LostError as error:
        gone[site] = str(error)
