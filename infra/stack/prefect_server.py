"""The Prefect server: the API that orchestrates, and its UI."""

from __future__ import annotations

import signal
import sys
import urllib.request
from pathlib import Path

from infra.stack.ports import HOST
from infra.stack.server import Server, clean_environment

_START_PATIENCE_S = 300.0     # eight CPU seconds of imports took 93 s at a load of 30; an early end is noticed at once
_STOP_PATIENCE_S = 10.0

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    # Loops that a federation does not use. Schedules, late runs and the foreman (pool status in the UI) stay on.
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_ENABLED": "false",
    # Task runs come as events, three for each: written many at once, within a second.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # All sites begin and end at once. A connection beyond the pool (five by default) was made for one request: a process
    # of the database, its description of the types, every statement prepared anew: three quarters of the database's work.
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "20",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "10",
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_PREPARED_STATEMENT_CACHE_SIZE": "150",
    # One process with a handful of threads: no heap per thread, no threads for maths.
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}


class PrefectServer:
    """Prefect's API and UI on the loopback interface; its own files lie in home/prefect, and the user's stay untouched.

    Automations fire. The UI's feed of events stays empty: no event is kept.
    """

    def __init__(self, home: Path):
        self.server = Server(home, "prefect")
        self._home = home / "prefect"

    def spawn(self, port: int, database_url: str) -> None:
        """Start it on a database that answers. `wait_ready` waits. Raises SetupError."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        api = api_url(port)
        environment = clean_environment(
            HOME=str(self._home), PREFECT_HOME=str(self._home),
            PREFECT_PROFILES_PATH=str(self._home / "profiles.toml"),
            PREFECT_SERVER_DATABASE_CONNECTION_URL=database_url, PREFECT_UI_API_URL=api,
            # Any page in the user's browser may send requests to this port; only our own may read and steer.
            PREFECT_SERVER_CORS_ALLOWED_ORIGINS=f"http://{HOST}:{port},http://localhost:{port}", **_SETTINGS)
        # -P and --app-dir: modules come from the environment, never from the folder somebody happens to stand in.
        self.server.spawn(
            [sys.executable, "-P", "-m", "uvicorn", "--factory", "infra.stack.prefect_app:create_app",
             "--host", HOST, "--port", str(port), "--app-dir", str(self._home), "--no-access-log",
             "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "2"], environment, self._home)

    def wait_ready(self, port: int) -> None:
        """Wait until the API answers. Raises SetupError."""
        self.server.wait_ready(lambda: is_healthy(port), _START_PATIENCE_S)

    def ask_to_stop(self) -> None:
        """Stop it in order."""
        self.server.signal(signal.SIGINT)

    def wait_stopped(self) -> None:
        """Wait until it has ended; use force after some seconds."""
        self.server.wait_gone(_STOP_PATIENCE_S)


def api_url(port: int) -> str:
    """What clients need to know."""
    return f"http://{HOST}:{port}/api"


def is_healthy(port: int) -> bool:
    """Whether a Prefect API answers on this port."""
    try:
        # No proxy: the environment's may not know this machine's loopback address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{api_url(port)}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
