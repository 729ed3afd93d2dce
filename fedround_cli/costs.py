"""`fedround privacy plan`: what a campaign costs each site, and what the site's own ledger says to it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.spoken import how_many
from fedround_cli import promise
from fedround_cli.costed import Costed

if TYPE_CHECKING:
    from fedround.privacy.ledger import Ledger
    from fedround.privacy.spec import TrainingMechanism, Unit
    from fedround.rounds.campaign import SpentAfter
    from fedround.statistics.partitions import Partition

MOST_POINTS = 40
"""The most rounds at which a curve is computed."""


@dataclass(frozen=True)
class Cost:
    """One site's campaign."""

    site: str
    rows: int
    mechanism: TrainingMechanism
    course: list[SpentAfter]
    across: dict[Unit, float]
    apart: bool
    """Whether rows to train on and rows held out pay apart."""
    worth: promise.Worth
    """The promise in other words."""
    already: float | None = None
    """Spent before, for a site's own folder."""
    refused: int | None = None
    """The round that the site's ledger would refuse. It is the first one, since a campaign is set aside whole."""
    doubts: tuple[str, ...] = ()
    """Reasons why the promise means less than its epsilon."""
    alone: float | None = None
    """Where noise is shared: epsilon after the last round if nobody else's share of it counts."""


def costs_of(terms: Costed, rows: list[tuple[str, int]], rows_per_person: int | None, *, apart: bool) -> list[Cost]:
    """Of each site; or of one for all, where they share the noise."""
    if terms.combine is None or not rows:
        return [_cost(terms, name, count, rows_per_person, apart=apart) for name, count in rows]
    members = tuple(count for _, count in rows)
    return [_cost(terms, f"each of {len(rows)}", sum(members), rows_per_person, apart=apart, members=members)]


def _cost(terms: Costed, site: str, rows: int, rows_per_person: int | None, already: float | None = None, *,
          apart: bool, members: tuple[int, ...] = ()) -> Cost:
    """rows: with shared noise, of all members together. members: the rows of each of them."""
    from fedround.errors import ContractError, ToleranceError
    from fedround.privacy import persons, sense
    from fedround.privacy.units import alone
    from fedround.rounds import campaign

    privacy, evaluation, drift = terms.privacy, terms.evaluation, terms.drift
    try:
        if terms.combine is not None:
            terms.combine.check(len(members))
        mechanism = campaign.mechanism_for(privacy, terms.training, evaluation, rows, terms.groups, drift,
                                           apart=apart and terms.combine is None)
    except (ContractError, ToleranceError) as error:
        whose = f"site '{site}' with" if terms.combine is None else "combine,"
        raise ContractError(f"{whose} {how_many(rows, 'row')}: {error}") from None
    own = max(members, default=rows)        # what delta_dp means, each site judges by its own rows
    few = min(privacy.rounds, MOST_POINTS)
    points = sorted({1 + round(i * (privacy.rounds - 1) / max(few - 1, 1)) for i in range(few)})
    uses = campaign.whole(privacy, mechanism, evaluation, terms.groups, drift)
    told = promise.worth(lambda delta: campaign.dearest_record(*uses, delta, privacy.unit, apart=apart),
                         privacy.delta_dp, own, None if privacy.unit == "person" else rows_per_person,
                         lambda held: persons.dearest_person(*uses, privacy.delta_dp, held, apart=apart))
    by_itself = None
    if terms.combine is not None:
        trained, held_out, of_all = ([alone(terms.shared(one, len(members))) for one in part] for part in uses)
        by_itself = campaign.dearest_record(trained, held_out, of_all, privacy.delta_dp, privacy.unit, apart=apart)
    course = list(campaign.course(privacy, mechanism, evaluation, points, terms.groups, drift, apart=apart))
    return Cost(site, rows, mechanism, course,
                campaign.across_units(privacy, mechanism, evaluation, terms.groups, drift, apart=apart), apart, told, already,
                doubts=tuple(sense.doubts(privacy.delta_dp, own, mechanism, terms.training.batch_size)),
                alone=by_itself)


