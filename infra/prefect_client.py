"""How fedround's processes talk to Prefect: settings that must stand in the environment before Prefect is imported."""

from __future__ import annotations

import os
from pathlib import Path

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",           # our server has it off: one request less per client
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",                # a site's log lines stay at the site
    "PREFECT_WORKER_QUERY_SECONDS": "10",                     # the fallback; an event wakes the workers
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_API_REQUEST_TIMEOUT": "60",
}


def use_api(api_url: str, home: Path) -> None:
    """Point this process at an API, before Prefect is imported. Prefect's own files go below `home`.

    The environment wins where the operator has set something himself, the API address excepted: that stands in the
    site's or the coordinator's own file.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["PREFECT_API_URL"] = api_url
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "prefect" / "profiles.toml")
