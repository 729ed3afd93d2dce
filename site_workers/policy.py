"""What a site's operator allows: the file policy.toml, and what it says to a plan. Nothing a coordinator sends widens it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal, Self

import tomlkit
from pydantic import Field, model_validator

from fedround.hours import WEEK, Hours
from fedround.privacy import sense
from fedround.privacy.spec import NoPrivacy, PersonPrivacy, Unit
from fedround.records import Measure, Plan, Reason, Train
from fedround.rounds.campaign import counts_leave
from fedround.statistics import Statistic
from fedround.statistics.partitions import Partitions, of_one_kind
from fedround.values import ColumnName, Digest, OfRows, Value
from site_workers.grants import Grant, grants_text
from site_workers.question_form import QuestionForm, is_agreed
from validation.quotes import Enclave

Protected = Literal["record", "person", "site", "none"]
Leaves = Literal["scores", "checks", "histograms", "group_counts", "decisions", "moments",
                 "missing", "quantiles", "models", "cox", "sketches", "prefixes", "importance", "class_sums"]
"""What may leave besides updates: the words of the statistics, and the ids of failed checks."""


class Limits(Value):
    """What the process that trains may take from its machine; `site_workers.limits` holds it to that."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    nice: Annotated[int, Field(ge=0, le=19)] = 0
    memory_mb: Annotated[int, Field(ge=256, le=1 << 24)] | None = None
    seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600


