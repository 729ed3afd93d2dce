"""The sites' side of a simulated round: who does what, with which mechanism, and what its update says of itself.

D coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedround.aggregation.noise_law import NoiseLaw, law_of
from fedround.agreement import Agreement
from fedround.codec import Tensors
from fedround.compression import wire
from fedround.compression.law import law_of_what_arrives
from fedround.compression.spec import Compression, is_unbiased
from fedround.errors import ContractError
from fedround.learning import control
from fedround.learning.evaluate import Metrics, Scores, metrics, scores
from fedround.learning.parts import Rest
from fedround.learning.recipe import Examples, Recipe
from fedround.learning.spec import Scaffold
from fedround.learning.train import TrainingMechanism, sampling_rate
from fedround.privacy.campaign import first_row, mechanism_for
from fedround.privacy.spec import AdaptiveDpSgd, DpFtrl, DpSgd, NoPrivacy, Privacy
from fedround.simulation.chance import Chance
from fedround.simulation.jobs import Job
from fedround.simulation.server import Server, Upload
from fedround.simulation.spool import Updates

Float32 = npt.NDArray[np.float32]

MOST_SIZES = 64
"""Noise is calibrated for at most so many different numbers of rows: every calibration takes a tenth of a second."""


@dataclass(frozen=True, eq=False)
class Site:
    """What a simulated site has."""

    train: Examples
    validation: Examples | None = None
    weight: float | None = None
    """As a federation file would agree; None: its number of training rows."""

    @property
    def agreed_weight(self) -> float:
        """What it counts."""
        return float(len(self.train)) if self.weight is None else self.weight


class Sites:
    """All of them, and what they keep from round to round."""

    def __init__(self, agreement: Agreement, sites: Mapping[str, Site], rest: Rest,
                 steps: Callable[[int, str], int] | None):
        """rest: what the model has besides what travels, as it begins at every site."""
        if not sites:
            raise ContractError("a campaign needs a site at least")
        self.agreement, self.by_name, self.steps, self.begun = agreement, sites, steps, rest
        self.weights = {name: site.agreed_weight for name, site in sites.items()}
        self.notes: list[str] = []
        self._private = dict[str, Tensors]()
        self._controls: dict[str, Float32] = {}         # with SCAFFOLD
        self._residuals: dict[str, Float32] = {}        # with a compression that keeps numbers back
        self._rows = {name: len(site.train) for name, site in sites.items()}
        self._noised_for = self._sizes()

    def rest(self, site: str) -> Rest:
        """What the model has at a site besides what travels."""
        return Rest(self._private[site], self.begun.frozen) if site in self._private else self.begun

    def keep(self, site: str, private: Tensors) -> None:
        """What a site's private part has become."""
        self._private[site] = private

    def mechanisms(self, cohort: Iterable[str], privacy: Privacy) -> dict[str, TrainingMechanism]:
        """What each site applies in a round that asks for `privacy`. Raises ContractError if no noise keeps it for one."""
        by_rows: dict[int, TrainingMechanism] = {}
        found = {}
        for site in cohort:
            rows = self._rows[site]
            if rows not in by_rows:
                by_rows[rows] = self._mechanism(site, rows, privacy)
            found[site] = by_rows[rows]
        return found

    def jobs(self, number: int, cohort: Sequence[str], privacy: Privacy, server: Server) -> list[Job]:
        """What the cohort does in a round."""
        return [self._job(number, site, mechanism, server) for site, mechanism in self.mechanisms(cohort, privacy).items()]

    def release(self, number: int, jobs: Sequence[Job], steps: Sequence[int], weights: Mapping[str, float], updates: Updates,
                file_bytes: int, chance: Chance) -> tuple[list[Upload], int]:
        """What the coordinator knows of the updates of these jobs, in whose rounds so many steps were done; and their bytes.

        file_bytes: of an update's file as it is.
        With a compression what arrives takes the place of what was computed, and what it leaves over waits at the site.
        """
        uploads, total_bytes = [], 0
        laws: dict[tuple[int, int], NoiseLaw | None] = {}
        for place, (job, done) in enumerate(zip(jobs, steps, strict=True)):
            alike = self._rows[job.site], done
            if alike not in laws:
                laws[alike] = self._law(job, done)
            law, sent_bytes = laws[alike], file_bytes
            if (how := self.agreement.compression) is not None:
                law, sent_bytes = self._compress(how, number, job, law, updates, place, chance)
            if isinstance(self.agreement.training.algorithm, Scaffold):
                arrived_D = updates.read(place, place + 1)[0]
                self._controls[job.site] = control.next_of_site(job.shift_D, arrived_D, self.agreement.training)
            uploads.append(Upload(job.site, weights[job.site], law))
            total_bytes += sent_bytes
        return uploads, total_bytes

    def _compress(self, how: Compression, number: int, job: Job, law: NoiseLaw | None, updates: Updates,
                  place: int, chance: Chance) -> tuple[NoiseLaw | None, int]:
        vector_D, seed = updates.read(place, place + 1)[0].copy(), chance.plan(number)
        if job.site in self._residuals:
            vector_D += self._residuals[job.site]
        payload = wire.compress(vector_D, how, chance.compression(number, job.site).random, seed)
        arrives_D = wire.expanded(payload, how, len(vector_D), seed)
        if not is_unbiased(how):
            self._residuals[job.site] = vector_D - arrives_D
        updates.put([place], arrives_D[None])
        data = payload[len(wire.form(how, len(vector_D)).header):]
        gate = self.agreement.how_to_aggregate().gate
        return law_of_what_arrives(how, law, lambda start, count: data[start:start + count], len(vector_D),
                                   f"site '{job.site}' round {number}", is_judged=gate is not None), len(payload)

    def _mechanism(self, site: str, rows: int, privacy: Privacy) -> TrainingMechanism:
        training = self.agreement.training
        try:
            found = mechanism_for(privacy, training, self.agreement.evaluation, self._noised_for[rows])
        except ContractError as error:
            raise ContractError(f"site '{site}' with {rows} rows: {error}") from None
        if isinstance(found, DpSgd | AdaptiveDpSgd):
            return found.model_copy(update={"sampling_rate": sampling_rate(training, rows)})
        return found

    def _job(self, number: int, site: str, mechanism: TrainingMechanism, server: Server) -> Job:
        rows = self._rows[site]
        shift_D = (control.shift(server.control_D, self._controls.get(site))
                   if isinstance(self.agreement.training.algorithm, Scaffold) else None)
        return Job(site, mechanism, first_row(mechanism, number, rows) if isinstance(mechanism, DpFtrl) else 0,
                   None if self.steps is None else self.steps(number, site), shift_D, self.rest(site))

    def _law(self, job: Job, steps: int) -> NoiseLaw | None:
        every_row = isinstance(job.mechanism, DpSgd | AdaptiveDpSgd) and job.mechanism.sampling_rate == 1
        return law_of(job.mechanism, self.agreement.training, self._rows[job.site] if every_row else None,
                      steps if steps < self.agreement.training.local_steps else None)

    def _sizes(self) -> dict[int, int]:
        """For how many rows a site calibrates its noise: its own, or the next smaller number of a few, which takes more."""
        sizes = sorted(set(self._rows.values()))
        if isinstance(self.agreement.privacy, NoPrivacy) or len(sizes) <= MOST_SIZES:
            return {size: size for size in sizes}
        kept = [sizes[place * len(sizes) // MOST_SIZES] for place in range(MOST_SIZES)]
        self.notes.append(f"sites of {len(sizes)} different sizes: noise is calibrated for {MOST_SIZES} of them, and each "
                          "takes that of the next smaller one, which is a little more than it needs")
        return {size: kept[int(np.searchsorted(kept, size, side="right")) - 1] for size in sizes}


def judged(recipe: Recipe, model: Tensors, sites: Sites) -> tuple[Metrics | None, dict[str, Metrics]]:
    """The model on the rows that sites hold out: all together, and each by itself where its rows tell something.

    Where a part of the model is private, each site's rows are judged with the site's own.
    """
    told = {name: scores(recipe, {**model, **sites.rest(name).whole}, site.validation)
            for name, site in sites.by_name.items() if site.validation is not None}
    if not told:
        return None, {}
    whole = Scores(np.concatenate([one.chance_N for one in told.values()]),
                   np.concatenate([one.truth_N for one in told.values()]), recipe.classes)
    single = {name: found for name, one in told.items() if (found := metrics_or_none(one)) is not None}
    return metrics_or_none(whole), single


def together(parts: Sequence[Examples]) -> Examples:
    """All rows in one place: what a federation is there to avoid."""
    return Examples(np.concatenate([part.features_NF for part in parts]), np.concatenate([part.labels_N for part in parts]))


def metrics_or_none(told: Scores) -> Metrics | None:
    """None for rows of one label only."""
    try:
        return metrics(told)
    except ContractError:
        return None
