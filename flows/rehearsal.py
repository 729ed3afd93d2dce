"""A round at a site that costs nothing and that nobody hears of: what the federation would ask today, what the site would
decide, charge and send, and how long it takes.

Everything is the real thing, except for what could cost or tell something::

    the coordinator, its federation log and its store    a folder, with a key that nobody knows
    the site's key, noise secret, outbox and audit log   a folder, too
    the ledger                                           a copy of the real one
    the rows                                             made up: as many as there are, each the same number
    the other members, where numbers are added up        made up: keys and shares of theirs, and nothing else

The site that answers knows only these folders. It has no path to a row, no credential and no address, so neither an error of
ours nor a recipe's code that runs here by the rules can charge or send anything. From the real files two numbers are read,
how many rows there are and how many features each has, and from the real store the federation log. All folders are removed
at the end. A process that is killed with SIGKILL leaves them in the folder for temporary files; they hold no row.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedround import codec, layout
from fedround.errors import Cancelled, SetupError
from fedround.federation import Federation
from fedround.files import write_whole
from fedround.learning.examples import Form
from fedround.learning.recipe import initial
from fedround.learning.trial import made_up
from fedround.privacy import ledger
from fedround.privacy.spec import GradientPrivacy, Mechanism, Unit
from fedround.records import Plan
from fedround.signing import Identity, seal
from fedround.values import CheckId, parse
from flows.rehearsed_keys import Others, set_up
from flows.rehearsed_keys import made_up as made_up_members
from infra.documents import read_named
from infra.federation_log import read_log, signed_length
from infra.settings import CoordinatorSettings, DataSettings, DirectorySettings
from infra.stores import open_store
from site_workers import audit, outbox, reading
from site_workers import round as site_round
from site_workers.authorise import Order
from site_workers.rows import Rows, columns_for, rows_of
from site_workers.site import Site
from tasks.begin import head_of
from tasks.coordinator import Coordinator
from tasks.evaluate import score_statistic
from tasks.partition import partition_asked, partition_of, settled
from tasks.plan import Planned, asked_to_train, compose, publish_plan
from tasks.requests import NextRoundRequest

_STORE, _START = DirectorySettings(path="../store"), "start.safetensors"


@dataclass(frozen=True)
class Chance:
    """What is drawn for one rehearsal, and for nothing else."""

    coordinator: Identity
    site: Identity
    noise_secret: bytes
    run: str


def drawn() -> Chance:
    """Anew, from the operating system."""
    return Chance(Identity.generate(), Identity.generate(), secrets.token_bytes(32), f"rehearsal-{secrets.token_hex(4)}")


@dataclass(frozen=True)
class Shape:
    """All that is known of the rows."""

    train: int
    validation: int
    form: Form
    units: int
    """Training rows, or persons who have some."""


@dataclass(frozen=True)
class Cost:
    """Epsilon that counts against the site's budget: what is spent, and what is set aside for campaigns."""

    before: float
    after: float
    most: float
    spent: float
    """By the one round, without what it sets aside for the campaign's others."""


@dataclass(frozen=True)
class Rehearsed:
    """What a round would be at this site."""

    plan: Plan
    is_member: bool
    shape: Shape
    decision: str
    """"carry out", or why not: the refusal's reason and detail."""
    carried_out: bool
    mechanisms: tuple[Mechanism, ...]
    """All that would be noised, as the ledger would be charged for it."""
    costs: dict[Unit, Cost]
    sent: tuple[audit.Left, ...]
    """The objects that would be uploaded."""
    reading_s: float
    working_s: float


def rehearse(site: Site, chance: Chance | None = None) -> Rehearsed:
    """Do what a round's beginning would do at this site, by the terms that the federation has agreed on today.

    Nothing is charged, nothing is written to the store or to the site's folder, and nothing depends on what the rows hold.
    Raises SetupError if no terms are agreed yet, and what a round would raise: ContractError if the rows cannot be read.
    """
    federation, is_member = _terms(site)
    if site.recipe.foreign is not None:
        raise SetupError("a rehearsal has made-up rows, and a foreign client reads its own data: 'fedround site check' looks "
                         "at all the rest")
    chance = chance or drawn()
    with tempfile.TemporaryDirectory(prefix="fedround-rehearsal-") as folder:
        others = None if federation.combine is None else made_up_members(
            {member.name for member in federation.sites} - {site.name})
        coordinator = _coordinator(Path(folder), site, federation, chance, others)
        stand_in = _stand_in(Path(folder) / "site", site, chance)
        planned = _planned(coordinator, chance.run, site, stand_in, others)
        began = time.perf_counter()
        shape = _shape(site, planned.plan)
        read = time.perf_counter()
        before = ledger.read(stand_in.ledger)
        _answer(stand_in, planned, shape)
        done = time.perf_counter()
        return _told(stand_in, planned, before, Rehearsed(
            planned.plan, is_member, shape, "", False, (), {}, (), read - began, done - read))


# -- who takes part ----------------------------------------------------------------------------------------------------


def _terms(site: Site) -> tuple[Federation, bool]:
    """The federation file that holds, and whether this site is a member yet."""
    key = site.settings.coordinator
    if (number := signed_length(site.store, key)) == 0:
        raise SetupError(f"federation '{site.settings.federation}' has agreed on nothing yet: its log is empty until the "
                         "coordinator's process has been started once ('fedround coordinator start')")
    federation = read_log(site.store, key, number)[-1].federation
    return federation, any(member.name == site.name for member in federation.sites)


