"""Whom simulated rounds ask and how they train, by the functions of a live coordinator, from what the rounds before told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedround.agreement import Agreement
from fedround.errors import ContractError
from fedround.learning.spec import LocalTraining, Training
from fedround.rounds.asking import first_that_counts, whom
from fedround.rounds.earlier import Earlier, training_after
from fedround.simulation.chance import Chance
from fedround.simulation.clock import Whom
from fedround.simulation.sites import Site


@dataclass(frozen=True)
class Calendar:
    """When a simulated campaign takes place: members' hours and closed days are looked up by it."""

    begins: datetime
    """With its time zone."""
    every_s: float = 0.0
    """So many seconds after a round began the next one does, or when that is closed."""

    def at(self, seconds: float) -> datetime:
        """So long after the campaign began."""
        return self.begins + timedelta(seconds=seconds)


class Asking:
    """Of one campaign; it is told of every round that is committed. As `fedround.simulation.clock.Asks`."""

    def __init__(self, agreed: Agreement, sites: Mapping[str, Site], weights: Mapping[str, float], chance: Chance,
                 share: float, calendar: Calendar | None):
        if share != 1 and agreed.selection is not None:
            raise ContractError("[selection] says who is asked in each round: leave 'share' out, or the selection")
        self._agreed, self._sites, self._chance, self._calendar = agreed, sites, chance, calendar
        self._weights = dict(sorted(weights.items()))
        self._share, self._past = share, list[Earlier]()

    @property
    def may_wait(self) -> bool:
        """As `Asks`."""
        return self._calendar is not None and not all(site.is_always_there for site in self._sites.values())

    def whom(self, number: int, at_s: float, free: tuple[str, ...]) -> Whom:
        """As `Asks`."""
        if self._share != 1:
            free = tuple(site for site in self._chance.cohort(
                number, [*self._weights], max(1, round(self._share * len(self._weights)))) if site in free)
        if self._calendar is not None:
            at = self._calendar.at(at_s)
            free = tuple(name for name in free if self._sites[name].is_there(at))
        return Whom(*whom(self._agreed, self._weights, free, number, self._seen(number), self._chance.selection(number)))

    def training(self, number: int) -> Training:
        """What round `number` asks for."""
        training = self._agreed.training
        if not isinstance(training, LocalTraining) or training.rule is None:
            return training
        return training_after(training, number, self._seen(number))

    def told(self, one: Earlier) -> None:
        """A round is committed."""
        self._past.append(one)

    def _seen(self, number: int) -> list[Earlier]:
        return self._past[first_that_counts(self._agreed, number) - 1:]
