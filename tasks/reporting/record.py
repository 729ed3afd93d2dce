"""What a report is made of. Everything in it may be shown to every member: no record, no tensor, no secret."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from fedround.aggregation.verdict import Verdict
from fedround.contribution.payout import Account
from fedround.contribution.said import Contribution
from fedround.drift.judge import Drift
from fedround.errors import ContractError
from fedround.fairness_of_groups import GroupFairness
from fedround.learning.tasks import Margin, Metrics, in_words
from fedround.standing import Incentive
from fedround.values import Value
from tasks.reporting.words import change, with_margin
from validation.reliability import Explained

Outcome = Literal["updated", "left_out", "refused", "rejected", "missing", "excluded"]
MOST_DRAWN = 100
Place = Literal["public", "at_sites"]
"""Where a model was judged: on the coordinator's public test set, or on the rows that sites hold out, from noised counts."""


class SiteRow(Value):
    """What one site did in one round. None: not known, or does not apply."""

    site: str
    outcome: Outcome
    """updated: it is in the aggregate; left_out: the aggregation excluded it for its numbers; refused: the site refused;
    rejected: the coordinator rejected the answer; missing: no answer; excluded: not asked, by the reputation policy, or not
    chosen."""
    note: str
    """The reason, as the site or the coordinator worded it. Shown, never trusted."""
    weight: float
    checks: tuple[str, ...] = ()
    """The ids of the data contract's checks that its files fail: what it refused for, or, in an answer, what only warns."""
    cluster: int | None = None
    """Which of several models it chose and trained; None: there is one for all."""
    verdict: Verdict | None = None
    """How the aggregation judged its update."""
    norm: float | None = None
    """L2 norm of the update; with a history, of the site's moving average."""
    distance: float | None = None
    """L2 distance of that from the aggregate."""
    influence: float | None = None
    """The site's share of the aggregate."""
    epsilon: float | None = None
    """Spent on this run so far."""
    epsilon_alone: float | None = None
    """The same if nobody else's share of a sum's noise counts; None: none is shared."""
    uploaded_bytes: int | None = None
    """Of its update, as it left; None: no update was admitted."""
    answered_s: float | None = None
    """Seconds from the plan until its answer, with its update, was read and judged, by the coordinator's clock."""
    fetched_s: Annotated[float, Field(ge=0)] | None = None
    """Of these, seconds in which the coordinator waited for the store to give out answer and update."""
    fetches: Annotated[int, Field(ge=0)] | None = None
    """In so many calls of the store."""
    local: Metrics | None = None
    """This round's model on the site's own validation rows, from noised counts; known a round later."""
    local_margin: Margin | None = None
    """How far the noise may have moved that; None: it is not noised, or not known."""


class Timing(Value):
    """How long a round's parts took, by the coordinator's own clock. No site signs it, and no commit holds it."""

    steps: tuple[tuple[str, Annotated[float, Field(ge=0)]], ...] = ()
    """What was done, in its order, and the seconds."""
    answered: Mapping[str, Annotated[float, Field(ge=0)]] = {}
    """By site: seconds from the plan until its answer, with its update, was read and judged."""
    fetched: Mapping[str, tuple[Annotated[float, Field(ge=0)], Annotated[int, Field(ge=0)]]] = {}
    """By site: of these, seconds in which the store was waited for, and in how many calls."""


NOT_TIMED = Timing()
"""Of a report that was written later, from the store."""


class Contributed(Value):
    """What each site's update did for a round's model, and what the run so far adds up to."""

    said: Contribution
    accounts: tuple[Account, ...]
    incentive: Incentive | None
    """By which the points of the accounts were given."""


class Beside(Value):
    """Another model on the same public rows, for comparison."""

    what: str
    """What it was trained on, and whether that was simulated."""
    test: Metrics
    privacy: str


