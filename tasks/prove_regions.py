"""Proof of the partial sums that a commit adds up: who signed them, whose updates they are of, and that they are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedround.errors import ChainError, LostError, StoreDeniedError
from fedround.federation import Federation
from fedround.records import Answer, Commit, PartialSum
from fedround.regions.spec import Region
from infra.stores import ObjectStore
from tasks import partial_sums
from tasks.aggregate import Aggregated
from tasks.gather import of_regions
from tasks.memory import Shelf
from tasks.partial_sums import added_up, check_again
from tasks.plan import Planned
from tasks.rows import row_of
from tasks.spool import Workplace


@dataclass(frozen=True)
class RegionsProof:
    """What was proven of a round's partial sums."""

    said: Mapping[str, PartialSum]
    """By region; without those that may not be read here, or are gone."""
    left_out: Mapping[str, str]
    """Regions that gave none that counts, and why, as the coordinator says."""
    unseen: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def signatures(self) -> int:
        """How many were checked."""
        return len(self.said)


def prove_regions(store: ObjectStore, planned: Planned, commit: Commit) -> RegionsProof | None:
    """The partial sums that a commit names: each is by the region's key, of this plan, and counts the answers that the commit
    holds, and no others. None: its plan has no regions.

    Raises ChainError or TrustError for what does not hold. What a regional coordinator has taken away since is not read.
    """
    plan, source = planned.plan, f"commit of {planned.in_words}"
    regions = _in_order(planned)
    if [one.region for one in commit.regions] != [one.name for one in regions]:
        raise ChainError(f"{source}: does not name each region that was asked once, in order")
    if not plan.by_region:
        return None
    found, out, unseen, gone = dict[str, PartialSum](), dict[str, str](), list[str](), list[str]()
    for told, region in zip(commit.regions, regions, strict=True):
        held = {one.site: one.answer for one in commit.updates if one.site in region.members}
        if told.partial is None:
            out[region.name] = told.reason
            if held:
                raise ChainError(f"{source}: holds updates of region '{region.name}', which gave no partial sum")
            continue
        try:
            said = _read(store, planned, region, told.partial)
        except StoreDeniedError:
            unseen.append(region.name)
            continue
        except LostError:
            gone.append(region.name)
            continue
        if {one.site: one.answer for one in said.counted} != held:
            raise ChainError(f"{source}: holds other updates of region '{region.name}' than its partial sum counts")
        norms = {one.site: one.norm for one in said.counted}
        if any(one.norm != norms[one.site] for one in commit.updates if one.site in norms):
            raise ChainError(f"{source}: says other lengths of the updates of region '{region.name}' than its partial sum")
        found[region.name] = said
    return RegionsProof(found, out, tuple(unseen), tuple(gone))


def _read(store: ObjectStore, planned: Planned, region: Region, sha256: str) -> PartialSum:
    if (said := partial_sums.named(store, planned, region, sha256)) is None:
        raise LostError(f"region '{region.name}', {planned.in_words}: the partial sum that the commit names is gone")
    return said


def check_regions(bench: Workplace, planned: Planned, members: Federation, commit: Commit,
                  answers: Mapping[str, Answer]) -> None:
    """Compute every partial sum again from what members sent. Raises TrustError, naming the region, if its coordinator
    signed another one.
    """
    proof = prove_regions(bench.store, planned, commit)
    for said in () if proof is None else proof.said.values():
        check_again(bench, planned, members, said, answers)


def again_by_region(bench: Workplace, planned: Planned, commit: Commit, answers: Mapping[str, Answer],
                    weights: Mapping[str, float]) -> Aggregated:
    """What the members' stored updates give, region by region."""
    paths = list[Path]()
    for region in _in_order(planned):
        rows = [row_of(bench, planned, site, update, weights[site])
                for site, answer in sorted(answers.items())
                if site in region.members and (update := answer.update) is not None]
        if rows:
            paths.append(added_up(bench, planned, region.name, rows)[0])
    norms = {one.site: one.norm or 0.0 for one in commit.updates}
    return Aggregated(of_regions(planned, paths, norms, weights), weights, {}, Shelf(bench, planned))


def _in_order(planned: Planned) -> list[Region]:
    """The regions that were asked, in the order in which their sums are added up."""
    plan = planned.plan
    asked = (one for one in plan.agreed.regions if plan.by_region and one.asked(plan.cohort))
    return sorted(asked, key=lambda one: one.name)
