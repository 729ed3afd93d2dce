"""Rebuilding what a folder that was restored from a backup has forgotten, so that it can answer again.

The witnesses are what this site's key signed and lies in the store; what its audit log and outbox still hold; and what the
coordinator signed about it, in commits (the ledger's length, whose updates they hold) and plans.

What is proven is charged as it was. Some charges are known to have been made, and nothing shows what for. Each of them is
charged as the dearest release that any witness could have asked for (`fedround.privacy.units.dearest`).
Promised: nothing that any witness shows costs less afterwards than it did. Not promised: what no witness shows at all. If a
store hides every later answer, and a coordinator hides every later commit, their cost stays hidden too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from fedround import layout
from fedround.errors import ContractError, SetupError
from fedround.privacy import ledger
from fedround.privacy.entries import Charge, Lot, Rows
from fedround.privacy.spec import Mechanism
from fedround.privacy.units import dearest
from fedround.records import ANSWERS, Answer, Commit, Join, Plan, SiteAnswer
from fedround.rounds.campaign import counts_leave
from fedround.rounds.offer import Offer, offer
from fedround.sightings import answers_to
from fedround.signing import MAX_DOCUMENT_BYTES, digest, envelope
from fedround.spoken import how_many
from fedround.values import Digest, Purpose, parse
from infra.documents import NOT_OURS
from infra.epochs import concluded
from infra.federation_log import signed_length
from infra.history import InTurn, in_turn, read_plan_at
from site_workers import audit, charging, exchange, once, outbox, rollback
from site_workers.rollback import SentBefore
from site_workers.rows import rows_of
from site_workers.site import Site


@dataclass(frozen=True)
class Recovery:
    """What a folder has forgotten."""

    answers: tuple[SentBefore, ...]
    """Answers and refusals that the outbox lacks."""
    proven: tuple[Charge, ...]
    """Charges that the ledger lacks, as they were."""
    unknown: tuple[Charge, ...]
    """Charges that were made, and whose cost nothing shows: each has the highest possible price."""

    @property
    def charges(self) -> tuple[Charge, ...]:
        """All that the ledger lacks."""
        return (*self.proven, *self.unknown)


@dataclass(frozen=True)
class _History:
    """What the coordinator signed about this site."""

    plans: dict[str, Plan]
    """Plans that ask this site, by digest."""
    updated: dict[str, Commit]
    """Commits that hold an update of this site, which its own key sighted; by plan."""
    longest: int
    """The length of the ledger, by the commit with the highest number."""


def forgotten(site: Site) -> Recovery:
    """What this folder has forgotten, as far as any witness shows it. Changes nothing.

    Raises SetupError, with what to do, if a cost cannot be bounded.
    """
    keys = rollback.own_keys(site, signed_length(site.store, site.settings.coordinator))
    lost = tuple(rollback.not_kept(site, keys))
    book, history = ledger.read(site.ledger), _history(site, keys)
    charges = book.charges
    said = [*(sent.answer for sent in lost), *_kept(site)]
    known = {(charge.plan, charge.mechanisms) for charge in charges}
    proven = tuple(_of_its_partition(charge, book, history.plans) for release, charge in
                   _proven(site, said, history.plans).items() if release not in known)
    lengths = [history.longest, *(answer.charges for answer in said if isinstance(answer, Answer))]
    others = len(book.entries) - len(charges)
    return Recovery(lost, proven, tuple(_unknown(site, (*charges, *proven), history, max(lengths) - others)))


def restore(site: Site, recovery: Recovery) -> None:
    """Put back what was forgotten. Killed at any point, it is begun again with `forgotten`; nothing is charged twice."""
    before = len(ledger.read(site.ledger).entries)
    audit.record(site.folder, *(audit.Recovered(
        utc=charge.utc, plan=charge.plan, mechanisms=charge.mechanisms, charges=before + number)
        for number, charge in enumerate(recovery.charges, start=1)))
    for charge in recovery.charges:
        ledger.charge(ledger.read(site.ledger), charge, float("inf"))       # it is spent already, whatever the policy says
    for sent in recovery.answers:
        outbox.put_back(site.safe, sent.key, sent.document)
    for answer in _kept(site):
        if answer.asked == "keys":      # what was revealed for their slots is not known any more
            once.close(site.folder, answer.plan)
        if answer.asked == "join" and isinstance(answer, Answer):
            _remember_exchange(site, answer)
    audit.find_again(site.safe, site.clock())


def _remember_exchange(site: Site, answer: Answer) -> None:
    """A step that was answered belongs to an exchange that some grant was used for. If nobody shows which, each was. Of an
    exchange that is known nothing is answered any more: for what its steps were, the folder has forgotten.
    """
    try:
        plan, named = read_plan_at(site.store, answer.run, answer.round, answer.attempt, "join", site.settings.coordinator)
        asks = plan.asks
    except NOT_OURS:
        asks, named = None, answer.plan
    if asks is None or named != answer.plan or not isinstance(asks, Join):
        for grant in site.policy.vertical:
            exchange.was_used(site, grant.peer, grant.purpose, answer.plan)
        return
    link = _link(site, plan, named, asks)
    exchange.was_used(site, asks.peer_of(site.name), asks.purpose, link)
    exchange.close(site, link)


def _link(site: Site, plan: Plan, named: Digest, asks: Join) -> Digest:
    """Which exchange a step belongs to. If nobody shows it, the step counts as one by itself."""
    if not asks.before:
        return named
    try:
        _, first = concluded(site.store, site.settings.coordinator, plan.run, plan.federation_digest, asks.before[0], "join")
    except NOT_OURS:
        return named
    return first.plan


def _proven(site: Site, said: Iterable[SiteAnswer],
            plans: Mapping[str, Plan]) -> dict[tuple[str | None, tuple[Mechanism, ...]], Charge]:
    """What the site's own answers and its own audit log say that it charged, each release once, in the ledger's order.

    A plan may have been charged twice, for other rows: such charges differ in their mechanisms.
    """
    answers = sorted((answer for answer in said if isinstance(answer, Answer) and answer.mechanisms),
                     key=lambda one: one.charges)
    charges = [*(_from_answer(site, answer, plans.get(answer.plan)) for answer in answers), *_from_audit(site)]
    return {(charge.plan, charge.mechanisms): charge for charge in charges}


def _of_its_partition(charge: Charge, book: ledger.Ledger, plans: Mapping[str, Plan]) -> Charge:
    """The charge, paid by the partition that its plan names. By all rows if nobody knows the plan, or if rows were ever told
    apart in two ways.
    """
    named = {part.in_ledger for plan in plans.values() if (part := plan.asks.partition) is not None}
    part = None if (plan := plans.get(charge.plan or "")) is None else plan.asks.partition
    apart = all(ledger.tells_apart(book, one) and (part is None or one.endswith(f"-{part.scheme}")) for one in named)
    return charge.model_copy(update={"partition": part.in_ledger}) if part is not None and apart else charge


def _from_answer(site: Site, answer: Answer, plan: Plan | None) -> Charge:
    """The charge for an answer.

    plan: the plan that it answers, which says for how many rounds the campaign was set aside; None: it is lost.
    """
    charge = _charge(site, answer.federation, answer.run, answer.round, answer.asked, answer.plan, answer.mechanisms)
    if plan is None or not plan.asks.makes_model:
        return charge
    if answer.masked is not None:
        offered = offer(plan.asks, plan.agreed, 1, lambda _: True)
    elif answer.update is not None:
        offered = Offer(answer.update.mechanism,  # type: ignore[arg-type]  # an update's is one of training
                        tuple(release.statistic for release in answer.releases), plan.agreed.privacy)
    else:
        return charge
    rows = charging.pays_apart(site, offered)
    campaign = offered.campaign(rows, groups=plan.agreed.groups, drift=plan.agreed.drift)
    return charge.model_copy(update={"campaign": campaign, "rows": rows})


def _from_audit(site: Site) -> Iterator[Charge]:
    events = audit.read(site.folder)
    asked = {event.plan: event for event in events if isinstance(event, audit.Asked)}
    for event in events:
        if isinstance(event, audit.Spent) and (plan := asked.get(event.plan)) is not None:
            yield _charge(site, plan.federation, plan.run, plan.round, plan.purpose, event.plan, event.mechanisms,
                          event.campaign, event.rows)


def _unknown(site: Site, known: tuple[Charge, ...], history: _History, longest: int) -> Iterator[Charge]:
    """Charges that commits name, and charges that are missing from the known number."""
    charged = {charge.plan for charge in known}
    named = {plan: commit for plan, commit in history.updated.items() if plan not in charged}
    nameless = max(0, longest - len(known) - len(named))
    if not named and nameless == 0:
        return
    for plan, commit in named.items():
        if plan not in history.plans:
            raise SetupError(
                f"round {commit.round} of run '{commit.run}' holds an update of this site, and neither the answer nor the "
                "plan is in the store: its cost is unknown. Ask the coordinator for both, or stay out with "
                "max_epsilon = 0 in policy.toml")
    price = dearest((*(charge.mechanisms for charge in known),
                     *(_asked(site, asked) for plan, asked in history.plans.items() if plan not in charged)))
    if price == ():
        raise SetupError(f"{how_many(nameless, 'charge', 'is', 'are')} missing, and neither the ledger nor the store shows a "
                         "plan: their cost is unknown. Stay out with max_epsilon = 0 in policy.toml")
    for plan, commit in named.items():
        yield _charge(site, commit.federation, commit.run, commit.round, "train", plan, price)
    for _ in range(nameless):
        yield _charge(site, site.settings.federation, None, 0, "train", None, price)


def _asked(site: Site, plan: Plan) -> tuple[Mechanism, ...]:
    """What a plan would have cost this site, with its present rows and policy. Nothing if the site would refuse."""
    if isinstance(plan.asks, Join):
        return plan.asks.noised if site.name == plan.asks.labels else ()
    if plan.agreed.privacy.unit not in site.policy.units or not plan.asks.is_of_rows:
        return ()
    try:
        rows = rows_of(site, plan.asks.partition, plan.agreed.privacy)
        return offer(plan.asks, plan.agreed, rows.units(plan.agreed.privacy),
                     lambda _: counts_leave(plan.agreed.privacy)).mechanisms
    except ContractError:
        return ()                       # no noise keeps its promise


def _charge(site: Site, federation: str, run: str | None, number: int, purpose: Purpose, plan: str | None,
            mechanisms: Iterable[Mechanism], campaign: tuple[Lot, ...] = (),
            rows: tuple[Rows, ...] = ()) -> Charge:
    """campaign: what was set aside for it. Empty: it is unknown, and the charge counts alone, which is never cheaper."""
    charge = Charge(federation=federation, run=run, round=number, plan=plan, mechanisms=tuple(mechanisms),
                    purpose=purpose,  # type: ignore[arg-type]  # of what was charged
                    delta_dp=site.policy.delta_dp, utc=audit.utc(site.clock()), rows=rows)
    return charge.model_copy(update={"campaign": campaign or charge.alone()})


def _kept(site: Site) -> Iterator[SiteAnswer]:
    """What is in the outbox: a ledger that was restored alone has forgotten it too."""
    for entry in outbox.entries(site.safe):
        yield parse(ANSWERS[entry.kind], envelope(entry.answer, f"{entry.folder}").body, f"{entry.folder}")


def _history(site: Site, keys: frozenset[str]) -> _History:
    """Every plan and commit in the store that the coordinator signed, as far as they are about this site."""
    found = _History({}, {}, 0)
    commits: list[Commit] = []
    for key in site.store.list(layout.RUNS):
        if layout.parse_plan(key) is not None:
            document, plan = _signed(site, key, Plan)
            if plan is not None and site.name in plan.cohort:
                found.plans[digest(document)] = plan
        elif layout.parse_commit(key) is not None:
            _, commit = _signed(site, key, Commit)
            commits += [] if commit is None else [commit]
    longest, made_with = 0, {(commit.run, commit.round): commit.plan for commit in commits}
    for commit in commits:
        ours = [known for known in commit.ledgers if known.site == site.name and known.key in keys]
        longest = max([longest, *(known.charges for known in ours)])
        mine = [update for update in commit.updates if update.site == site.name]
        if ours and mine and (made := made_with.get((commit.run, answers_to(commit, mine[0])))) is not None:
            found.updated[made] = commit
    return replace(found, longest=longest)


def _signed(site: Site, key: str, body: type[InTurn]) -> tuple[bytes, InTurn | None]:
    """A document of our coordinator; None for anything else that lies there."""
    try:
        document = site.store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
        return document, in_turn(site.store, document, body, site.settings.coordinator, key)
    except NOT_OURS:
        return b"", None