class Lineage(Value):
    """What the round stands on: what `fedround verify` proves of it, by name and SHA-256."""

    coordinator: str
    """The public key that signed all of it."""
    commit: str
    plan: str | None
    federation_file: str
    log: int
    """The entry of the federation log that holds that file."""
    recipe: str
    recipe_digest: str
    contract_digest: str


class RoundRecord(Value):
    """One committed round."""

    federation: str
    run: str
    round: Annotated[int, Field(ge=0)]
    model: str
    """SHA-256 of the model that the round made."""
    parent: str | None
    """SHA-256 of the model that it started from."""
    aggregation: str
    optimizer: str
    privacy: str
    """The whole promise in a sentence: unit, neighbouring relation, epsilon, delta and accountant."""
    chosen: str = ""
    """What was chosen for the run when it began; empty: nothing."""
    worth: str = ""
    """The same in other words: at other deltas, as a Gaussian, and against the rows."""
    quorum: int
    seconds: float
    steps: tuple[tuple[str, float], ...] = ()
    """What the coordinator did, in its order, and the seconds of each; empty: the report was written later."""
    ended: AwareDatetime | None = None
    """When the coordinator had committed it, by its own clock; None: the report was written later, from the store."""
    lineage: Lineage | None = None
    """None: the record is of a version that did not write it."""
    public: Metrics | None = None
    """On the public test set; None if there is none."""
    at_sites: Metrics | None = None
    """On all rows that the sites hold out, from noised counts; known a round later."""
    at_sites_margin: Margin | None = None
    """How far the noise may have moved that; None: it is not noised, or not known."""
    sites: tuple[SiteRow, ...]
    epsilon_limit: float | None = None
    """What each site may spend on this run; None without differential privacy."""
    rounds_agreed: int | None = None
    """For how many rounds of this run that is; None without differential privacy, or not known."""
    reputation: str = "off"
    """The rule by which a member is not asked for a while."""
    note: str = ""
    """Why the gate did less than it was asked to."""
    near: tuple[str, ...] = ()
    """The sites whose updates were compared, in the order of `distances`."""
    distances: tuple[tuple[float, ...], ...] = ()
    """L2 distance between every two of these updates."""
    training: str = ""
    """What every site did."""
    compression: str = "none"
    """How updates were made smaller before they left."""
    contract: str = ""
    """The data contract, and which of its checks only warn."""
    uploaded_bytes: int = 0
    """All updates of the round together."""
    fairness: GroupFairness | None = None
    """How this round's model decides about groups; known if a promotion asked."""
    drift: Drift | None = None
    """The run's newest measurement of drift at that time."""
    contribution: Contributed | None = None
    """Known if it was asked for."""
    explained: Explained | None = None
    """How this round's model decides about the public rows; known if it was asked for."""
    beside: tuple[Beside, ...] = ()
    """What this round's model was compared with, where somebody did."""
    estimated: bool = False
    """Whether these distances are estimates, from a sample of the model."""

    @model_validator(mode="after")
    def _check_distances(self) -> Self:
        if [len(row) for row in self.distances] != [len(self.near)] * len(self.near):
            raise ValueError(f"expected the distances of {len(self.near)} sites")
        return self

    @property
    def updates(self) -> int:
        """How many sites are in the aggregate."""
        return sum(row.outcome == "updated" for row in self.sites)

    @property
    def met_quorum(self) -> bool:
        """Whether enough sites answered with an update that was admitted: those that the aggregation left out count, too."""
        return sum(row.outcome in {"updated", "left_out"} for row in self.sites) >= self.quorum

    @property
    def numbers(self) -> dict[str, float]:
        """How good the model is, what drifted, and how far groups are apart: under these names in metrics.json, `dvc metrics`
        and, with `fedround_` before them, in Prometheus' text.
        """
        model = {} if self.public is None else self.public.known()
        drift = {} if self.drift is None else self.drift.numbers()
        return {**model, **drift, **({} if self.fairness is None else self.fairness.numbers())}

    @property
    def largest_epsilon(self) -> float | None:
        """The most that any site has spent, or None if no site told."""
        return max((row.epsilon for row in self.sites if row.epsilon is not None), default=None)