class SitePolicy(Value):
    """policy.toml. Its generated text explains every key to the operator; docs/operating/site.md is the reference."""

    recipes: tuple[Digest, ...]
    contracts: tuple[Digest, ...]
    purposes: Annotated[tuple[OfRows, ...], Field(min_length=1)] = ("train", "evaluate")
    units: Annotated[tuple[Protected, ...], Field(min_length=1)] = ("record",)
    max_epsilon: Annotated[float, Field(ge=0, le=1000)]
    """For one record: over everything that ever leaves and depends on this data set."""
    person: ColumnName | None = None
    """The column that says whose row it is; with the unit "person" only. Plans that name another are refused."""
    max_epsilon_person: Annotated[float, Field(ge=0, le=1000)] | None = None
    """The same for all rows of one person; with the unit "person" only."""
    max_epsilon_site: Annotated[float, Field(ge=0, le=1000)] | None = None
    """The same for the site's whole contribution; with the unit "site" only."""
    max_epsilon_label: Annotated[float, Field(ge=0, le=1000)] | None = None
    """The same for one row's label, exchanged for another. None: no label is told to a peer."""
    max_epsilon_per_run: Annotated[float, Field(ge=0, le=1000)] | None = None
    """For one record, within one campaign."""
    max_epsilon_alone: Annotated[float, Field(ge=0, le=1000)] | None = None
    """For one record, or one person if persons are protected, if nobody else's share of a sum's noise counts: what is left of
    the promise if all others tell what they added. None: no more than if nobody shared, so plans that share noise are refused
    unless the site's own share suffices."""
    delta_dp: Annotated[float, Field(gt=0, lt=0.1)]
    min_rows: Annotated[int, Field(ge=1, le=10 ** 12)] = 100
    min_class_rows: Annotated[int, Field(ge=0, le=10 ** 12)] = 0
    """The fewest training rows of each label, before a site joins: `site check` says so, and no refusal does."""
    max_refusals: Annotated[int, Field(ge=1, le=10_000)] = 50
    """The most refusals, in all, whose reason may depend on rows."""
    min_noise_multiplier: Annotated[float, Field(ge=0, le=1000)] = sense.MIN_NOISE_MULTIPLIER
    """The least noise of every single release, even if a record is rarely drawn for it."""
    min_batch: Annotated[int, Field(ge=1, le=1_000_000)] = sense.MIN_BATCH
    """The least number of rows that a step is expected to draw, if records are protected; of persons, if they are."""
    statistics: tuple[Leaves, ...] = ("scores", "checks")
    partitions: tuple[Partitions, ...] = ()
    """How plans that train may tell rows apart. The coordinator then learns how many rows each partition has."""
    questions: QuestionForm = QuestionForm()
    limits: Limits = Limits()
    hours: Hours | None = None
    """When plans may be carried out; None: always."""
    vertical: tuple[Grant, ...] = ()
    """Which peers may know which customers both have, and more of them. Nobody may, unless it stands here."""
    enclave: Enclave | None = None
    """In which enclave the coordinator's key must be; None: anywhere."""

    @model_validator(mode="after")
    def _check_grants(self) -> Self:
        named = [(one.peer, one.purpose) for one in self.vertical]
        if len(set(named)) < len(named):
            raise ValueError("two [[vertical]] are of the same peer and purpose: make one of them")
        return self

    @model_validator(mode="after")
    def _check_budgets(self) -> Self:
        if len({"record", "person", "site"} & set(self.units)) > 1:
            raise ValueError("units is \"record\", \"person\" or \"site\": what was noised for records promises nothing for "
                             "a person or for the site, nor what was for persons for the site")
        if not ("person" in self.units) == (self.max_epsilon_person is not None) == (self.person is not None):
            raise ValueError("person and max_epsilon_person go with the unit \"person\": give all three or none")
        if ("site" in self.units) != (self.max_epsilon_site is not None):
            raise ValueError("max_epsilon_site goes with the unit \"site\": give both or neither")
        if self.max_epsilon_per_run is not None and self.max_epsilon_per_run > self.max_epsilon:
            raise ValueError(f"max_epsilon_per_run {self.max_epsilon_per_run:g} is above max_epsilon {self.max_epsilon:g}: "
                             "a campaign is part of the whole")
        if self.max_epsilon_alone is not None and self.max_epsilon_alone < self.alone[1]:       # the larger of the two
            raise ValueError(f"max_epsilon_alone {self.max_epsilon_alone:g} is below what may be spent with others' noise: a "
                             "site alone never spends less")
        return self

    @property
    def allows_no_privacy(self) -> bool:
        """Whether plans without noise may run, which ends every guarantee for the data set."""
        return "none" in self.units

    @property
    def budgets(self) -> dict[Unit, float]:
        """The most that may ever be spent, for each unit that is promised anything."""
        bounds: dict[Unit, float | None] = {
            "record": self.max_epsilon, "person": self.max_epsilon_person, "site": self.max_epsilon_site,
            "label": self.max_epsilon_label}
        return {unit: bound for unit, bound in bounds.items() if bound is not None}

    @property
    def alone(self) -> tuple[Unit, float]:
        """Whom, and how much may be spent if nobody else's noise counts."""
        unit: Unit = "person" if self.max_epsilon_person is not None else "record"
        bound = self.budgets[unit]
        return unit, bound if self.max_epsilon_alone is None else max(bound, self.max_epsilon_alone)

    @property
    def bounds(self) -> tuple[float, float | None, float | None]:
        """For one record, for the site as a whole, and for one record in one campaign."""
        return self.max_epsilon, self.max_epsilon_site, self.max_epsilon_per_run

    def lets_out(self, statistic: Statistic, plan: Plan) -> bool:
        """Whether the answer to this plan may carry this statistic."""
        return statistic.word in self.statistics and counts_leave(plan.agreed.privacy)


def objection(policy: SitePolicy, plan: Plan, recipe: Digest, contract: Digest,
              now: datetime) -> tuple[Reason, str] | None:
    """Why the policy does not allow the plan now, in words for the coordinator; None if it does.

    recipe, contract: the digests of the site's current files. What the ledger and the rows say is asked later.
    """
    return next(_objections(policy, plan, recipe, contract, now), None)


