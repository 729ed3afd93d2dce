"""The life of a site's process: take the folder's lock, send what is unsent, serve the site's pool."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from filelock import FileLock, Timeout

from fedround.errors import SetupError, StoreError
from infra.prefect_client import use_api
from infra.settings import SiteSettings, load_toml
from site_workers import release
from site_workers.site import Site, open_site

log = logging.getLogger("fedround.site")


def serve_site(folder: Path) -> None:
    """Serve the site in `folder` until SIGTERM or SIGINT.

    Raises SetupError, ContractError or StoreError with one sentence if the site is not ready, and SetupError if another
    process serves this folder: two workers on one pool would compete silently.
    """
    folder = folder.resolve()
    use_api(load_toml(SiteSettings, folder / "site.toml").api_url, folder)
    lock = FileLock(folder / ".serving")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SetupError(f"another process serves {folder}: stop that one first") from None
    with lock:
        site = open_site(folder)
        _one_thread()
        _send_what_is_unsent(site)
        from infra.warm_worker import serve
        from site_workers.round import job
        from site_workers.worker import SiteWorker

        log.info("site '%s' serves rounds of federation '%s'", site.name, site.settings.federation)
        serve(SiteWorker(site.name, job(site)))


def _send_what_is_unsent(site: Site) -> None:
    try:
        if (sent := release.resend(site)) > 0:
            log.info("sent %d answers that an earlier process had kept", sent)
    except StoreError as error:
        log.warning("%s; kept answers stay in the outbox", error)


def _one_thread() -> None:
    """Site processes share machines: one thread each is fastest, and makes sums repeatable."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