def own_cost(terms: Costed, folder: Path, rows_per_person: int | None, part: Partition | None) -> Cost:
    """With what the site's ledger holds and its policy allows; of all its rows, or of those in a partition."""
    from fedround.errors import ContractError
    from fedround.privacy import ledger
    from site_workers import registry
    from site_workers.rows import rows_of
    from site_workers.site import open_site

    site = open_site(folder)
    if terms.combine is not None and not all(terms.members or (0,)):
        raise ContractError("--site, with members that share noise: give the federation file, which says how many rows each "
                            "member has; or --rows for every member")
    count = sum(terms.members) if terms.combine is not None else rows_of(site, part, terms.privacy).units(terms.privacy)
    book, policy = ledger.read(site.ledger), site.policy
    cost = _cost(terms, site.name, count, rows_per_person, ledger.held(book, policy.delta_dp, unit=terms.privacy.unit),
                 apart=registry.are_apart(site.folder, site.settings.data) and terms.privacy.unit != "person",
                 members=terms.members)
    unit, most = policy.alone
    over = _held_with(terms, cost, book, policy.delta_dp, unit, part, alone=True) > most or any(
        _held_with(terms, cost, book, policy.delta_dp, whose, part) > bound for whose, bound in policy.budgets.items())
    refused = 1 if over else None
    return replace(cost, refused=refused)


def _held_with(terms: Costed, cost: Cost, book: Ledger, delta_dp: float, unit: Unit, part: Partition | None, *,
               alone: bool = False) -> float:
    """The epsilon in the ledger if this campaign began now: it is set aside whole, or refused in its first round."""
    from fedround.privacy import ledger
    from fedround.privacy.entries import Charge, Lot, Rows, Use
    from fedround.privacy.participation import times_paid
    from fedround.rounds.campaign import counts_of, groups_of, watched

    members = len(terms.members)
    sides: tuple[Rows, Rows] = ("train", "validation") if cost.apart else ("all", "all")
    counts, rounds = counts_of(terms.privacy, terms.evaluation), terms.privacy.rounds
    uses = Counter[Use]({(cost.mechanism, sides[0]): times_paid(cost.mechanism, rounds)})
    uses.update([(one, sides[1]) for one in (*counts * (rounds + 1), *groups_of(terms.privacy, terms.groups))])
    uses.update([(one, "all") for one in watched(terms.privacy, terms.drift)])
    lots = tuple(Lot(mechanism=terms.shared(one, members), rows=side, times=times) for (one, side), times in uses.items())
    begun = Charge(federation="planned", run="planned", round=1, purpose="train", plan=None,
                   mechanisms=tuple(terms.shared(one, members) for one in (cost.mechanism, *counts)),
                   rows=(sides[0], *[sides[1]] * len(counts)) if cost.apart else (),
                   delta_dp=delta_dp, utc="2000-01-01T00:00:00Z", campaign=lots,
                   partition=part.in_ledger if part is not None and ledger.tells_apart(book, part.in_ledger) else None)
    return ledger.held(ledger.with_entries(book, [begun]), delta_dp, unit=unit, alone=alone)


def in_a_leaf(terms: Costed, costs: list[Cost]) -> tuple[float, float] | None:
    """How many rows the noise in a leaf's sum is as loud as, and how many a leaf has on average, of all these sites together;
    None if no trees grow from rows.
    """
    from fedround.learning.trees.spec import Trees
    from fedround.privacy.spec import RowSum

    trees, sums = terms.training, [cost.mechanism for cost in costs if isinstance(cost.mechanism, RowSum)]
    if not isinstance(trees, Trees) or len(sums) < len(costs):
        return None
    noise = math.sqrt(trees.per_round * sum(one.noise_multiplier ** 2 for one in sums))
    return noise, sum(cost.rows for cost in costs) / trees.leaves