def _objections(policy: SitePolicy, plan: Plan, recipe: Digest, contract: Digest,
                now: datetime) -> Iterator[tuple[Reason, str]]:
    agreed = plan.agreed
    if plan.asks.is_of_rows and plan.asks.kind not in policy.purposes:
        yield Reason.POLICY, f"plans to {plan.asks.kind} are not allowed here"
    if agreed.recipe_digest not in policy.recipes or agreed.recipe_digest != recipe:
        yield Reason.POLICY, f"recipe {agreed.recipe_digest[:16]} is not approved here"
    if agreed.contract_digest not in policy.contracts or agreed.contract_digest != contract:
        yield Reason.POLICY, f"contract {agreed.contract_digest[:16]} is not approved here"
    for problem in _about_privacy(policy, plan):
        yield Reason.POLICY, problem
    for statistic in plan.asks.statistics:
        if not policy.lets_out(statistic, plan):
            if plan.needs_all:
                yield Reason.POLICY, f"{statistic.in_words} do not leave here"
        elif statistic.noise_std == 0 and not policy.allows_no_privacy:
            yield Reason.POLICY, f"{statistic.in_words} without noise are not allowed here"
    if isinstance(plan.asks, Measure):
        for problem in policy.questions.objections(plan.asks, policy.partitions, agreed=is_agreed(plan)):
            yield Reason.POLICY, problem
    part = plan.asks.partition
    if part is not None and plan.asks.reads_model and not any(of_one_kind(one, part) for one in policy.partitions):
        yield Reason.POLICY, f"plans about rows that are told apart by {part.in_words} are not allowed here"[:300]
    if policy.hours is not None and not policy.hours.open(now):
        yield Reason.HOURS, f"not now: plans are carried out here {policy.hours}"


def _about_privacy(policy: SitePolicy, plan: Plan) -> Iterator[str]:
    privacy, per_run = plan.agreed.privacy, policy.max_epsilon_per_run
    if isinstance(privacy, NoPrivacy):
        if not policy.allows_no_privacy:
            yield "training without differential privacy is not allowed here"
        return
    if privacy.unit not in policy.units:
        yield f"privacy of the unit '{privacy.unit}' is not what the policy asks for here"
    if privacy.delta_dp > policy.delta_dp:
        yield f"delta_dp {privacy.delta_dp:g} is above the {policy.delta_dp:g} allowed here"
    if isinstance(privacy, PersonPrivacy) and privacy.person != policy.person:
        yield "persons are told apart by another column here"
    if privacy.unit != "site" and isinstance(plan.asks, Train) and (
            (batch := plan.agreed.training.batch_size) is not None and batch < policy.min_batch):
        yield f"batches of fewer than {policy.min_batch} {privacy.unit}s are not allowed here"
    if privacy.unit == "record" and per_run is not None and privacy.epsilon > per_run:
        yield f"epsilon {privacy.epsilon:g} for one run is above the {per_run:g} allowed here"


# -- the file that site init writes ------------------------------------------------------------------------------------

