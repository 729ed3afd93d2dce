"""What a long-lived process says of itself: /healthz for whoever restarts it, /metrics as Prometheus reads them.

Off unless FEDROUND_HEALTH names an address, such as 127.0.0.1:9464: a site opens no port by itself. It tells numbers and
names of runs, never a row, a key or a path. There is no login: let only your own machines reach it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fedround.errors import FedroundError, SetupError

VARIABLE = "FEDROUND_HEALTH"
log = logging.getLogger("fedround.health")

_PATIENCE_S = 10.0
"""For whoever connects and asks nothing: it would keep a thread for ever."""


@dataclass(frozen=True)
class Number:
    """One line of /metrics. Its name begins with `fedround_`."""

    name: str
    says: str
    value: float
    of: Mapping[str, str] = field(default_factory=dict)


Numbers = Callable[[], Iterable[Number]]
Trouble = Callable[[], str | None]
"""What is wrong with the process, as a sentence; None: nothing."""


def is_wanted() -> bool:
    """Whether the operator has named an address."""
    return bool(os.environ.get(VARIABLE))


def serve(trouble: Trouble, numbers: Numbers) -> ThreadingHTTPServer:
    """Serve both pages where the operator wants them, in a thread. Raises SetupError if nobody can listen there."""

    class Pages(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        server_version, sys_version = "fedround", ""        # not which Python

        def do_GET(self) -> None:
            if self.path == "/healthz":
                try:
                    problem = trouble()
                except Exception:
                    log.exception("whether the process is in trouble cannot be told")
                    problem = "whether it is in trouble cannot be told; its log says why"
                self._say(200 if problem is None else 503, f"{problem or 'ok'}\n".encode())
            elif self.path == "/metrics":
                self._say(200, as_prometheus(numbers))
            else:
                self._say(404, b"/healthz or /metrics\n")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody needs a line for each look."""

    address = os.environ.get(VARIABLE, "")
    host, _, port = address.rpartition(":")
    try:
        if not host:                    # it would mean every address of this machine
            raise ValueError("no host")
        server = _Server((host, int(port)), Pages)
    except (OSError, ValueError, OverflowError) as error:
        raise SetupError(f"cannot listen at {address} ({error}): set {VARIABLE} to host:port, such as 127.0.0.1:9464, or "
                         "unset it") from None
    threading.Thread(target=server.serve_forever, daemon=True, name="health").start()
    return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever looks has gone, in most cases: a line of the log, and no traceback on the terminal."""
        log.info("a look at the health pages did not end: %r", sys.exception())


def as_prometheus(numbers: Numbers) -> bytes:
    """The numbers in Prometheus' text form. What cannot be read now is left out."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry, gauges = CollectorRegistry(), dict[str, Gauge]()
    try:
        for number in numbers():
            if number.name not in gauges:
                gauges[number.name] = Gauge(number.name, number.says, list(number.of), registry=registry)
            gauge = gauges[number.name]
            (gauge.labels(**number.of) if number.of else gauge).set(number.value)
    except (FedroundError, OSError) as error:
        log.warning("a number cannot be read: %s", error)
    except Exception:           # whoever looks sees the others
        log.exception("a number cannot be read")
    return generate_latest(registry)
