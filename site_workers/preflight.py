"""Is this site ready? Each finding is one line: what was checked, whether it holds, and what to repair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import numpy as np

from fedround import layout
from fedround.errors import ContractError, FedroundError, StoreDeniedError
from fedround.learning.device import described
from fedround.learning.oddities import oddities
from fedround.learning.persons import ids_of
from fedround.learning.trial import try_out
from fedround.privacy import ledger, sense
from fedround.privacy.profile import upward
from fedround.privacy.spec import Unit
from fedround.spoken import how_many
from fedround.statistics.partitions import Partitions
from infra.prefect_client import look_at_api
from infra.stores import publish, require_conditional_writes
from site_workers import audit, database, rollback, worker_name
from site_workers.apart.opening import in_words
from site_workers.foreign import host
from site_workers.picture import hints
from site_workers.policy import SitePolicy
from site_workers.quality import Quality, label_counts, look
from site_workers.rows import judged, read_columns, read_site_rows
from site_workers.site import Site, open_site
from validation.column_checks import differences
from validation.judging import Judged
from validation.row_files import check_apart

MAX_CLOCK_SKEW_S = 120
_MANY = 0.1
"""The largest share of rows that may count for nothing: with more, the preflight says that the site is not ready."""

_WHOM: dict[Unit, str] = {
    "record": "", "person": " for each person", "site": " for the whole site", "label": " for each label"}


@dataclass(frozen=True)
class PreflightCheck:
    """One check of the preflight."""

    check: str
    ok: bool
    detail: str


def preflight(folder: Path) -> list[PreflightCheck]:
    """Check the folder first; if it opens, everything that depends on it. No check stops another."""
    try:
        site = open_site(folder.resolve())
    except FedroundError as error:
        return [PreflightCheck("folder", False, str(error))]
    return [PreflightCheck("folder", True, f"site '{site.name}' of federation '{site.settings.federation}'"),
            PreflightCheck("keys", True, f"public key {site.identity.key}"),
            *(_finding(name, check, site) for name, check in _CHECKS.items())]


def quality(folder: Path) -> Quality | None:
    """What the rows look like, for the operator alone; None if they cannot be read, which `preflight` says in words."""
    try:
        return look(open_site(folder.resolve()))
    except (FedroundError, MemoryError, OSError):
        return None


def _finding(name: str, check: Callable[[Site], str], site: Site) -> PreflightCheck:
    try:
        return PreflightCheck(name, True, check(site))
    except FedroundError as error:
        return PreflightCheck(name, False, str(error))
    except MemoryError:
        return PreflightCheck(name, False, "needs more memory than a process may take that reads such files: export the rows "
                                           "again, with fewer rows or columns, or look at memory_mb in policy.toml")
    except OSError as error:
        return PreflightCheck(name, False, f"{error.filename or 'this machine'}: {error.strerror}; check the path and its "
                                           "permissions")


def _policy(site: Site) -> str:
    policy = site.policy
    privacy = "plans without noise are allowed" if policy.allows_no_privacy else f"noise for each {policy.units[0]}"
    hours = "at any hour" if policy.hours is None else policy.hours
    most = ", ".join(f"{bound:g}{_WHOM[unit]}" for unit, bound in policy.budgets.items())
    return (f"epsilon up to {most} at delta {policy.delta_dp:g}; {privacy}; at least {how_many(policy.min_rows, 'row')}; "
            f"{hours}")


def _rows(site: Site) -> str:
    database.ask(site.folder, site.settings.data, site.policy.limits.seconds)
    check_apart(*site.row_files)
    try:
        rows = read_site_rows(site)
    except ContractError as error:
        raise ContractError(f"{error}{hints(site.row_files)}") from None
    if (count := len(rows.train)) < site.policy.min_rows:
        raise FedroundError(f"{how_many(count, 'training row')}, the policy asks for {site.policy.min_rows}: add rows, or "
                            "lower min_rows in policy.toml")
    persons = _persons(site, count)
    for doubt in doubts(site.policy, count + len(rows.validation)):
        raise FedroundError(f"policy.toml: {doubt}")
    idle = sum(int((~part.counts_N).sum()) for part in (rows.train, rows.validation))
    return f"{how_many(count, 'training row')}{persons}, {len(rows.validation)} held out" + (
        f"; {idle} of all would count for nothing: they break the contract, or cannot be encoded" if idle else "")


def _vertical(site: Site) -> str:
    """Whether exchanges with peers could be made as the policy grants them."""
    for grant in site.policy.vertical:
        wanted = [grant.id, *grant.columns, *([] if grant.label is None else [grant.label])]
        columns = read_columns(site, wanted)
        if missing := sorted({*wanted} - columns.keys()):
            raise FedroundError(f"[[vertical]] of '{grant.peer}' names the column '{missing[0]}', and the files have none: "
                                "add it, or mend policy.toml")
        known = Counter(ids_of(columns[grant.id]))
        known.pop("", None)
        if twice := sum(count > 1 for count in known.values()):
            raise FedroundError(f"column '{grant.id}': {how_many(twice, 'customer', 'has', 'have')} more than one row, and "
                                "an exchange needs one for each: join their rows, or name another column in [[vertical]]")
        if len(known) > grant.most:
            raise FedroundError(f"{how_many(len(known), 'customer')}, and [[vertical]] of '{grant.peer}' allows "
                                f"{grant.most}: raise 'most'")
    return ", ".join(f"'{one.peer}' for '{one.purpose}' until {one.until}: {', '.join(one.gives)}"
                     for one in site.policy.vertical) or "nobody learns of single customers"


def _persons(site: Site, rows: int) -> str:
    """Of how many persons the training rows are, where the policy protects persons."""
    if (column := site.policy.person) is None:
        return ""
    columns = read_columns(site, [column])
    if column not in columns:
        raise FedroundError(f"by the policy the column '{column}' says whose row it is, and the files have none: add it, or "
                            "mend 'person' in policy.toml")
    known = Counter(ids_of(columns[column][:rows]))
    lost = known.pop("", 0)
    if len(known) < site.policy.min_rows:
        raise FedroundError(f"{how_many(len(known), 'person', 'has', 'have')} training rows, the policy asks for "
                            f"{site.policy.min_rows}: add rows, or lower min_rows in policy.toml")
    return (f" of {how_many(len(known), 'person')}, {max(known.values())} of one of them"
            + (f"; {lost} are nobody's, and never used" if lost else ""))


def _partitions(site: Site) -> str:
    """What the operator should know before a campaign on a part of the rows; nobody else is told."""
    if not site.policy.partitions:
        return "plans train on all rows: the policy lets nobody tell them apart"
    return "; ".join(_parts(site, how) for how in site.policy.partitions)


def _parts(site: Site, how: Partitions) -> str:
    columns = read_columns(site, [how.column])
    if how.column not in columns:
        raise FedroundError(f"the policy lets plans tell rows apart by {how.in_words}, and the files have no such column: "
                            "add it, or mend 'partitions' in policy.toml")
    names = [how.name_of(value) for value in columns[how.column][:len(read_site_rows(site).train)].tolist()]
    known = Counter(name for name in names if name is not None)
    lost, least = names.count(None), site.policy.min_rows
    if not known:
        expected = "30 letters a to z, digits and hyphens at most" if how.by == "value" else "dates such as 2026-11-29"
        raise FedroundError(f"no training row is in any part, told apart by {how.in_words}: expected {expected}")
    few = sum(count < least for count in known.values())
    last = max(known)
    return (f"{how_many(len(known), 'part')}, told apart by {how.in_words}; '{last}' has "
            f"{how_many(known[last], 'training row')}"
            + (f"; {how_many(few, 'part', 'has', 'have')} fewer than {least}, and a plan about such a part is refused" if few
               else "")
            + (f"; {how_many(lost, 'training row', 'is', 'are')} in none, and never trained on" if lost else ""))


def _labels(site: Site) -> str:
    counts, least = label_counts(site), site.policy.min_class_rows
    if counts is None:
        return f"what is learnt is no label: {site.recipe.task.in_words}" + (
            f"; min_class_rows = {least} of the policy says nothing" if least else "")
    if few := [label for label, count in enumerate(counts) if count < least]:
        raise FedroundError(f"{how_many(counts[few[0]], 'training row', 'has', 'have')} label {few[0]}, the policy asks for "
                            f"{least} of each label"
                            + (f"; {len(few)} labels have fewer" if len(few) > 1 else "") + ": do not join yet; add rows, or "
                            "lower min_class_rows in policy.toml. If this site is a member, it answers nevertheless: a "
                            "refusal would tell of records")
    fewest = int(np.argmin(counts))
    return (f"{how_many(len(counts), 'label')}; the fewest training rows, {counts[fewest]}, have label {fewest}"
            + (f"; the policy asks for {least}" if least else ""))


def _recipe(site: Site) -> str:
    """Try whether a plan with the recipe can be carried out, before one is charged."""
    rows = read_site_rows(site).train
    host.check(site)
    notes = try_out(site.recipe, rows.form, None, per_record=not {"record", "person"}.isdisjoint(site.policy.units),
                    device=site.settings.device)
    columns = site.recipe.declared.columns
    odd = [] if columns is None else [*oddities(columns, rows.at(rows.counts_N).table_NF),
                                      *differences(columns.columns, site.contract)]
    how = ("can be trained (tried on made-up rows)" if site.recipe.foreign is None else
           f"can be scored, and {site.recipe.foreign.in_words} that trains it is there, with all files as approved")
    return "; ".join((f"the model of '{site.recipe.name}' {how}; its code {in_words(site.recipe)}", *notes, *odd))


def _device(site: Site) -> str:
    return described(site.settings.device)


def doubts(policy: SitePolicy, rows: int) -> list[str]:
    """Settings of the policy that make its promise mean less than its numbers say."""
    weak = [f"{name} = {value:g} lets plans in that a site with the default ({usual:g}) refuses"
            for name, value, usual in (
        ("min_noise_multiplier", policy.min_noise_multiplier, sense.MIN_NOISE_MULTIPLIER),
        ("min_batch", policy.min_batch, sense.MIN_BATCH)) if value < usual]
    return [*(sense.doubts(policy.delta_dp, rows, None, None) if not policy.allows_no_privacy else ()), *weak]


def _contract(site: Site) -> str:
    return "; ".join((_judged(site), *_warned(site)))


def _warned(site: Site) -> list[str]:
    verdict = judged(site)
    found = [verdict.by_file(site.row_files, kind) for kind in ("form_warnings", "warnings") if getattr(verdict, kind)]
    return [f"only a warning: {one}" for one in found]


def _judged(site: Site) -> str:
    verdict, name, files = judged(site), site.contract.name, site.row_files
    if verdict.form != ():
        raise FedroundError(f"{verdict.by_file(files, 'form')}, which is about columns: this site will refuse; mend the "
                            f"rows, or talk to the coordinator about contract '{name}'")
    if verdict.tables != ():
        raise FedroundError(f"{verdict.by_file(files, 'tables')}, which is about all its rows together: mend the rows, or "
                            f"talk to the coordinator about contract '{name}'. This site answers nevertheless: a refusal "
                            "would tell of records")
    if len(verdict.left_out) > _MANY * verdict.total:
        raise FedroundError(f"{_idle(verdict)}: {verdict.by_file(files, 'rows')}; mend the "
                            f"rows, or talk to the coordinator about contract '{name}'. This site answers nevertheless")
    if verdict.rows != ():
        return f"{_idle(verdict)}: {verdict.by_file(files, 'rows')}; nobody is told"
    strict = len(site.contract.checks) - len(site.contract.warnings)
    return f"the rows meet all {how_many(strict, 'check')} of '{name}'"


def _idle(verdict: Judged) -> str:
    return how_many(len(verdict.left_out), "row", "counts", "count") + " for nothing"


def _ledger(site: Site) -> str:
    book, told = ledger.read(site.ledger), []
    fresh = ledger.a_new_partition(book)        # where rows are told apart, new ones have a budget of their own
    for unit, bound in site.policy.budgets.items():
        spent, held = (what(book, site.policy.delta_dp, unit=unit) for what in (ledger.spent, ledger.held))
        told.append(f"epsilon {upward(spent, 2)} of {bound:g} spent{_WHOM[unit]}" + (
            f", {upward(held, 2)} with what is set aside" if held > spent else ""))
        least = ledger.spent(book, site.policy.delta_dp, unit=unit, partition=fresh)
        if least >= bound and not site.policy.allows_no_privacy:
            raise FedroundError(f"the budget is spent: {told[-1]}; this site will refuse")
    unit, bound = site.policy.alone
    spent, held = (what(book, site.policy.delta_dp, unit=unit, alone=True) for what in (ledger.spent, ledger.held))
    if held > ledger.held(book, site.policy.delta_dp, unit=unit):       # some noise is shared
        told.append(f"{upward(spent, 2)} of {bound:g} if nobody else's noise counts, {upward(held, 2)} with what is set "
                    "aside")
    return f"intact, {how_many(len(book.charges), 'charge')}, {', '.join(told)}"


def _audit(site: Site) -> str:
    return f"intact, {how_many(len(audit.verify(site.safe)), 'event')}; agrees with ledger and outbox"


def _api(site: Site) -> str:
    url = site.settings.api_url
    served = look_at_api(url, site.name, "check api_url in site.toml", site.folder, worker_name.known(site.folder))
    _check_clock(served.date)
    if served.others:
        raise FedroundError(f"{served.others} serves this site's pool, too: it can take rounds away, so that they end "
                            "without an answer, and nothing more, since it has no key of this site. Ask the coordinator who "
                            "runs it")
    if served.others is None:
        return f"{url} answers, and the clocks agree; the site's pool is made at its first start"
    return f"{url} answers, the clocks agree, and nobody else serves the pool"


def _check_clock(date: str | None) -> None:
    if date is None:
        return
    skew = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
    if skew > MAX_CLOCK_SKEW_S:
        raise FedroundError(f"this machine's clock is {skew:.0f} s away from the server's: S3 will refuse; "
                            "synchronise the clock (NTP)")


def _store(site: Site) -> str:
    """Write below our own prefix, and fail to write below anybody else's."""
    own = layout.site_prefix(site.name)
    require_conditional_writes(site.store, f"{own}preflight")
    next(iter(site.store.list("runs/")), None)
    for foreign in (layout.site_prefix(f"{site.name}-not-me"), "runs/preflight/"):
        try:
            publish(site.store, f"{foreign}preflight", b"a site must not be able to write this\n")
        except StoreDeniedError:
            continue
        if site.settings.store.kind == "s3":
            raise FedroundError(f"this site's credential can write below '{foreign}': ask the coordinator for one that "
                                f"can write only below '{own}'")
    return f"reads what is agreed, writes only below '{own}'"


def _copy(site: Site) -> str:
    rollback.require_newest(site)
    return "this folder knows every answer that the site has sent"


_CHECKS: dict[str, Callable[[Site], str]] = {
    "policy": _policy, "rows": _rows, "partitions": _partitions, "vertical": _vertical, "labels": _labels,
    "device": _device, "recipe": _recipe, "contract": _contract, "ledger": _ledger, "audit log": _audit, "api": _api,
    "store": _store, "copy": _copy}
