"""All servers of a federation on one machine: PostgreSQL, Prefect and S3, on the loopback interface."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fedround.errors import SetupError
from fedround.files import make_folders
from infra.settings import S3Credential
from infra.stack import ports, prefect_server, seaweedfs
from infra.stack.postgres import Postgres
from infra.stack.prefect_server import PrefectServer
from infra.stack.seaweedfs import SeaweedFS
from infra.stack.server import write_private

_LOCK_PATIENCE_S = 180.0


@dataclass(frozen=True)
class StackInfo:
    """Where a running stack is. Holds no secret; also written to home/stack.json."""

    api_url: str
    ui_url: str
    s3_endpoint: str
    bucket: str
    pids: dict[str, int]
    ports: dict[str, int]


class LocalStack:
    """The servers whose data, logs and secrets lie below `home`. All data are kept from one start to the next.

    Every method may be called from any process: `home` records what runs. One operation at a time; a second one waits. For
    one machine and one person: whoever can sign in to this machine can reach the Prefect API.
    """

    def __init__(self, home: Path, *, api_port: int | None = None, s3_port: int | None = None):
        self.home = home.resolve()
        self._wanted = {"prefect": api_port, "s3": s3_port}
        self._postgres, self._prefect, self._s3 = Postgres(self.home), PrefectServer(self.home), SeaweedFS(self.home)

    def start(self, progress: Callable[[str], None]) -> StackInfo:
        """Start the servers and wait until all of them answer.

        A stack that runs and answers is left as it is. A stack with a missing part is stopped and started as a whole.
        progress: is told, in one line each time, what is being waited for.
        Raises SetupError if a wanted port is in use, something is missing or a server does not come up. Nothing is left
        running then, nor after Ctrl-C.
        """
        with self._lock():
            running = self.find(self.home)
            if running is not None and self._is_healthy(running):
                progress("the servers run already")
                return running
            self._stop()
            chosen = ports.choose(("prefect", *seaweedfs.PORTS), self._wanted, _read_ports(self.home))
            try:
                return self._start(chosen, progress)
            except PermissionError as error:
                self._stop()
                raise SetupError(f"{error.filename} belongs to another user: start the stack as that user, or choose "
                                 "another folder") from None
            except BaseException:
                self._stop()
                raise

    def stop(self) -> None:
        """Stop the servers, in order, whoever started them. Does nothing if none runs. Data are kept."""
        if os.path.exists(self.home):                # not Path.exists, which raises for a folder of another user
            with self._lock():
                self._stop()

    @staticmethod
    def find(home: Path) -> StackInfo | None:
        """The stack of `home` if all its servers live, else None. It is not checked whether they answer."""
        try:
            info = StackInfo(**json.loads((home / "stack.json").read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return info if LocalStack(home)._pids() == info.pids else None

    def coordinator_credential(self) -> S3Credential:
        """The coordinator's S3 credential: everything in the bucket, nothing outside."""
        with self._lock():
            return self._s3.coordinator_credential()

    def grant_site(self, site: str) -> S3Credential:
        """The site's S3 credential: reads federations/, models/ and runs/, writes below sites/<site>/ only.

        Makes it on the first call, also while the servers run. Raises ContractError for what is no site's name,
        SetupError if the server does not take it.
        """
        with self._lock():
            running = self.find(self.home)
            return self._s3.grant_site(site, None if running is None else running.ports["s3"])

    def grant_region(self, region: str, members: Sequence[str]) -> S3Credential:
        """The S3 credential of a regional coordinator: reads what sites may read and the answers of these members, writes
        below regions/<region>/ only. Named again with other members, it reads theirs.
        """
        with self._lock():
            running = self.find(self.home)
            return self._s3.grant_region(region, members, None if running is None else running.ports["s3"])

    def _start(self, chosen: dict[str, int], progress: Callable[[str], None]) -> StackInfo:
        began = time.monotonic()
        self._s3.spawn(chosen)                       # comes up beside the others
        progress("starting PostgreSQL, Prefect and S3")
        self._prefect.spawn(chosen["prefect"], self._postgres.start())
        self._s3.wait_ready(chosen["s3"])
        progress("PostgreSQL and S3 are ready; Prefect takes about ten seconds")
        self._prefect.wait_ready(chosen["prefect"])
        progress(f"all servers are ready after {time.monotonic() - began:.0f} s")
        api_url = prefect_server.api_url(chosen["prefect"])
        info = StackInfo(api_url=api_url, ui_url=api_url.removesuffix("/api"), bucket=seaweedfs.BUCKET,
                         s3_endpoint=seaweedfs.endpoint(chosen["s3"]), pids=self._pids(), ports=chosen)
        write_private(self.home / "stack.json", json.dumps(asdict(info), indent=1))
        return info

    def _stop(self) -> None:
        self._prefect.ask_to_stop()
        self._s3.ask_to_stop()
        self._prefect.wait_stopped()
        self._postgres.stop()                        # after its only client
        self._s3.wait_stopped(_read_ports(self.home))

    def _is_healthy(self, info: StackInfo) -> bool:
        return prefect_server.is_healthy(info.ports["prefect"]) and self._s3.is_healthy(info.ports["s3"])

    def _pids(self) -> dict[str, int]:
        """The servers that live, by name."""
        processes = {part.server.name: part.server.process() for part in (self._postgres, self._prefect, self._s3)}
        return {name: process.pid for name, process in processes.items() if process is not None}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One operation on a stack at a time."""
        lock = FileLock(self.home / ".stack.lock", timeout=_LOCK_PATIENCE_S)
        try:
            make_folders(self.home, mode=0o755)
            lock.acquire()
        except Timeout:
            raise SetupError(f"another process has been starting or stopping the servers of {self.home} for "
                             f"{_LOCK_PATIENCE_S:.0f} s: wait for it, or end it") from None
        except OSError as error:
            raise SetupError(f"cannot use the folder {self.home}: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()


def _read_ports(home: Path) -> dict[str, int]:
    """The ports of the last start, if there was one."""
    try:
        return dict(json.loads((home / "stack.json").read_bytes())["ports"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
