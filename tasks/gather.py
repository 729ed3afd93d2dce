"""The regions' partial sums: waited for, judged against what the members themselves signed, and made into one mean, or
into the one sum of masked answers from which masks come off (`tasks.unmask`).

A regional coordinator is believed in one thing: what its members' updates add up to. Whose answers count, with which weight,
and that each was given by the member, the coordinator knows from the members' own signed answers. The sum anybody can compute
again: an auditor each time, the coordinator for some regions in each round.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedround import codec
from fedround.aggregation.decide import Composition
from fedround.aggregation.engine import Aggregate, Standing
from fedround.aggregation.verdict import Verdict
from fedround.errors import FedroundError, StoreError
from fedround.records import PartialSum, Rejection, SummedRegion
from fedround.regions import sums
from fedround.regions.spec import Region
from fedround.rounds.server import Combined
from fedround.signing import digest
from fedround.values import Digest
from infra.epochs import who_dealt
from infra.federation_log import read_log
from infra.stores import Patience
from tasks import epochs, partial_sums
from tasks.collect import UNREADABLE, admit, last_look_s, with_part
from tasks.collected import Collected, Partial, Regional
from tasks.coordinator import Coordinator
from tasks.plan import Planned

log = logging.getLogger("fedround.coordinator")

_POLL_S = 0.3
"""One look at a region is one short question to the store."""

Signed = tuple[PartialSum, Digest]


async def gather(coordinator: Coordinator, planned: Planned, collected: Collected,
                 ended: Callable[[set[str]], Awaitable[set[str]]], patience: Patience | None = None) -> Collected:
    """Wait for the partial sums of all regions that were asked, as long as the sites had, and judge them: then `collected`
    holds as admitted whose updates are in a sum.

    A region whose coordinator says nothing, or what does not hold, is named; its members count as not admitted. The round
    goes on with the others. ended: which of some regions' flow runs have ended.
    """
    patience = patience or Patience(last_look_s(planned.plan))
    plan, decided = planned.plan, None
    if plan.asks.slot is not None:
        collected = with_part(who_dealt(coordinator.store, coordinator.key, plan.run, plan.federation_digest,
                                        plan.asks.slot.dealt), plan, collected)
        decided = epochs.decided(coordinator, plan, planned.digest)
    regions = {region.name: region for region in plan.agreed.regions if region.asked(plan.cohort)}
    found, why, waiting = dict[str, Signed](), dict[str, str](), {
        name for name, region in regions.items() if decided is None or decided & {*region.members}}
    while waiting:
        done, unread = await ended(set(waiting)), set[str]()
        late = patience.left_s <= 0
        for name in sorted(waiting):
            try:
                said = await asyncio.to_thread(partial_sums.newest, coordinator.store, planned, regions[name],
                                               decided)
            except UNREADABLE as error:
                why[name] = f"its partial sum cannot be read: {error}"
                unread.add(name)            # it may be at the next look
                continue
            except FedroundError as error:
                why[name] = str(error)
                waiting.discard(name)
                continue
            if said is not None:
                found[name] = said
                why.pop(name, None)
            if said is not None and (decided is not None or not collected.admitted.keys() & set(said[0].missing)):
                waiting.discard(name)
        waiting -= done - unread
        if late or not waiting:
            break
        await asyncio.sleep(min(_POLL_S, patience.left_s))
    return await asyncio.to_thread(settled, coordinator, planned, collected, found, why)


def settled(coordinator: Coordinator, planned: Planned, collected: Collected, found: Mapping[str, Signed],
            why: Mapping[str, str]) -> Collected:
    """Who counts, by the partial sums that hold. why: what is known of regions that gave none."""
    plan = planned.plan
    told, parts = list[SummedRegion](), list[Partial]()
    for region in sorted(plan.agreed.regions, key=lambda one: one.name):
        if not region.asked(plan.cohort):
            continue
        reason, said = why.get(region.name, "its coordinator gave no partial sum in time"), found.get(region.name)
        if said is not None:
            collected = _heard_of_all(coordinator, planned, collected, said[0])
            try:
                reason = _objection(coordinator, planned, collected, said[0])
            except StoreError as error:
                reason = f"the numbers of its partial sum cannot be read: {error}"
        if said is not None and reason == "":
            told.append(SummedRegion(region=region.name, partial=said[1]))
            if said[0].numbers is not None:
                parts.append(Partial(said[0], partial_sums.fetched(coordinator, planned, said[0])))
        else:
            log.warning("%s: region '%s' does not count: %s", planned.in_words, region.name, reason)
            told.append(SummedRegion(region=region.name, partial=None, reason=_brief(reason)))
        collected = _counting(plan.round, collected, region, None if reason else said)
    return replace(collected, regional=Regional(tuple(parts), tuple(told)))


def _heard_of_all(coordinator: Coordinator, planned: Planned, collected: Collected, said: PartialSum) -> Collected:
    """A member that answered in the last moment may be known to its region only: it is asked for once more."""
    entries = read_log(coordinator.store, coordinator.key, planned.plan.log.number)
    for one in said.counted:
        if one.site not in collected.answered:
            try:
                heard = admit(coordinator, coordinator.federation, planned, one.site, entries, masked=False, updates=False)
            except UNREADABLE:
                continue
            collected = collected.hearing(one.site, heard)
    return replace(collected, missing=tuple(sorted(set(collected.missing) - collected.answered)))


def _objection(coordinator: Coordinator, planned: Planned, collected: Collected, said: PartialSum) -> str:
    """Why a partial sum does not count; empty if it does."""
    for one in said.counted:
        answer = collected.admitted.get(one.site)
        if answer is None or answer.digest != one.answer:
            return f"it counts an answer of '{one.site}' that was not admitted"
    if said.numbers is None:
        return ""
    try:
        path = partial_sums.fetched(coordinator, planned, said)
        if planned.plan.asks.slot is None:
            sums.mean_of([path], codec.coordinates(planned.plan.sent), 1.0)
        if said.region in to_check(coordinator, planned):
            partial_sums.check_again(coordinator, planned, coordinator.federation, said,
                                     {one.site: collected.admitted[one.site].answer for one in said.counted})
    except FedroundError as error:
        if isinstance(error, StoreError):
            raise
        return str(error)
    return ""


def to_check(coordinator: Coordinator, planned: Planned) -> frozenset[str]:
    """Whose sums the coordinator computes again in this round. They follow from its key and the plan, so a retry checks the
    same ones and nobody else knows which.
    """
    secret = coordinator.identity.sign(b"fedround/1/regions to check\n" + planned.digest.encode())
    drawn = sorted((digest(secret + region.name.encode()), region.name) for region in planned.plan.agreed.regions)
    return frozenset(name for _, name in drawn[:coordinator.settings.check_regions])


def _counting(number: int, collected: Collected, region: Region, said: Signed | None) -> Collected:
    """With a region's members as they stand now: in its sum, or rejected."""
    counted = set() if said is None else {one.site for one in said[0].counted}
    refused = {} if said is None else {no.site: no.reason for no in said[0].rejected}
    out = sorted((set(region.members) & collected.admitted.keys()) - counted)
    words = {site: _brief(f"site '{site}' round {number}: region '{region.name}' " + (
        "gave no partial sum that counts" if said is None else
        f"did not admit its answer: {refused[site]}" if site in refused else "did not count its answer")) for site in out}
    return replace(
        collected, admitted={site: one for site, one in collected.admitted.items() if site not in words},
        rejected={**collected.rejected, **{site: Rejection(site=site, reason=why) for site, why in words.items()}})


def _brief(reason: str) -> str:
    return reason[:300]


def of_regions(planned: Planned, sums_of_regions: Sequence[Path], norm_of: Mapping[str, float],
               weights: Mapping[str, float]) -> Combined:
    """The weighted mean of all updates that are in partial sums, added up in the order of the regions' names.

    It is the mean that the coordinator would take of the updates themselves, up to the rounding of float32. How far one is
    from another, or from the mean, nobody looked at.

    sums_of_regions: files of their numbers, in that order. norm_of: of every update that is in one of them.
    """
    sites = tuple(sorted(norm_of))
    total = math.fsum(weights[site] for site in sites)
    delta_D = sums.mean_of(sums_of_regions, codec.coordinates(planned.plan.sent), total)
    standings = {site: Standing(norm_of[site], math.nan, weights[site] / total, Verdict.USED, "") for site in sites}
    shares = np.array([[weights[site] / total for site in sites]])
    return Combined(Aggregate(delta_D, standings, sites, np.zeros((0, 0)), Composition(sites, shares, None)), (), {})
