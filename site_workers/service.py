"""The life of a site's process: take the folder's lock, send what is unsent, serve the site's pool."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedround import __version__
from fedround.errors import StoreError
from fedround.privacy import apart
from fedround.signing import digest
from fedround.spoken import how_many
from infra import health
from infra.prefect_client import use_api
from infra.serving import served_alone
from infra.settings import SiteSettings, load_toml
from infra.stores import Metered, Patience, Traffic
from site_workers import audit, kept, outbox, release, rollback, worker_name
from site_workers.health import SiteNumbers
from site_workers.limits import settle_in
from site_workers.outcome import Outcome
from site_workers.site import Site, open_site

Job = Callable[[dict[str, Any], Callable[[], bool]], Outcome]

log = logging.getLogger("fedround.site")

_RESEND_S = 600.0
"""How long a start waits for the store to take what was kept; the rest is sent with the next start, or when asked again."""


def serve_site(folder: Path) -> None:
    """Serve the site in `folder` until SIGTERM or SIGINT.

    Raises SetupError, ContractError, AuditError or StoreError with one sentence if the site is not ready, and SetupError if
    another process serves this folder: two workers on one pool would compete silently.
    """
    folder = folder.resolve()
    use_api(load_toml(SiteSettings, folder / "site.toml").api_url, folder)
    with served_alone(folder):
        site = open_site(folder)
        settle_in(site.policy.limits, trains=site.recipe.apart is None)
        begin(site)
        from infra.worker_process import serve
        from site_workers.campaign import newest_plan
        from site_workers.round import job
        from site_workers.worker import SiteWorker

        site = replace(site, store=Metered(site.store, traffic := Traffic()))
        numbers = SiteNumbers(site, traffic) if health.is_wanted() else None
        work = _with_the_accountant_apart(job(site) if numbers is None else numbers.counted(job(site)))
        worker = SiteWorker(site.name, work, newest_plan(site), worker_name.settled(folder, site.name))
        if numbers is not None:
            numbers.price()
            health.serve(worker.trouble, numbers)
        log.info("site '%s' serves rounds of federation '%s'", site.name, site.settings.federation)
        serve(worker)


def _with_the_accountant_apart(work: Job) -> Job:
    """The same job, which unloads the accountant after each piece of work; not if this process has it (see `host`)."""
    if "dp_accounting" in sys.modules:
        return work
    accountant = apart.settle()

    def job(parameters: dict[str, Any], cancelled: Callable[[], bool]) -> Outcome:
        try:
            return work(parameters, cancelled)
        finally:
            accountant.rest()

    return job


def begin(site: Site) -> None:
    """What a process does before it serves: it looks whether the folder is whole and the newest, and sends what is unsent.

    Only if audit log, ledger and outbox agree; an older copy of one of them does not agree.
    """
    kept.settle(site.safe)
    outbox.settle(site.safe)
    audit.verify(site.safe)
    audit.record(site.folder, audit.Started(
        utc=audit.utc(site.clock()), policy=digest((site.folder / "policy.toml").read_bytes()), version=__version__))
    _require_newest(site)
    _send_what_is_unsent(site)


def _require_newest(site: Site) -> None:
    try:
        rollback.require_newest(site)
    except StoreError as error:
        log.warning("%s; whether this folder is the newest copy is asked again before every round", error)


def _send_what_is_unsent(site: Site) -> None:
    try:
        if (sent := release.resend(site.within(Patience(_RESEND_S)))) > 0:
            log.info("sent %s that an earlier process had kept", how_many(sent, "answer"))
    except StoreError as error:
        log.warning("%s; kept answers stay in the outbox", error)
