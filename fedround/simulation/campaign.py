"""A whole campaign in one process: training, aggregation and server step as live, without processes, keys or a store.

::

    parts = deal(Dirichlet(concentration=0.5), examples, sites=100, seed=0)
    sites = {name: Site(take(examples, places)) for name, places in parts.items()}
    result = simulate(agreement, recipe, sites, rounds=20, chance=Seeded(0), test=test, stacked=True)

Not simulated: time, so nobody is late but as `steps` says; refusals and reputation; and whoever lies. Nothing here protects
anybody: all rows are in one place, and the randomness is no secret.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedround.aggregation import fairness
from fedround.aggregation.rows import ArrayNumbers, Numbers
from fedround.aggregation.spec import FLTrust
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.codec import Tensors, flatten, schema_of, size_bytes
from fedround.errors import ContractError
from fedround.learning.evaluate import Scores, metrics, public_edges, score_counts, scores
from fedround.learning.recipe import Examples, Recipe, initial
from fedround.learning.spec import Scaffold
from fedround.learning.train import train
from fedround.privacy.clipping import next_clip_norm
from fedround.privacy.spec import AdaptiveDpSgd, DpSgd, NoMechanism, NoPrivacy, Privacy, RecordPrivacy
from fedround.simulation.chance import Chance
from fedround.simulation.crew import Chunk, Crew, Trainer
from fedround.simulation.jobs import Job
from fedround.simulation.personal import PersonalModels
from fedround.simulation.result import Result, Round
from fedround.simulation.server import Server, take_round
from fedround.simulation.sites import Site, Sites, judged
from fedround.simulation.spool import MEMORY_BYTES, Updates

ONE_BY_ONE = 8
"""Sites that are trained one after the other make chunks of so many: enough to be worth sending."""


def simulate(agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], *, rounds: int, chance: Chance,
             stacked: bool = False, share: float = 1.0, test: Examples | None = None, judge_every: int = 1,
             model: Tensors | None = None, root: Examples | None = None, steps: Callable[[int, str], int] | None = None,
             crew: Crew | None = None, memory_bytes: int = MEMORY_BYTES,
             told: Callable[[Round], None] = lambda _: None) -> Result:
    """Run the campaign.

    stacked: many sites are trained at once (`fedround.simulation.stacked`), much faster, with other draws of the same law;
    without, one after the other as live sites do: with a live federation's `chance` the same bytes as there.
    share: of the sites that are asked in each round, drawn anew. test: public rows, judged every `judge_every` rounds and
    after the last, like what the sites hold out. model: where round 0 begins; None: the recipe's own.
    root: the coordinator's own rows, for `fltrust`. steps: (round, site) -> after how many steps its time is up, where the
    agreement keeps partial work. crew: who trains; None: this process. memory_bytes: updates that take more go to a file.
    told: hears of every round.

    Deterministic in `chance`. Raises ContractError if the agreement cannot hold for these sites, or pays for fewer rounds;
    QuorumError if fewer updates than the quorum remain in a round.
    """
    _check(agreement, rounds, share, root)
    begun, rest = initial(recipe, chance.initial(), agreement.parts, start=model,
                          per_record=isinstance(agreement.privacy, RecordPrivacy))
    run = _Run(agreement, recipe, Sites(agreement, sites, rest, steps), chance, test, root, crew, memory_bytes)
    if stacked:
        run.stack()
    now = _Now(Server(begun), agreement.privacy, run.sites.weights)
    took_part, done = Counter[str](), list[Round]()
    for number in range(1, rounds + 1):
        cohort = chance.cohort(number, sorted(sites), max(1, round(share * len(sites))))
        now, left_out, sent = run.round(number, cohort, now)
        took_part.update(cohort)
        judge = number % judge_every == 0 or number == rounds
        done.append(run.report(number, len(cohort), left_out, sent, now.server.model, judge=judge))
        told(done[-1])
    return Result(agreement, now.server.model, tuple(done), judged(recipe, now.server.model, run.sites)[1],
                  run.sites.mechanisms(took_part, agreement.privacy), took_part,
                  {site: run.sites.rest(site) for site in took_part}, run.personal.models, run.personal.judged(),
                  tuple(run.notes))


@dataclass(frozen=True, eq=False)
class _Now:
    """Where a campaign stands between two rounds."""

    server: Server
    privacy: Privacy
    """What the next round asks for: the clip norm may follow the gradients."""
    weights: Mapping[str, float]
    """What every member counted in the last round, by name."""


class _Run:
    """What does not change from round to round."""

    def __init__(self, agreement: Agreement, recipe: Recipe, sites: Sites, chance: Chance, test: Examples | None,
                 root: Examples | None, crew: Crew | None, memory_bytes: int):
        self._agreement, self._recipe, self.sites, self._chance = agreement, recipe, sites, chance
        self._test, self._root, self._memory_bytes = test, root, memory_bytes
        self._rows = {name: site.train for name, site in sites.by_name.items()}
        self._trainer = Trainer(recipe, self._rows, agreement.training, chance)
        self._crew, self._at_once = self._trainer if crew is None else crew, 0
        self.personal = PersonalModels(agreement, recipe, sites.by_name, chance, sites.begun)
        self.notes = [*sites.notes, *_not_simulated(agreement)]

    def stack(self) -> None:
        """Train sites at once from now on, if the model and the mechanism allow it; else say why not."""
        site = max(self._rows, key=lambda name: len(self._rows[name]))
        mechanism = self.sites.mechanisms([site], self._agreement.privacy)[site]
        beside = "parts of the model are private or frozen" if self.sites.rest(site).whole else None
        if (why_not := beside or self._trainer.stacked.why_not(mechanism)) is not None:
            self.notes.append(f"sites are trained one by one: {why_not}")
            return
        self._at_once = self._trainer.stacked.sites_at_once(
            len(self._rows[site]), private=isinstance(mechanism, DpSgd | AdaptiveDpSgd))

    def round(self, number: int, cohort: Sequence[str], now: _Now) -> tuple[_Now, tuple[str, ...], int]:
        """Where the campaign stands after a round, who was left out of the aggregate, and how many bytes the sites sent."""
        weights, file_bytes = self._weights(number, cohort, now), size_bytes(schema_of(now.server.model))
        jobs = self.sites.jobs(number, cohort, now.privacy, now.server)
        self.personal.round(number, cohort, now.server.model, self.sites.steps)
        with Updates(len(jobs), now.server.size, self._memory_bytes) as updates:
            within, steps = self._train(number, now.server.model, jobs, updates)
            uploads, sent = self.sites.release(number, jobs, steps, weights, updates, file_bytes, self._chance)
            root = self._root_update(number, now.server.model)
            server, verdicts = take_round(now.server, self._agreement, weights, uploads, updates,
                                          self._chance.plan(number), root)
        used = [share for job, share in zip(jobs, within, strict=True) if verdicts[job.site] is Verdict.USED]
        left_out = tuple(site for site, verdict in verdicts.items() if verdict is not Verdict.USED)
        return _Now(server, _next_privacy(self._agreement.privacy, now.privacy, used), weights), left_out, sent

    def report(self, number: int, asked: int, left_out: tuple[str, ...], sent: int, model: Tensors, *,
               judge: bool) -> Round:
        """What is told of a round."""
        file_bytes = size_bytes(schema_of(model))
        files = 2 if isinstance(self._agreement.training.algorithm, Scaffold) else 1    # the model, and the server's control
        return Round(number, asked, left_out, asked * files * file_bytes, sent,
                     metrics(told) if judge and (told := self._public(model)) is not None else None,
                     judged(self._recipe, model, self.sites)[0] if judge else None)

    def _public(self, model: Tensors) -> Scores | None:
        """The model on the public rows; None without any, or where a part of the model is private."""
        if self._test is None or self._agreement.parts.private:
            return None
        frozen = self.sites.rest(next(iter(self._rows))).frozen
        return scores(self._recipe, {**model, **frozen}, self._test)

    def _train(self, number: int, base: Tensors, jobs: Sequence[Job],
               updates: Updates) -> tuple[list[float | None], list[int]]:
        """Every job's update goes to its place; and shares within the clip norm and steps done, in the order of jobs."""
        chunks = self._chunks(jobs)
        orders = (Chunk(number, turn, base, [jobs[place] for place in places], self._at_once > 0)
                  for turn, places in enumerate(chunks))
        within, steps = list[float | None]([None] * len(jobs)), [0] * len(jobs)
        for places, learnt in zip(chunks, self._crew(orders), strict=True):
            updates.put(places, learnt.delta_SD)
            for place, share, done in zip(places, learnt.within, learnt.steps, strict=True):
                within[place], steps[place] = share, done
            for place, private in zip(places, learnt.private, strict=False):
                self.sites.keep(jobs[place].site, private)
        return within, steps

    def _chunks(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Which jobs are done together: of like numbers of rows, so that little is padded; as even as can be."""
        order = list(range(len(jobs)))
        if self._at_once:
            order.sort(key=[len(self._rows[job.site]) for job in jobs].__getitem__)
        count = math.ceil(len(jobs) / (self._at_once or ONE_BY_ONE))
        return [part.tolist() for part in np.array_split(np.array(order), count)]

    def _weights(self, number: int, cohort: Sequence[str], now: _Now) -> Mapping[str, float]:
        """As agreed; or by the agreement's fairness, from noised counts of the base model's scores at the cohort."""
        how = self._agreement.how_to_aggregate().fairness
        if how is None:
            return self.sites.weights
        evaluation, base = self._agreement.evaluation, now.server.model
        told = self._public(base)
        edges = () if told is None else public_edges(told, evaluation.bins)
        losses = {}
        for site in cohort:
            if (rows := self.sites.by_name[site].validation) is None:
                raise ContractError(f"site '{site}' holds out no rows, and fairness weighs sites by their losses on them")
            rest = self.sites.rest(site)
            counts = score_counts(scores(self._recipe, {**base, **rest.whole}, rows), evaluation,
                                  self._chance.evaluation(number, site, rest.private), edges)
            losses[site] = fairness.loss(counts, self._recipe.classes, edges)
        return fairness.fair_weights(how, self.sites.weights, losses, {} if number == 1 else now.weights)

    def _root_update(self, number: int, base: Tensors) -> Numbers | None:
        """What the coordinator itself learns, for FLTrust."""
        if self._root is None or not isinstance(self._agreement.how_to_aggregate().rule, FLTrust):
            return None
        trained = train(self._recipe, base, self._root, self._agreement.training, NoMechanism(),
                                  self._chance.root(number), lambda: False, rest=self.sites.rest(next(iter(self._rows))))
        return ArrayNumbers(flatten(trained.delta))


def _next_privacy(agreed: Privacy, last: Privacy, within: Sequence[float | None]) -> Privacy:
    if not isinstance(agreed, RecordPrivacy) or agreed.adaptive is None or not isinstance(last, RecordPrivacy):
        return agreed
    told = [share for share in within if share is not None]
    return agreed.model_copy(update={"clip_norm": next_clip_norm(last.clip_norm, told, agreed.adaptive)})


def _not_simulated(agreement: Agreement) -> list[str]:
    """What was agreed and has no effect here."""
    return [] if agreement.reputation is None else ["reputation is not simulated: everybody is asked in every round"]


def _check(agreement: Agreement, rounds: int, share: float, root: Examples | None) -> None:
    if not 0 < share <= 1 or rounds < 1:
        raise ContractError(f"expected a share of sites above 0 and at most 1 and a round at least, got {share} and {rounds}")
    if not isinstance(agreement.privacy, NoPrivacy) and rounds > agreement.privacy.rounds:
        raise ContractError(f"the privacy that was agreed pays for {agreement.privacy.rounds} rounds, {rounds} are asked: "
                            "raise privacy.rounds, which takes more noise in each")
    if isinstance(agreement.how_to_aggregate().rule, FLTrust) and root is None:
        raise ContractError("the rule 'fltrust' compares every update with the coordinator's own: give root rows")
