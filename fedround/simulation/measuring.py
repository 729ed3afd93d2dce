"""A question that makes no model, asked of simulated sites: what a live federation would be told, and what it would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.errors import QuorumError
from fedround.learning.recipe import Recipe, initial
from fedround.privacy.accounting import epsilon
from fedround.privacy.spec import GradientPrivacy, Mechanism, Unit
from fedround.records import Measure
from fedround.simulation.chance import Chance
from fedround.simulation.sites import Site, Sites, units_of
from fedround.simulation.summed import added_up, terms_of
from fedround.spoken import how_many
from fedround.statistics import Release, Statistic, total


@dataclass(frozen=True, eq=False)
class Measured:
    """What came of a question."""

    at_sites: Mapping[str, tuple[Release, ...]]
    """What each site released: one for each statistic, in their order. Nothing, if the sites' numbers are added up."""
    totals: tuple[Release, ...]
    """All sites together: one for each statistic."""
    mechanisms: tuple[Mechanism, ...]
    """What every site is charged for."""

    def epsilon(self, delta_dp: float, unit: Unit = "record") -> float:
        """What it costs at every site; infinite without noise, and for a unit that counts do not protect."""
        return epsilon(self.mechanisms, delta_dp, unit)


def measure(agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], statistics: Sequence[Statistic], *,
            chance: Chance, number: int = 0, model: Tensors | None = None) -> Measured:
    """Ask all sites for these statistics of their rows, as a live `Measure` does; no policy refuses any.

    number: the round whose model it is about. model: what is scored, where scores are asked for; None: the recipe's own.
    Deterministic in `chance`. Raises ContractError if a site's rows do not have what is counted; QuorumError if the sites are
    fewer than the quorum.
    """
    asks, terms = Measure(statistics=tuple(statistics)), terms_of(agreement, units_of(agreement.privacy, sites))
    base, rest = initial(recipe, chance.initial(), agreement.parts, start=model,
                         per_record=isinstance(agreement.privacy, GradientPrivacy))
    if len(sites) < agreement.quorum:
        raise QuorumError(f"{how_many(len(sites), 'site', 'answers', 'answer')}, the quorum is {agreement.quorum}: ask with "
                          "a smaller quorum, or more sites")
    everybody, cohort = Sites(terms, recipe, sites, rest, chance), sorted(sites)
    if terms.combine is not None:
        added = added_up(everybody, asks, number, cohort, terms, base)
        return Measured({}, added.read.totals, added.mechanisms)
    told = everybody.answers(asks, number, cohort, terms, base)
    return Measured(told, tuple(total(releases) for releases in zip(*told.values(), strict=True)),
                    tuple(release.mechanism for release in told[cohort[0]]))