_TEXT = """\
# What this site allows. Nothing that a coordinator sends can widen it; only you change it. A change holds from the next plan
# on; threads and nice from the next start. 'fedround site check' says what is wrong in here; unknown keys are errors.

# The recipe (code that runs beside your rows) and the data contract that you have read, by SHA-256. 'fedround site
# approve' shows a file and adds its line; '--withdraw' takes it out. Nothing else runs.
recipes = {recipes}
contracts = {contracts}

# What a plan may ask for: "train" (and score the model on held-out rows), "evaluate" (only score it), "measure" (count
# something in your rows, as far as 'statistics' below allows).
purposes = {purposes}

# Whom the noise must protect: "record" (each row), "person" (all rows of one person, whom the column 'person' names) or
# "site" (your whole contribution). With "person", max_epsilon_person counts each person, and with "site", max_epsilon_site
# counts the contribution; max_epsilon still counts each row, at up to twice the price: allow about 12 for 5. With "none",
# plans without noise run here; the first of them ends all guarantees for the data set.
units = {units}
{person}

# The most that may ever be spent on the data set, over all campaigns and federations, at delta_dp. The ledger counts.
max_epsilon = {max_epsilon}
delta_dp = {delta_dp}
{max_epsilon_per_run}
{max_epsilon_person}
{max_epsilon_site}

# Labels may be told to a peer by a coin ([[vertical]] below). This is the most that may ever be spent on one row's label.
# What else is released counts, too, at up to twice its price. Without the line no label is told.
{max_epsilon_label}

# Where a federation adds up its members' numbers ('combine'), each adds a part of the noise. What is counted above holds
# while as many honest members as the federation file says add theirs: nobody then sees more than the sum. This is the most
# that may be spent if all the others told what they added, which is more. Without the line, plans that share noise are mostly
# refused.
{max_epsilon_alone}

# Fewer rows than this, and the site refuses to train; with "person", fewer persons.
min_rows = {min_rows}

# Fewer training rows than this with any of the labels, and 'site check' says that the site is not ready to join. It says so
# to you alone: a refusal would tell how many rows have a label. 0: no minimum.
min_class_rows = {min_class_rows}

# How often, in all, the site may refuse for a reason that rows can influence: files that cannot be read, a recipe that
# fails, time or memory. Each refusal tells a little. After that the site refuses everything, whatever the rows are. See its
# log, then raise this number.
max_refusals = {max_refusals}

# The least noise of a release, as a multiple of what one record can do to it, and the fewest rows that a step may draw. Below
# these the site refuses, however small the plan's epsilon is. It also refuses if delta_dp times its rows is above 0.1.
min_noise_multiplier = {min_noise_multiplier}
min_batch = {min_batch}

# What may leave besides model updates: "scores" (noised counts of the model's scores; charged to the budget), "checks" (the
# ids of the contract's checks on columns and types that your files fail), and for plans that measure "histograms" (how the
# values of a column lie), "group_counts" (how many rows each group has), "moments" (sums of columns and of their products:
# means, correlations, regressions), "quantiles" (counts in halves, quarters, eighths … of a range), "missing" (how often
# columns are empty), "sketches" (counts of hashed values), "prefixes" (of hashed beginnings
# of texts: values are found that nobody knew to ask for), "models" (steps of logistic, Poisson and hazard regressions),
# "cox" (sums over risk sets, which have no noise: with the unit "none" only), "decisions" (how often the model is right and
# wrong about the groups that the federation watches, on held-out rows), "importance" (how good the model is on held-out
# rows if a column's values come from public rows) and "class_sums" (sums of encoded rows by label, and of products of their
# numbers: rows are drawn from them), all noised and charged.
# What is not listed stays.
statistics = {statistics}

# How a plan may tell your rows apart, to train on one part of them (this week's, say), so that no other row pays. The
# coordinator then learns how many training rows each part has, as without parts it learns how many you have. Only name a
# column whose counts may be known: a date, never a diagnosis. One way is enough: what is told apart in a second way overlaps,
# and all rows pay for it. An example: [{{column = "day", by = "week"}}]; by is "day", "week", "month" or "value".
partitions = {partitions}

# Of which form questions about your rows may be ('fedround ask'): no code travels with them. Without a key, or with this
# section left out: any columns, at most 1000 numbers in one answer, any noise that the rest of this file allows, any asker.
[questions]
{columns}
most_numbers = {most_numbers}       # bins, groups or products in one statistic
min_noise_std = {min_noise_std}      # of each statistic, beside what one record adds at most
share = {share}              # of max_epsilon: what all questions together may spend
hours_between = {hours_between}      # from one question to the next
{askers}

# What training may take from this machine.
[limits]
threads = {threads}          # of arithmetic
nice = {nice}             # 0 to 19: 19 lets every other process go first
seconds = {seconds}       # of work on one plan; then it is refused, and nothing leaves
{memory_mb}

# When plans may be carried out, by the clock on the wall. Without this section: always. Outside: a signed "not now".
# An end that is not later than the start is on the next day; days are the days of the start.
{hours}

# Whom you let learn of single customers, one section for each peer and purpose: which of its customers are yours, too
# ("ids"), a label of each, told by a coin ("labels"), or a score of each, made from your columns ("scores"). What is learnt
# cannot be taken back, and only the labels have an epsilon. Without a section nothing of it leaves (docs/vertical.md).
{vertical}

# Plans only of a coordinator whose key an enclave (Intel TDX or SGX) of this measurement has named, in a quote that lies in
# this folder (docs/encrypted.md). Without a section: of the coordinator in site.toml, wherever its key is.
{enclave}
"""


