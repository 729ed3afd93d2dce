"""Personal models beside a simulated campaign (Ditto): as at live sites, nothing that is sent depends on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.learning.evaluate import Metrics, scores
from fedround.learning.parts import Rest
from fedround.learning.personal import personalise
from fedround.learning.recipe import Examples, Recipe
from fedround.simulation.chance import Chance
from fedround.simulation.crew import Countdown, one_thread
from fedround.simulation.sites import Site, metrics_or_none


class PersonalModels:
    """Each site's own, which goes on from the last round in which the site took part; it begins at the shared model.

    Trained in this process and one by one, whatever crew trains the shared model.
    """

    def __init__(self, agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], chance: Chance, rest: Rest):
        self._agreement, self._recipe, self._sites, self._chance, self._rest = agreement, recipe, sites, chance, rest
        self.models: dict[str, Tensors] = {}

    def round(self, number: int, cohort: Iterable[str], shared: Tensors, steps: Callable[[int, str], int] | None) -> None:
        """Train those of a cohort, one after the other, towards the model that the round begins with. A model that goes
        astray is not kept, and the last one stays.
        """
        if self._agreement.personal is None:
            return
        for site in cohort:
            model = self._next(number, site, shared, None if steps is None else steps(number, site))
            if all(np.isfinite(array).all() for array in model.values()):
                self.models[site] = model

    def judged(self) -> dict[str, Metrics]:
        """Each on the rows that its site holds out; without sites whose rows tell nothing."""
        found: dict[str, Metrics] = {}
        for name, model in sorted(self.models.items()):
            rows: Examples | None = self._sites[name].validation
            if rows is None:
                continue
            reached = metrics_or_none(scores(self._recipe, {**model, **self._rest.frozen}, rows))
            if reached is not None:
                found[name] = reached
        return found

    def _next(self, number: int, site: str, shared: Tensors, steps: int | None) -> Tensors:
        pull = 0.0 if self._agreement.personal is None else self._agreement.personal.pull
        with one_thread():
            return personalise(
                self._recipe, self.models.get(site, shared), self._sites[site].train, self._agreement.training,
                self._chance.personal(number, site), lambda: False, shared=shared, pull=pull, rest=self._rest,
                time_is_up=Countdown(steps))[0]
