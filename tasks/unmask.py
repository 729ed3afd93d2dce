"""From masked answers to their sum: who is asked to reveal, and what the sum says.

The same functions serve the coordinator that concludes and the auditor who checks: the sum is a function of signed documents
and of the bytes that they name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from fedround import __version__, codec, layout
from fedround.errors import ContractError, DealtWrongError, QuorumError
from fedround.federation import Federation
from fedround.records import (
    Countersign,
    Countersigned,
    Finding,
    Placed,
    Plan,
    Reveal,
    Sighted,
    Summed,
    Told,
)
from fedround.rounds import summed
from fedround.rounds.offer import offer
from fedround.secure_sums.groups import groups_of
from fedround.secure_sums.revealing import Rebuilt, Reveals, rebuilt
from fedround.signing import digest, seal
from fedround.values import Digest, Name
from infra.epochs import Epoch, known_epoch
from infra.stores import publish, put_first
from tasks import epochs
from tasks.collect import with_part
from tasks.collected import Admitted, Collected, Sum
from tasks.coordinator import Coordinator
from tasks.plan import Planned, publish_plan
from tasks.quorum import check_quorum

UInt32 = npt.NDArray[np.uint32]


# -- who is asked ------------------------------------------------------------------------------------------------------


def plan_countersign(coordinator: Coordinator, planned: Planned, collected: Collected) -> Planned:
    """Ask those whose masked answers were admitted to sign that the sum is of these answers, and of no others.

    Whose they are is decided once: a plan that stands is taken again, whoever has answered since.
    Raises QuorumError, and nobody is asked, if too few answered: the same plan can be asked again.
    """
    if (standing := epochs.about_sum(coordinator, planned.plan, planned.digest, "countersign")) is not None:
        return Planned(*standing, planned.parent)
    of, survivors, handed_on, dropped = _whose(coordinator, planned, collected)
    return _publish(coordinator, planned, Countersign(of=of, survivors=survivors, handed_on=handed_on, dropped=dropped))


def is_signed(listed: Planned, signed: Collected) -> bool:
    """Whether as many members signed who is in the sum as must."""
    how = listed.plan.agreed.combine
    return how is not None and len(signed.admitted) >= how.threshold


def plan_reveal(coordinator: Coordinator, planned: Planned, collected: Collected, listed: Planned | None = None,
                signed: Collected | None = None) -> Planned:
    """Ask them to reveal their shares for the sum of these answers, and of no others.

    listed, signed: where members sign who is in the sum, the plan that they answered, and who did.
    Decided once, and raises, as `plan_countersign`. Raises QuorumError, too, if too few signed: then the sum is lost, and
    that is written down.
    """
    if (standing := epochs.about_sum(coordinator, planned.plan, planned.digest, "reveal")) is not None:
        return Planned(*standing, planned.parent)
    if listed is None or signed is None:
        of, survivors, handed_on, dropped = _whose(coordinator, planned, collected)
        return _publish(coordinator, planned, Reveal(of=of, survivors=survivors, handed_on=handed_on, dropped=dropped))
    if not is_signed(listed, signed):
        give_up(coordinator, planned, listed, signed, QuorumError(f"{_threshold(planned.plan)} must"))
    if not isinstance(listed.plan.asks, Countersign):
        raise ContractError(f"{planned.in_words}: what members signed does not say who is in the sum")
    of, survivors, handed_on, dropped = listed.plan.asks.whose
    at = Placed(round=listed.plan.round, attempt=listed.plan.attempt, digest=listed.digest)
    return _publish(coordinator, planned, Reveal(
        of=of, survivors=survivors, handed_on=handed_on, dropped=dropped, countersigned=Countersigned(asked=at, by=tuple(
            Sighted(site=site, sighting=one.answer.sighting) for site, one in sorted(signed.admitted.items())))))


def _whose(coordinator: Coordinator, planned: Planned,
           collected: Collected) -> tuple[Digest, tuple[Told, ...], Digest, tuple[Name, ...]]:
    """As `Reveal.whose`: of the answers that are there. They are handed on to all."""
    plan, epoch = planned.plan, _epoch(coordinator, planned.plan)
    collected = with_part(epoch.dealt, plan, collected)
    check_quorum(planned, collected)
    survivors = tuple(Told(site=site, answer=one.digest) for site, one in sorted(collected.admitted.items()))
    together = b"\n".join(collected.admitted[told.site].document for told in survivors)
    publish(coordinator.store, layout.relayed(plan.run, handed_on := digest(together)), together, sha256=handed_on)
    return planned.digest, survivors, handed_on, tuple(sorted(epoch.dealt.keys() - collected.admitted.keys()))


def _publish(coordinator: Coordinator, planned: Planned, asks: Countersign | Reveal) -> Planned:
    """A plan about the sum, as the plan whose answers it is of."""
    plan = planned.plan
    return publish_plan(coordinator, planned.parent, plan.model_copy(update={
        "round": plan.continues, "cohort": tuple(told.site for told in asks.survivors), "excluded": (), "unasked": (),
        "enough": None, "asks": asks, "tool_version": __version__}))


def survivors_of(plan: Plan) -> tuple[str, ...]:
    """Whose answers a plan adds up."""
    return tuple(told.site for told in plan.asks.survivors) if isinstance(plan.asks, Reveal) else ()


def _threshold(plan: Plan) -> int:
    return 0 if plan.agreed.combine is None else plan.agreed.combine.threshold


def why_lost(coordinator: Coordinator, planned: Planned, reveal: Planned, said: Collected) -> QuorumError | None:
    """What keeps the sum from being read with what was revealed so far; None: nothing does."""
    try:
        _rebuilt(_epoch(coordinator, planned.plan), planned, reveal.plan, _reveals(said))
    except QuorumError as error:
        return error
    return None


def why_not_added(reveal: Planned, collected: Collected) -> QuorumError | None:
    """Which region no longer gives the partial sum that members were asked about; None: none, or there are no regions."""
    if collected.regional is None:
        return None
    counted = {one.site for part in collected.regional.parts for one in part.said.counted}
    gone = next((site for site in survivors_of(reveal.plan) if site not in counted), None)
    return None if gone is None else QuorumError(f"What the region of '{gone}' had added up is gone, or does not hold")


def suffices(coordinator: Coordinator, planned: Planned, reveal: Planned, said: Collected) -> bool:
    """Whether nobody else need reveal: the sum can be read, or nobody can change that it cannot."""
    how = planned.plan.agreed.combine
    if how is None or len(said.admitted) < how.threshold:
        return False
    lost = why_lost(coordinator, planned, reveal, said)
    return lost is None or isinstance(lost, DealtWrongError)


def give_up(coordinator: Coordinator, planned: Planned, reveal: Planned, said: Collected, why: QuorumError) -> NoReturn:
    """Write down that the sum is lost: too few signed or revealed, or a member has dealt what is no secret. The next attempt
    has a new slot and new noise, and goes well once that member is gone.

    reveal: the plan about the sum that was answered so.
    """
    finding = Finding(
        federation=reveal.plan.federation, run=reveal.plan.run, round=reveal.plan.round, attempt=reveal.plan.attempt,
        plan=reveal.digest, answers=_told(said), refusals=tuple(no.committed for _, no in sorted(said.refused.items())),
        rejected=tuple(no for _, no in sorted(said.rejected.items())), missing=said.missing, tool_version=__version__)
    place = layout.finding(reveal.plan.run, reveal.plan.round, reveal.plan.attempt, reveal.plan.asks.kind)
    put_first(coordinator.store, place, seal(finding, coordinator.identity))
    did = ("signed who is in the sum of their answers" if isinstance(reveal.plan.asks, Countersign)
           else "revealed what takes the masks off the sum of their answers")
    raise QuorumError(
        f"{planned.in_words}: {len(said.admitted)} of {len(reveal.plan.cohort)} sites {did}. {why}. The sum is "
        "lost, nothing is committed, and what it cost stays charged. Run it again: that is a new attempt, with new noise")


# -- what the sum says -------------------------------------------------------------------------------------------------


def unmask_sum(coordinator: Coordinator, planned: Planned, collected: Collected, reveal: Planned,
               said: Collected) -> Collected:
    """The answers that are added up, and what their sum says. Others that came count as missing, or, where no sum with these
    keys can hold them, as rejected.
    """
    survivors, epoch = survivors_of(reveal.plan), _epoch(coordinator, planned.plan)
    collected = with_part(epoch.dealt, planned.plan, collected)
    late = {site for site in collected.admitted if site not in survivors}
    admitted = {site: one for site, one in collected.admitted.items() if site in survivors}
    if collected.regional is not None:
        parts = (np.fromfile(part.path, dtype="<u4") for part in collected.regional.parts)
        totals = [functools.reduce(np.add, parts)]
    else:
        totals = by_group(epoch, planned, ((site, np.fromfile(_file(one), dtype="<u4")) for site, one in admitted.items()))
    found = read_sum(epoch, coordinator.federation, planned, reveal, totals, _reveals(said), _told(said))
    return replace(collected, admitted=admitted, missing=tuple(sorted({*collected.missing, *late})), sum=found)


def by_group(epoch: Epoch, planned: Planned, vectors: Iterable[tuple[str, UInt32]]) -> list[UInt32]:
    """What these sites sent, added up: one sum of all, or of each group, in their order. Raises ContractError if of a whole
    group nobody is among them.
    """
    groups = _groups(epoch, planned)
    group_of = {site: place for place, group in enumerate(groups) for site in group}
    totals: dict[int, UInt32] = {}
    for site, vector_S in vectors:
        place = group_of[site]
        totals[place] = vector_S if place not in totals else totals[place] + vector_S
    if len(totals) < len(groups):
        raise ContractError(f"{planned.in_words}: of a whole group nobody is in the sum")
    return [totals[place] for place in range(len(groups))]


def _groups(epoch: Epoch, planned: Planned) -> tuple[tuple[str, ...], ...]:
    slot, how = planned.plan.asks.slot, planned.plan.agreed.combine
    if slot is None or how is None:
        raise ContractError(f"{planned.in_words}: its answers are not masked")
    return groups_of(bytes.fromhex(epoch.offered.epoch), epoch.offered.roster, slot.number, how.groups)


def read_sum(epoch: Epoch, members: Federation, planned: Planned, reveal: Planned, totals: Sequence[UInt32],
             reveals: Mapping[str, Reveals], told: tuple[Told, ...]) -> Sum:
    """What the answers that `reveal` names say together.

    epoch: of the plan's slot. members: the federation file that holds for the plan. totals: what these sites sent, added up,
    as `by_group`.
    told: where the reveals come from.
    Raises QuorumError if too few revealed shares rightly, and DealtWrongError, naming the member, if what it dealt is none.
    """
    plan, slot = planned.plan, planned.plan.asks.slot
    found, groups = _rebuilt(epoch, planned, reveal.plan, reveals), _groups(epoch, planned)
    if slot is None:
        raise ContractError(f"{planned.in_words}: its answers are not masked")
    mechanisms = offer(plan.asks, plan.agreed, 1, lambda _: True).mechanisms
    parts = summed.layout(plan.asks, plan.agreed, codec.coordinates(plan.sent), mechanisms)
    survivors = survivors_of(reveal.plan)
    inside = [[site for site in group if site in survivors] for group in groups]
    sums = [summed.Added(summed.out_of(parts, found.unmask(
        totals[place], epoch.offered.roster, slot.number, bytes.fromhex(planned.digest), group)), len(inside[place]),
        sum(members.site(site).rows or 0 for site in inside[place])) for place, group in enumerate(groups)]
    read = summed.read(plan.asks, plan.agreed, sums, mechanisms)
    return Sum(read, Summed(reveal=Placed(round=reveal.plan.round, attempt=reveal.plan.attempt, digest=reveal.digest),
                            reveals=told, wrong=found.wrong))


def _epoch(coordinator: Coordinator, plan: Plan) -> Epoch:
    """The keys that mask the answers to a plan."""
    if plan.asks.slot is None:
        raise ContractError(f"round {plan.round} of run '{plan.run}': its plan names no keys")
    return known_epoch(coordinator.store, coordinator.key, coordinator.federation, plan.run,
                       plan.federation_digest, plan.asks.slot.dealt)


def _rebuilt(epoch: Epoch, planned: Planned, reveal: Plan, reveals: Mapping[str, Reveals]) -> Rebuilt:
    slot, how, asks = planned.plan.asks.slot, planned.plan.agreed.combine, reveal.asks
    if slot is None or how is None or not isinstance(asks, Reveal):
        raise ContractError(f"{planned.in_words}: its answers are not masked")
    return rebuilt(bytes.fromhex(epoch.offered.epoch), epoch.offered.roster, epoch.dealt, slot.number, survivors_of(reveal),
                   asks.dropped, reveals, how.threshold)


def _file(admitted: Admitted) -> Path:
    if admitted.file is None:
        raise ContractError(f"what '{admitted.answer.site}' sent beside its answer is not on this disk")
    return admitted.file


def _reveals(said: Collected) -> dict[str, Reveals]:
    return {site: Reveals.from_bytes(_file(one).read_bytes(), f"what '{site}' revealed")
            for site, one in sorted(said.admitted.items())}


def _told(said: Collected) -> tuple[Told, ...]:
    return tuple(Told(site=site, answer=one.digest) for site, one in sorted(said.admitted.items()))
