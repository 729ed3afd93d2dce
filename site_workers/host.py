"""Many site processes on one machine, for demonstrations and tests: forked from one parent that has imported everything.

    python -m site_workers.host FOLDER...

Forked processes share the pages of what they import: 12 sites take about half the memory of 12 separate starts, and a
fifth of the time. Each child opens its own connections. Real sites are separate machines: 'fedround site start'.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from fedround.errors import FedroundError, SetupError
from fedround.parent import end_with_parent
from infra.logs import log_lines
from infra.prefect_client import use_api
from infra.settings import SiteSettings, load_toml
from site_workers.apart.opening import run_here

_PRELOADED = (
    "boto3", "dp_accounting.pld.privacy_loss_distribution", "pandas", "pyarrow.parquet", "torch.func", "torch.nn",
    "great_expectations",           # so that no site needs a process of its own to judge its rows
    "infra.worker_process", "site_workers.round", "site_workers.worker")


ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""The environment of a process that forks: libraries start threads otherwise, NumPy as soon as it is imported."""


def host(folders: list[Path]) -> int:
    """Fork a process per folder and wait; SIGTERM or SIGINT stops them all. Returns the number of sites that failed."""
    settings = [load_toml(SiteSettings, folder / "site.toml") for folder in folders]
    use_api(settings[0].api_url, folders[0])
    _preload()
    run_here()
    children = {_fork(folder): site.name for folder, site in zip(folders, settings, strict=True)}

    def stop(number: int, frame: FrameType | None) -> None:
        for pid in children:
            with suppress(ProcessLookupError):          # one that has just ended
                os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    failed = 0
    while children:
        pid, status = os.wait()
        name = children.pop(pid, None)
        if name is not None and (code := os.waitstatus_to_exitcode(status)) != 0:
            failed += 1
            logging.getLogger("fedround.site").error("site '%s' ended with status %s", name, code)
    return failed


def _preload() -> None:
    """Import what every site needs, and freeze it: a garbage collection in a child would copy every page."""
    os.environ |= {**ONE_THREAD, "GX_ANALYTICS_ENABLED": "false"}
    for module in _PRELOADED:
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    if threading.active_count() != 1 or len(os.listdir("/proc/self/task")) != 1:
        raise SetupError("a thread is running in the parent: forking now could copy a held lock")


def _fork(folder: Path) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid != 0:
        return pid
    status = 1
    try:
        end_with_parent(signal.SIGTERM, parent)
        log = os.open(folder / "site.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from site_workers.service import serve_site

        serve_site(folder)
        status = 0
    except FedroundError as error:
        logging.getLogger("fedround.site").error("%s", error)
    except Exception:
        logging.getLogger("fedround.site").exception("the site's process ends")      # os._exit would leave no word of it
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    log_lines("%(asctime)s %(name)s %(message)s")
    sys.exit(1 if host([Path(argument) for argument in sys.argv[1:]]) else 0)
