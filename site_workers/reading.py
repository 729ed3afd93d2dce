"""The rows that a plan gets, or why it gets none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from fedround.errors import ContractError, SetupError
from fedround.privacy.spec import PersonPrivacy, SitePrivacy
from fedround.records import Reason, Refusal
from fedround.spoken import how_many
from fedround.values import CheckId
from site_workers import audit, database, registry, rollback
from site_workers.authorise import Order, refusal_by_policy, refuse
from site_workers.rows import Rows, columns_for, judged, only, read_columns, read_site_rows
from site_workers.site import Site
from validation.judging import Judged

log = logging.getLogger("fedround.site")


@dataclass(frozen=True)
class Source:
    """Where the rows of a round come from. A rehearsal has made-up ones (`flows.rehearsal`); all else it has in common."""

    read: Callable[[Site, Order], tuple[Rows, tuple[CheckId, ...]] | Refusal]
    """The rows that a plan is about, and the warnings that may be told."""
    trained_on: Callable[[Site, bytes], None]
    """What is done with them after a round that trained; the digest is theirs."""


def allowed(site: Site, order: Order, source: Source) -> tuple[Rows, tuple[CheckId, ...]] | Refusal:
    """The rows, and the warnings that may be told, if policy, folder, contract and rows themselves allow the plan."""
    if (refusal := refusal_by_policy(site, order) or rollback.refusal(site, order)) is not None:
        return refusal
    found = source.read(site, order)
    if isinstance(found, Refusal):
        return found
    # Under the unit `site` the number of rows is not told, hence not whether they are few.
    privacy = order.plan.agreed.privacy
    if found[0].units(privacy) < site.policy.min_rows and not isinstance(privacy, SitePrivacy):
        # How many rows a partition has is public, so this tells of no record, and need not end with `max_refusals`: in a slow
        # year a site may refuse every week.
        reason = Reason.DATA if order.plan.asks.partition is None else Reason.POLICY
        what = "persons" if isinstance(privacy, PersonPrivacy) else "rows"
        return refuse(site, order, reason, f"fewer {what} than the site's policy asks for")
    return found


def from_files(site: Site, order: Order) -> tuple[Rows, tuple[CheckId, ...]] | Refusal:
    """As `Source.read`: judged by the contract, as they are now."""
    try:
        database.of_run(site, order.plan.run)
        verdict = judged(site)
        if verdict.form != ():
            log.error("round %d of run '%s': %s", order.plan.round, order.plan.run, verdict.by_file(site.row_files, "form"))
            return _refuse_rows(site, order, verdict.form)
        rows = read_site_rows(site)
        _tell_operator(order, rows, verdict)
        registry.look(site.folder, site.settings.data, rows.digest, audit.utc(site.clock()))
        names = [column for statistic in order.plan.asks.statistics if site.policy.lets_out(statistic, order.plan)
                 for column in statistic.columns]        # of the others not even whether they are there is told
        part = order.plan.asks.partition
        names += columns_for(part, order.plan.agreed.privacy)
        columns = read_columns(site, names)
    except (SetupError, ContractError) as error:
        log.error("round %d of run '%s': %s", order.plan.round, order.plan.run, error)
        return refuse(site, order, Reason.DATA, "the rows cannot be read; the site's operator sees why")
    if missing := sorted({*names} - columns.keys()):
        return refuse(site, order, Reason.DATA, f"the rows have no column '{missing[0]}'"[:300])
    rows = replace(rows, columns=columns)
    if part is not None:        # where no model is read, the policy need not let anybody know how many rows a partition has
        rows = only(rows, part, encoded=order.plan.asks.reads_model)
    return rows, verdict.form_warnings if "checks" in site.policy.statistics else ()


def _tell_operator(order: Order, rows: Rows, verdict: Judged) -> None:
    """Tell the operator which checks the records fail. That stays here: one record can change it."""
    left_out = sum(int((~part.counts_N).sum()) for part in (rows.train, rows.validation))
    if left_out or verdict.tables:
        log.warning("round %d of run '%s': %s for nothing; failed checks: %s. Nothing of this is told; 'fedround site check' "
                    "says more", order.plan.round, order.plan.run, how_many(left_out, "row", "counts", "count"),
                    ", ".join((*verdict.rows, *verdict.tables)) or "none")
    if verdict.warnings or verdict.form_warnings:
        log.warning("round %d of run '%s': failed checks that only warn: %s", order.plan.round, order.plan.run,
                    ", ".join((*verdict.form_warnings, *verdict.warnings)))


def _refuse_rows(site: Site, order: Order, failed: tuple[CheckId, ...]) -> Refusal:
    """A refusal: the files have other columns or types than agreed. The policy says whether it names the failed checks."""
    if "checks" in site.policy.statistics:
        return refuse(site, order, Reason.CONTRACT, f"failed checks: {len(failed)}", failed)
    return refuse(site, order, Reason.CONTRACT, "the rows do not meet the contract; the site's operator sees why")
