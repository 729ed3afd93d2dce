"""A whole campaign in one process: training, aggregation and server step as live, without processes, keys or a store.

::

    parts = deal(Dirichlet(concentration=0.5), examples, sites=100, seed=0)
    sites = {name: Site(take(examples, places)) for name, places in parts.items()}
    result = simulate(agreement, recipe, sites, rounds=20, chance=Seeded(0), test=test, stacked=True)

Whom a round asks and how it trains follows from the agreement, as live (`fedround.simulation.asking`). Time is simulated if
`seconds` says how long each site takes for a plan (`fedround.simulation.clock`), dates if there is a calendar; `steps` says
whose time is up, and when. Not simulated: refusals, but of a site whose promise is used up; sites that lie. Nothing here
protects anybody: all rows are in one place, and the randomness is no secret.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from fedround.aggregation.noise_law import NoiseLaw
from fedround.aggregation.rows import ArrayNumbers, Numbers, Row
from fedround.aggregation.staleness import MAX_AGE
from fedround.aggregation.verdict import Verdict
from fedround.agreement import Agreement
from fedround.codec import Tensors, flatten, schema_of, size_bytes
from fedround.compression import wire
from fedround.errors import DivergedError, QuorumError
from fedround.learning.clusters import model_of, seeds, together
from fedround.learning.evaluate import scores
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.learn import learn
from fedround.learning.lesson import Lesson
from fedround.learning.parts import NO_REST, Rest
from fedround.learning.recipe import Recipe, initial
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Metrics, Scored
from fedround.privacy.clipping import next_privacy
from fedround.privacy.spec import DpSgd, GradientPrivacy, NoMechanism
from fedround.records import Evaluate, Train
from fedround.rounds import server
from fedround.rounds.clusters import combine_each
from fedround.rounds.decay import TrainedRound, looks_at_scores, told_by
from fedround.rounds.earlier import Earlier
from fedround.rounds.ending import ToldOfModel
from fedround.rounds.server import Float32, Memory, Server
from fedround.simulation.asking import Asking, Calendar
from fedround.simulation.chance import Chance
from fedround.simulation.clock import Turn
from fedround.simulation.crew import Chunk, Crew, Trainer
from fedround.simulation.crowd import is_crowd, mean_of_crowd
from fedround.simulation.jobs import Done, Job
from fedround.simulation.possible import check, not_simulated, paid_by_slow, turns_of
from fedround.simulation.result import Result, Round
from fedround.simulation.sites import Site, Sites, judged, judged_at_sites, personal_judged, units_of
from fedround.simulation.spool import MEMORY_BYTES, Updates
from fedround.simulation.summed import added_up, terms_of
from fedround.spoken import how_many
from fedround.statistics import Release
from fedround.terms import Terms

ONE_BY_ONE = 8
"""Sites that are trained one after the other make chunks of this size, large enough to be worth sending."""


def simulate(agreement: Agreement, recipe: Recipe, sites: Mapping[str, Site], *, rounds: int, chance: Chance,
             stacked: bool = False, share: float = 1.0, test: Examples | None = None, judge_every: int = 1,
             model: Tensors | None = None, root: Examples | None = None, steps: Callable[[int, str], int] | None = None,
             seconds: Mapping[str, float] | None = None, calendar: Calendar | None = None, crew: Crew | None = None,
             memory_bytes: int = MEMORY_BYTES, apart: bool = False,
             told: Callable[[Round], None] = lambda _: None, seen: Callable[[Seen], None] = lambda _: None) -> Result:
    """Run the campaign. If the agreement tells rows apart, `sites` have the rows of one partition and no others.

    stacked: many sites are trained at once (`fedround.simulation.stacked`), much faster, with other draws of the same law;
    without, one after the other as live sites do: with a live federation's `chance` the same bytes as there.
    share: of the sites that are asked in each round, drawn anew. test: public rows, evaluated every `judge_every` rounds and
    after the last, as are the rows that the sites hold out. model: where round 0 begins; None: the recipe's own.
    root: the coordinator's own rows, for rules that need them. steps: (round, site) -> after how many steps its time is up,
    where the agreement keeps partial work. seconds: how long each site takes for a plan: then a round closes as live, with
    `enough` or at the deadline, late answers count where there is a pace, and slow sites do fewer steps where they may; None:
    all answer at once. calendar: with `seconds`, when rounds begin, for sites that are not always there. crew: who trains;
    None: this process. memory_bytes: updates that take more go to a file. apart: every site was made with `site init
    --ledger`: rows to train on and rows held out pay apart. told: is called after every round. seen: as soon as a round is
    aggregated (no crowd's); its rows can be read only then.

    Deterministic in `chance`. Raises ContractError if the agreement cannot hold for these sites, or pays for fewer rounds;
    QuorumError if fewer updates than the quorum remain in a round.
    """
    check(agreement, rounds, share, root, seconds, calendar, sites)
    paid = {} if seconds is None else paid_by_slow(agreement, seconds)
    begun, rest = _begun(agreement, recipe, chance.initial(), model)
    terms = terms_of(agreement, units_of(agreement.privacy, sites))
    now = _Now(Server(begun), terms)
    everybody = Sites(now.terms, recipe, sites, rest, chance, steps, paid=paid, apart=apart)
    asking = Asking(agreement, sites, everybody.weights, chance, share, calendar)
    run = _Run(agreement, recipe, everybody, chance, test, root, crew, memory_bytes, seen)
    run.notes += not_simulated(agreement, sites, timed=seconds is not None, dated=calendar is not None)
    if stacked:
        run.stack(terms)
    took_part, done = Counter[str](), list[Round]()
    before = dict[int, _Now]()
    for turn in turns_of(agreement, asking, seconds, calendar, sorted(sites), rounds, paid):
        number, training = turn.number, asking.training(turn.number)
        if training != now.terms.training:
            now = replace(now, terms=now.terms.model_copy(update={"training": training}))
        before = {asked: at for asked, at in (before | {number: now}).items() if number - asked <= MAX_AGE}
        ran = run.round(number, turn.counted, before)
        now = ran.now
        asking.told(Earlier(number, (*turn.asked, *turn.refused), ran.verdicts, ran.losses, turn.excluded,
                            TrainedRound(training, ran.told)))
        took_part.update(turn.asked)
        judge = number % judge_every == 0 or number == rounds
        done.append(run.report(turn, ran, timed=seconds is not None, judge=judge))
        told(done[-1])
    return Result(agreement, now.server.model, tuple(done), judged_at_sites(recipe, now.server.model, run.sites),
                  run.sites.mechanisms(took_part, terms), took_part,
                  {site: run.sites.rest(site) for site in took_part}, run.sites.personal,
                  personal_judged(recipe, run.sites), tuple(run.notes), run.sites.weights, apart, run.sites.picked)


def _begun(agreement: Agreement, recipe: Recipe, seed: int, model: Tensors | None) -> tuple[Tensors, Rest]:
    clusters = agreement.evaluation.clusters
    if model is not None and clusters > 1:
        model_of(model, 0, clusters)
        return model, NO_REST
    found = [initial(recipe, one, agreement.parts, start=model, per_record=isinstance(agreement.privacy, GradientPrivacy))
             for one in seeds(seed, clusters)]
    return together([own for own, _ in found]), found[0][1]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a coordinator sees of a round."""

    number: int
    terms: Terms
    before: Server
    combined: server.Combined


@dataclass(frozen=True, eq=False)
class _Now:
    """Where a campaign stands between two rounds."""

    server: Server
    terms: Terms
    """Of the next round: the clip norm may follow the gradients."""
    memory: Memory = field(default_factory=Memory)
    weights: Mapping[str, float] = field(default_factory=dict)
    """What every member counted in the last round, by name; empty before the first."""


@dataclass(frozen=True, eq=False)
class _Ran:
    """What came of a round."""

    now: _Now
    verdicts: Mapping[str, Verdict]
    influence: Mapping[str, float]
    """The share of the aggregate, or something like it, of each update that entered it."""
    received_bytes: int
    losses: Mapping[str, float] = field(default_factory=dict)
    """The base model's, where whom the next round asks follows from them."""
    told: ToldOfModel | None = None
    """What all say of the base model, where the next round's training follows from it."""


class _Run:
    """What does not change from round to round."""

    def __init__(self, agreement: Agreement, recipe: Recipe, sites: Sites, chance: Chance, test: Examples | None,
                 root: Examples | None, crew: Crew | None, memory_bytes: int, seen: Callable[[Seen], None]):
        self._agreement, self._recipe, self.sites, self._chance = agreement, recipe, sites, chance
        self._test, self._root, self._memory_bytes, self._seen = test, root, memory_bytes, seen
        self._rows = {name: site.train for name, site in sites.by_name.items()}
        self._trainer = Trainer(recipe, self._rows, agreement.training, chance)
        self._crew, self._at_once = self._trainer if crew is None else crew, 0
        self.notes = [*sites.notes]

    def stack(self, terms: Terms) -> None:
        """Train sites at once from now on, if the model and the mechanism allow it; else say why not."""
        if not isinstance(self._agreement.training, LocalTraining):
            self.notes.append("sites are summed one by one: there are no steps that could be stacked")
            return
        site = max(self._rows, key=lambda name: len(self._rows[name]))
        mechanism = self.sites.mechanisms([site], terms)[site]
        beside = "parts of the model are private or frozen" if self.sites.rest(site).whole else None
        if (why_not := beside or self._trainer.stacked.why_not(mechanism)) is not None:
            self.notes.append(f"sites are trained one by one: {why_not}")
            return
        self._at_once = self._trainer.stacked.sites_at_once(len(self._rows[site]), private=isinstance(mechanism, DpSgd))

    def round(self, number: int, counted: Mapping[str, int], before: Mapping[int, _Now]) -> _Ran:
        """One round. counted: whose answers count, and the round whose plan each answers. before: where the campaign stood
        before each of these rounds.
        """
        now, cohort = before[number], tuple(counted)
        if now.terms.combine is not None:
            return self._summed(number, cohort, now)
        terms, task = now.terms, self._recipe.task
        told = self._told(number, cohort, now)
        weights = server.weigh(terms, task, self.sites.weights, told, now.weights)
        with ExitStack() as stack:
            arrived = [self._arrived(asked, [site for site in cohort if counted[site] == asked], before[asked], stack)
                       for asked in sorted(set(counted.values()))]
            agreed = self._agree(number, now, weights, arrived)
        used = [site for site in cohort if agreed.verdicts[site] is Verdict.USED]
        if len(used) < terms.aggregation.fewest_used(self._agreement.quorum) or len(cohort) < self._agreement.quorum:
            raise QuorumError(f"{len(used)} of {len(cohort)} updates remain, the quorum is {self._agreement.quorum}: ask "
                              "with a smaller quorum, or let more sites take part")
        following = server.step(terms, task, now.server, agreed.delta_D, used, weights)
        within = [one.within_clip for group in arrived for job, one in zip(group.jobs, group.done, strict=True)
                  if one.within_clip is not None and agreed.verdicts[job.site] is Verdict.USED]
        privacy = next_privacy(self._agreement.privacy, terms.privacy, within)
        file_bytes = size_bytes(terms.sent(schema_of(now.server.model)))
        losses = {site: loss for site, said in told.items() if (loss := server.loss_at(task, said)) is not None}
        return _Ran(_Now(following, terms.model_copy(update={"privacy": privacy}), agreed.memory, weights),
                    agreed.verdicts, {site: agreed.influence[site] for site in used},
                    sum(file_bytes if file is None else len(file) for group in arrived for file in group.files), losses,
                    told_by(task, told.values()) if looks_at_scores(terms.training) else None)

    def _arrived(self, number: int, cohort: Sequence[str], now: _Now, stack: ExitStack) -> _Arrived:
        """What these sites answer to the plan of one round. stack: as long as it lasts, the updates can be read."""
        jobs = self.sites.jobs(number, cohort, now.terms, now.server.served, now.server.model)
        self.sites.train_personal(number, cohort, now.terms, now.server.model)
        updates = stack.enter_context(Updates(len(jobs), now.server.size(now.terms), self._memory_bytes))
        done = self._train(number, now, jobs, updates)
        return _Arrived(number, now.terms, jobs, done, self.sites.send(number, now.terms, jobs, done, updates), updates)

    def _summed(self, number: int, cohort: Sequence[str], now: _Now) -> _Ran:
        """The same, where nobody sees the updates that are added up."""
        asks, terms, base = Train(statistics=()), now.terms, now.server.model
        added = added_up(self.sites, asks, number, cohort, terms, base)
        if added.read.delta_D is None or len(cohort) < self._agreement.quorum:
            raise QuorumError(f"{how_many(len(cohort), 'site', 'answers', 'answer')}, the quorum is "
                              f"{self._agreement.quorum}: ask with a smaller quorum, or let more sites take part")
        following = server.step(terms, self._recipe.task, now.server, added.read.delta_D, cohort, self.sites.weights)
        return _Ran(_Now(following, terms), dict.fromkeys(cohort, Verdict.USED),
                    {site: float(self.sites.units[site]) for site in cohort}, added.sent_bytes)

    def report(self, turn: Turn, ran: _Ran, *, timed: bool, judge: bool) -> Round:
        """What is told of a round."""
        files, model = 1 + len(self._agreement.training.algorithm.serves), ran.now.server.model
        return Round(
            turn.number, len(turn.asked) + len(turn.refused),
            tuple(site for site, verdict in ran.verdicts.items() if verdict is not Verdict.USED),
            len(turn.asked) * files * size_bytes(schema_of(model)), ran.received_bytes,
            self._on_public_rows(turn.number, model) if judge else None,
            judged(self._recipe, model, self.sites) if judge else None, turn.ended_s if timed else None,
            tuple(turn.counted), turn.lost, turn.refused, turn.unasked, ran.influence)

    def _on_public_rows(self, number: int, model: Tensors) -> Metrics | None:
        if (told := self._public(model)) is None:
            return None
        try:
            return self._recipe.task.metrics(told)
        except DivergedError as error:          # the first of them is told; the rounds after it are like it
            if not any("on the public rows" in note for note in self.notes):
                self.notes.append(f"from round {number} on the public rows: {error}")
            return None

    def _public(self, model: Tensors) -> Scored | None:
        """The model on the public rows; None without any, or where only a site knows its whole model."""
        if self._test is None or self._agreement.parts.private or self._agreement.evaluation.clusters > 1:
            return None
        frozen = self.sites.rest(next(iter(self._rows))).frozen
        return scores(self._recipe, {**model, **frozen}, self._test, self.sites.way)

    def _train(self, number: int, now: _Now, jobs: Sequence[Job], updates: Updates) -> list[Done]:
        """Put every job's update in its place; return what else is known of each, in the order of jobs."""
        chunks, clusters = self._chunks(jobs), now.terms.clusters
        orders = (Chunk(number, turn, model_of(now.server.model, jobs[places[0]].cluster or 0, clusters),
                        [jobs[place] for place in places], self._at_once > 0, now.terms.training)
                  for turn, places in enumerate(chunks))
        done: dict[int, Done] = {}
        for places, learnt in zip(chunks, self._crew(orders), strict=True):
            updates.put(places, learnt.delta_SD)
            done.update(zip(places, learnt.done, strict=True))
        return [done[place] for place in range(len(jobs))]

    def _chunks(self, jobs: Sequence[Job]) -> list[list[int]]:
        """Which jobs are trained together: those of one model, with similar numbers of rows, so that little is padded, in
        chunks of nearly equal size.
        """
        chunks = list[list[int]]()
        for cluster in sorted({job.cluster or 0 for job in jobs}):
            order = [place for place, job in enumerate(jobs) if (job.cluster or 0) == cluster]
            if self._at_once:
                order.sort(key=[len(self._rows[job.site]) for job in jobs].__getitem__)
            count = math.ceil(len(order) / (self._at_once or ONE_BY_ONE))
            chunks += [part.tolist() for part in np.array_split(np.array(order), count)]
        return chunks

    def _told(self, number: int, cohort: Sequence[str], now: _Now) -> Mapping[str, Release]:
        """What each of the cohort counts of the base model's scores; of nobody, if nothing follows from it."""
        how, terms = self._agreement.selection, now.terms
        if terms.aggregation.fairness is None and not looks_at_scores(terms.training) and (
                how is None or not how.looks_at_losses):
            return {}
        base = now.server.model
        asks = Evaluate(statistics=(self._recipe.task.statistic(terms.evaluation, self._public(base)),))
        return {site: release for site, (release,) in self.sites.answers(asks, number, cohort, terms, base).items()}

    def _agree(self, number: int, now: _Now, weights: Mapping[str, float], arrived: Sequence[_Arrived]) -> _Agreed:
        """What the cohort agrees on."""
        how, pace, size = now.terms.aggregation, now.terms.pace, now.server.size(now.terms)
        if now.terms.clusters > 1:
            return self._agree_on_each(number, now, weights, arrived[0])
        if pace is None and is_crowd(how, len(arrived[0].jobs)):
            mean = mean_of_crowd(arrived[0].updates, {job.site: weights[job.site] for job in arrived[0].jobs}, size)
            return _Agreed(mean.delta_D, mean.verdicts, weights, now.memory)
        rows = [Row(job.site, weights[job.site] * (1.0 if pace is None else pace.share(number - group.number)),
                    group.updates.numbers(place), self._law(size, group, place))
                for group in arrived for place, job in enumerate(group.jobs)]
        combined = server.combine(how, size, rows, now.memory, _kept_whole, seed=self._chance.plan(number),
                                  root=self._root_update(number, now))
        self._seen(Seen(number, now.terms, now.server, combined))
        delta_D, standings = combined.result.delta_D, combined.result.standings
        centre = ArrayNumbers(delta_D) if server.keeps_centre(how) else None
        return _Agreed(delta_D, {site: standing.verdict for site, standing in standings.items()},
                       {site: standing.influence for site, standing in standings.items()},
                       Memory(combined.remember(now.memory.averages), centre))

    def _agree_on_each(self, number: int, now: _Now, weights: Mapping[str, float], arrived: _Arrived) -> _Agreed:
        """What those who chose the same model agree on, for each of them."""
        size = now.server.size(now.terms)
        rows = [Row(job.site, weights[job.site], arrived.updates.numbers(place), self._law(size, arrived, place))
                for place, job in enumerate(arrived.jobs)]
        combined = combine_each(now.terms, schema_of(now.server.model), rows,
                                {job.site: job.cluster or 0 for job in arrived.jobs}, seed=self._chance.plan(number))
        standings = combined.result.standings
        return _Agreed(combined.result.delta_D, {site: standing.verdict for site, standing in standings.items()},
                       {site: standing.influence for site, standing in standings.items()}, now.memory)

    def _law(self, size: int, arrived: _Arrived, place: int) -> NoiseLaw | None:
        """Of the noise in an update, as the coordinator knows it."""
        job, file, data, terms = arrived.jobs[place], arrived.files[place], b"", arrived.terms
        if file is not None and terms.compression is not None:
            data = file[len(wire.form(terms.compression, size).header):]
        said = self.sites.declared(terms, job, arrived.done[place])
        return server.law(terms, said, lambda start, count: data[start:start + count], size,
                          f"site '{job.site}' round {arrived.number}")

    def _root_update(self, number: int, now: _Now) -> Numbers | None:
        """What the coordinator itself learns, for rules that compare with it."""
        if self._root is None or not now.terms.aggregation.rule.needs_root:
            return None
        lesson = Lesson(now.server.model, self._root, self.sites.rest(next(iter(self._rows))))
        trained = learn(self._recipe, lesson, now.terms.training, NoMechanism(), self._chance.root(number), UNGUARDED)
        return ArrayNumbers(flatten(trained.delta))


@dataclass(frozen=True, eq=False)
class _Arrived:
    """The updates of some sites to one plan, in order of names."""

    number: int
    terms: Terms
    jobs: Sequence[Job]
    done: Sequence[Done]
    files: Sequence[bytes | None]
    updates: Updates


@dataclass(frozen=True, eq=False)
class _Agreed:
    """What a cohort agreed on, and what the coordinator remembers of it."""

    delta_D: Float32
    verdicts: Mapping[str, Verdict]
    influence: Mapping[str, float]
    memory: Memory


def _kept_whole(_: str, blocks: Iterator[Float32]) -> Numbers:
    """Where a site's average is put: into memory."""
    return ArrayNumbers(np.concatenate(list(blocks)))