def policy_text(policy: SitePolicy, approved: Mapping[str, str] = MappingProxyType({})) -> str:
    """policy.toml for this policy, with a comment on every key.

    approved: what stands beside the digest of a recipe or a contract. Later ones are added by `approval`, in the same form.
    """
    limits = policy.limits
    shown = {key: tomlkit.item(value).as_string() for key, value in (
        policy.model_dump(mode="json", include={
            "purposes", "units", "max_epsilon", "delta_dp", "min_rows", "min_class_rows", "max_refusals",
            "min_noise_multiplier", "min_batch", "statistics"})
        | policy.questions.model_dump(include={"most_numbers", "min_noise_std", "share", "hours_between"})
        | limits.model_dump(include={"threads", "nice", "seconds"})).items()}
    hours = policy.hours or Hours(time_zone="Europe/Berlin", start="20:00", end="06:00", days=WEEK[:5])
    section = "\n".join(["[hours]", *(f"{key} = {tomlkit.item(value).as_string()}"
                                      for key, value in hours.model_dump(mode="json").items())])
    return _TEXT.format(
        **shown, recipes=_listed(policy.recipes, approved), contracts=_listed(policy.contracts, approved),
        partitions=f"[{', '.join(map(_as_table, policy.partitions))}]",
        max_epsilon_per_run=_optional("max_epsilon_per_run", policy.max_epsilon_per_run, 2.0, "of it, in one campaign"),
        person=_optional("person", policy.person, "customer_id", 'the column; for plans of the unit "person"'),
        max_epsilon_person=_optional("max_epsilon_person", policy.max_epsilon_person, 8.0, 'for plans of the unit "person"'),
        max_epsilon_label=_optional("max_epsilon_label", policy.max_epsilon_label, 4.0, "for one label"),
        vertical=grants_text(policy.vertical), enclave=_enclave_text(policy.enclave),
        max_epsilon_alone=_optional("max_epsilon_alone", policy.max_epsilon_alone, 25.0, "if nobody else's noise counts"),
        max_epsilon_site=_optional("max_epsilon_site", policy.max_epsilon_site, 8.0, 'for plans of the unit "site"'),
        columns=_optional_names("columns", policy.questions.columns, "age", "the only columns that may be named"),
        askers=_optional_names("askers", policy.questions.askers, "ward-team", "the only ones who may ask"),
        memory_mb=_optional("memory_mb", limits.memory_mb, 4096, "of memory that the process may ask the system for"),
        hours=section if policy.hours is not None else "\n".join(f"# {line}" for line in section.splitlines()))


def _listed(digests: Sequence[str], approved: Mapping[str, str]) -> str:
    """A line for each, as `approval` adds one."""
    lines = [f'    "{one}", # {approved.get(one, "approved")}\n' for one in digests]
    return "\n".join(["[", "".join(lines) + "]"]) if lines else "[]"


def _enclave_text(enclave: Enclave | None) -> str:
    said = (enclave or Enclave(measurement="0" * 96)).model_dump(mode="json")
    lines = ["[enclave]", *(f"{key} = {tomlkit.item(value).as_string()}" for key, value in said.items())]
    return "\n".join(lines if enclave is not None else [f"# {line}" for line in lines])


def _as_table(one: Partitions) -> str:
    table = tomlkit.inline_table()
    table.update(one.model_dump())
    return table.as_string()


def _optional(key: str, value: float | str | None, example: float | str, what: str) -> str:
    """A line for a key, commented out if the key is not set."""
    shown = tomlkit.item(example if value is None else value).as_string()
    return f"{'# ' if value is None else ''}{key} = {shown}    # {what}"


def _optional_names(key: str, names: tuple[str, ...] | None, example: str, what: str) -> str:
    shown = tomlkit.item([example] if names is None else list(names)).as_string()
    return f"{'# ' if names is None else ''}{key} = {shown}    # {what}"