def timing_of(record: RoundRecord) -> Timing:
    """What the record knows of it."""
    return Timing(steps=record.steps, answered={
        row.site: row.answered_s for row in record.sites if row.answered_s is not None}, fetched={
        row.site: (row.fetched_s, row.fetches) for row in record.sites
        if row.fetched_s is not None and row.fetches is not None})


@dataclass(frozen=True)
class Links:
    """Where a page leads: to the rounds before and after it that have pages; None: there is none."""

    before: int | None
    after: int | None


@dataclass(frozen=True)
class Metric:
    """One of the numbers that say how good a model is."""

    place: Place
    name: str
    word: str
    """The task's."""

    @property
    def label(self) -> str:
        """For people: "AUC", "Accuracy at the sites, noised"."""
        return self.word[:1].upper() + self.word[1:] + ("" if self.place == "public" else " at the sites, noised")

    def of(self, record: RoundRecord) -> float | None:
        """Its value in one round; None: not known."""
        found = record.public if self.place == "public" else record.at_sites
        return None if found is None else found.known().get(self.name)

    def margin(self, record: RoundRecord) -> float | None:
        """How far noise may have moved it; None: it is not noised, or the record does not say."""
        known = record.at_sites_margin if self.place == "at_sites" else None
        return None if known is None else known.of(self.name)

    def told(self, record: RoundRecord) -> str:
        """Value and margin, in words."""
        return with_margin(self.of(record), self.margin(record))

    def moved(self, now: RoundRecord, before: RoundRecord) -> str:
        """How far it has moved; and whether noise alone may do that. Empty: one of the two is not known."""
        value, former = self.of(now), self.of(before)
        return "" if value is None or former is None else change(value, former, self.margin(now), self.margin(before))


def drawn(records: Sequence[RoundRecord]) -> Sequence[RoundRecord]:
    """Those of a run's rounds that its charts and tables show: at most `MOST_DRAWN`, however long the run is.

    These are the last ones; and of those before the first, and from there on every second, fourth, eighth … round.
    """
    if len(records) <= MOST_DRAWN:
        return records
    last, step = MOST_DRAWN // 2, 1
    while len(older := records[:-last:step]) > last:
        step *= 2
    return [*older, *records[-last:]]


def metrics_of(records: Iterable[RoundRecord]) -> list[Metric]:
    """Every metric that any round has: on the public test set, then at the sites; in the task's order."""
    rounds = list(records)
    public = [_metrics("public", record.public) for record in rounds]
    at_sites = [_metrics("at_sites", record.at_sites) for record in rounds]
    return list(dict.fromkeys(itertools.chain(*public, *at_sites)))


def foremost(found: Metrics | None) -> tuple[str, float] | None:
    """The metric that a headline tells, by the task's word; None: nothing is known."""
    return None if found is None else next(((in_words(name), value) for name, value in found.known().items()), None)


def local(row: SiteRow) -> tuple[str, float, float | None] | None:
    """The metric that a headline tells, on the rows that one site holds out: its word, its value, and its margin."""
    if row.local is None:
        return None
    return next(((in_words(name), value, None if row.local_margin is None else row.local_margin.of(name))
                 for name, value in row.local.known().items()), None)


def check_campaign(records: Sequence[RoundRecord]) -> RoundRecord:
    """The last of `records`. Raises ContractError unless they are rounds of one run, in order."""
    if not records:
        raise ContractError("a report needs at least one round")
    if len({(record.federation, record.run) for record in records}) > 1:
        raise ContractError("a report is about one run of one federation; these records are of several")
    numbers = [record.round for record in records]
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise ContractError(f"the rounds of a report must ascend, got {numbers}")
    return records[-1]


def _metrics(place: Place, found: Metrics | None) -> list[Metric]:
    return [] if found is None else [Metric(place, name, in_words(name)) for name in found.known()]