def _federation(site: Site, agreed: Federation, chance: Chance, others: Others | None) -> Federation:
    """The same terms under another coordinator's key, with this site, under another key, among the members.

    others: where keys are made with them, under these keys, too.
    """
    said = agreed.model_dump(mode="json")
    rest = [member if others is None else {**member, "key": others[member["name"]].identity.key}
            for member in said["sites"] if member["name"] != site.name]
    ours = next((member for member in said["sites"] if member["name"] == site.name), None) or {
        "name": site.name, "weight": said["sites"][0]["weight"],
        "rows": None if others is None else rows_of(site, None, agreed.privacy).units(agreed.privacy)}
    quorum = said["quorum"] if agreed.combine is None else max(said["quorum"], agreed.combine.least(len(rest) + 1))
    return parse(Federation, {**said, "quorum": quorum, "coordinator": chance.coordinator.key,
                              "sites": [*rest, {**ours, "key": chance.site.key}]}, "the federation's terms")


def _coordinator(folder: Path, site: Site, agreed: Federation, chance: Chance, others: Others | None) -> Coordinator:
    federation, home = _federation(site, agreed, chance, others), folder / "coordinator"
    home.mkdir()
    if agreed.start is not None:
        model, rest = initial(site.recipe, 0, agreed.parts, per_record=isinstance(agreed.privacy, GradientPrivacy))
        write_whole(home / _START, read_named(
            site.store, layout.model(agreed.start), agreed.start, "the checkpoint that every run begins with",
            max_bytes=codec.size_bytes(codec.schema_of({**model, **rest.whole}))), durable=False)
    return Coordinator(
        folder=home, federation=federation, federation_document=seal(federation, chance.coordinator),
        identity=chance.coordinator, recipe=site.recipe, contract=site.contract, store=open_store(_STORE, home),
        settings=CoordinatorSettings(recipe="", contract="", start=_START, api_url="", store=_STORE))


def _stand_in(folder: Path, site: Site, chance: Chance) -> Site:
    """The site without a path to a row, a credential, an address, or a key that anybody knows."""
    shared = site.settings.data.ledger is not None
    data = DataSettings(dataset=site.settings.data.dataset, train="none.parquet", validation="none.parquet",
                        ledger="ledgers" if shared else None)
    settings = site.settings.model_copy(update={
        "coordinator": chance.coordinator.key, "api_url": "", "store": _STORE, "data": data, "foreign": None})
    stand_in = replace(site, folder=folder, settings=settings, identity=chance.site, noise_secret=chance.noise_secret,
                       store=open_store(_STORE, folder))
    stand_in.ledger.parent.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(site.ledger, stand_in.ledger)
    audit.begin(stand_in.safe, site.name, site.clock(), stand_in.ledger)
    return stand_in


# -- the round ---------------------------------------------------------------------------------------------------------


def _planned(coordinator: Coordinator, run: str, site: Site, stand_in: Site, others: Others | None) -> Planned:
    request = settled(coordinator, NextRoundRequest(run=run), site.clock().date())
    head = head_of(coordinator, run, partition_asked(coordinator, request))
    if others is not None:
        set_up(coordinator, head, stand_in, others)
    asks = asked_to_train(coordinator.federation.agreed(), head.commit, score_statistic(coordinator, head.commit),
                          partition_of(coordinator, head.commit))
    return publish_plan(coordinator, head, compose(coordinator, head, request, asks))


def _shape(site: Site, plan: Plan) -> Shape:
    privacy = plan.agreed.privacy
    rows = rows_of(site, plan.asks.partition, privacy)
    return Shape(len(rows.train), len(rows.validation), rows.train.form, rows.units(privacy))


def _answer(stand_in: Site, planned: Planned, shape: Shape) -> None:
    plan = planned.plan

    def read(site: Site, order: Order) -> tuple[Rows, tuple[CheckId, ...]]:
        agreed = order.plan.agreed
        train, validation = (made_up(site.recipe, rows, shape.form, agreed.parts,
                                     per_record=isinstance(agreed.privacy, GradientPrivacy))
                             for rows in (shape.train, shape.validation))
        turns_N = np.arange(len(train) + len(validation)) % max(shape.units, 1)
        whose = dict.fromkeys(columns_for(None, agreed.privacy), turns_N)
        return Rows(train, validation, b"", whose), ()

    with suppress(Cancelled):           # nobody asks what comes after a masked answer: whose answers are added up
        site_round.answer(
            stand_in, site_round.SiteRequest(run=plan.run, round=plan.round, attempt=plan.attempt, purpose=plan.asks.kind),
            lambda: plan.asks.slot is not None and outbox.find(stand_in.safe, plan) is not None,
            reading.Source(read, lambda *_: None))


def _told(stand_in: Site, planned: Planned, before: ledger.Ledger, known: Rehearsed) -> Rehearsed:
    """What lies in the folders after the round."""
    plan = planned.plan
    entry = next(entry for entry in outbox.entries(stand_in.safe) if entry.body.plan == planned.digest)
    after, delta_dp = ledger.read(stand_in.ledger), stand_in.policy.delta_dp
    new = after.charges[len(before.charges):]
    reason = entry.body.reason
    return replace(
        known, carried_out=reason is None,
        decision="carry out" if reason is None else f"{reason}: {entry.body.detail}",
        mechanisms=tuple(mechanism for charge in new for mechanism in charge.mechanisms),
        costs={unit: Cost(ledger.held(before, delta_dp, unit=unit), ledger.held(after, delta_dp, unit=unit), most,
                          ledger.spent(after, delta_dp, run=plan.run, unit=unit))
               for unit, most in stand_in.policy.budgets.items()},
        sent=tuple(event for event in audit.read(stand_in.folder)
                   if isinstance(event, audit.Left) and event.plan == planned.digest))
