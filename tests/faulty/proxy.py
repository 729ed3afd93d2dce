"""An HTTP proxy in front of a real S3 server that does harm to the answers it is told to."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SKEWED = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"


@dataclass(frozen=True)
class Answer:
    """What the server says, or what is made of it. announced: the length that is told; None: that of the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    announced: int | None = None
    trickles: bool = False


Harm = Callable[[Answer], Answer]
"""From an honest answer to another one."""


def flip(answer: Answer) -> Answer:
    """One bit in the middle."""
    body = bytearray(answer.body)
    if body:
        body[len(body) // 2] ^= 1
    return Answer(answer.status, answer.headers, bytes(body))


def zero(answer: Answer) -> Answer:
    """As long, and nothing in it."""
    return Answer(answer.status, answer.headers, bytes(len(answer.body)))


def shorten(answer: Answer) -> Answer:
    """A whole answer of half the length."""
    return Answer(answer.status, answer.headers, answer.body[:len(answer.body) // 2])


def cut(answer: Answer) -> Answer:
    """The connection ends in the middle."""
    return Answer(answer.status, answer.headers, answer.body[:len(answer.body) // 2], announced=len(answer.body))


def empty(answer: Answer) -> Answer:
    """Nothing at all."""
    return Answer(answer.status, answer.headers, b"")


def trickle(answer: Answer) -> Answer:
    """Byte by byte."""
    return Answer(answer.status, answer.headers, answer.body, trickles=True)


def in_trouble(answer: Answer) -> Answer:
    """503."""
    return Answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")


def skewed(answer: Answer) -> Answer:
    """403, for a clock."""
    return Answer(403, {"Date": "Sun, 01 Jan 2012 00:00:00 GMT"}, SKEWED)


def gibberish(answer: Answer) -> Answer:
    """A page of somebody who is not an S3 server."""
    return Answer(200, {"Content-Type": "text/html"}, b"<html><p>welcome to the hotel's network</html")


def page(answer: Answer) -> Answer:
    """A page that every parser reads."""
    return Answer(200, {"Content-Type": "text/html", "Content-Length": "0"} if not answer.body else {},
                  b"<html><body>welcome to the hotel's network</body></html>")


@dataclass(frozen=True)
class Disturbed:
    """What happens to one request."""

    delay_s: float = 0.0
    """Before anything else."""
    lost: bool = False
    """The connection ends, and nobody has heard it."""
    upload: float | None = None
    """So much of the body arrives, from 0 to 1; then the connection is reset, and the server has not heard it."""
    slowly_s: float = 0.0
    """So long after each 64 KiB of the body the next are taken in."""
    silent: bool = False
    """The server does what it was asked to, and the connection is reset before it can say so."""
    harm: Harm | None = None


UNDISTURBED = Disturbed()


def stale(answer: Answer) -> Answer:
    """A list that does not know the newest object yet."""
    found = list(re.finditer(rb"<Contents>.*?</Contents>", answer.body, re.DOTALL))
    if not found:
        return answer
    last = found[-1]
    return Answer(answer.status, answer.headers, answer.body[:last.start()] + answer.body[last.end():])


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on, but for those that it was told to lose, and answers back, harmed as they come."""

    daemon_threads = True

    def __init__(self, endpoint: str):
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = urlsplit(endpoint).netloc
        self.harm: dict[str, list[Harm | None]] = {}
        """For each method what is done to its next answers, one after the other; then nothing more."""
        self.disturb: Callable[[str, str], Disturbed] = lambda method, path: UNDISTURBED
        """What happens to a request, by its method and its path."""
        self.losing = 0
        """How many more PUTs are answered with 200 and not passed on."""
        self.seen: list[tuple[str, str]] = []
        self.taken = 0
        """Bytes of bodies that were taken slowly."""
        self.stopping = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Whoever is asked again has often hung up before."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Passing(BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        self.server.seen.append((self.command, self.path))
        disturbed, length = self.server.disturb(self.command, self.path), int(self.headers.get("Content-Length", 0))
        self.server.stopping.wait(disturbed.delay_s)
        if disturbed.lost or disturbed.upload is not None:
            self.rfile.read(int(length * (disturbed.upload or 0.0)))
            self._reset()
            return
        body = self._received(length, disturbed.slowly_s)
        if self.command == "PUT" and self.server.losing > 0:
            self.server.losing -= 1
            self._answer(Answer(200, {"ETag": '"lost"'}, b""))
            return
        answer = self._ask(body)
        if disturbed.silent:
            self._reset()
            return
        if disturbed.harm is not None:
            answer = disturbed.harm(answer)
        harms = self.server.harm.get(self.command, [])
        harm = harms.pop(0) if harms else None
        self._answer(answer if harm is None else harm(answer))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def _received(self, length: int, slowly_s: float) -> bytes:
        if not slowly_s:
            return self.rfile.read(length)
        pieces = []
        while length > 0 and not self.server.stopping.wait(slowly_s):
            pieces.append(self.rfile.read(min(length, 64 << 10)))
            length -= len(pieces[-1])
            self.server.taken += len(pieces[-1])
        return b"".join(pieces)

    def _reset(self) -> None:
        """The connection ends as when a cable is pulled: what was not read is lost."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)

    def _ask(self, body: bytes) -> Answer:
        connection = HTTPConnection(self.server.behind, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        headers = {name: value for name, value in answer.getheaders()
                   if self.command == "HEAD" or name.lower() not in {"content-length", "transfer-encoding"}}
        found = Answer(answer.status, headers, answer.read())
        connection.close()
        return found

    def _answer(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body) if answer.announced is None else answer.announced))
        self.end_headers()
        try:
            if self.command != "HEAD":
                self._write(answer)
        except OSError:
            self.close_connection = True
        if answer.announced is not None:
            self.close_connection = True

    def _write(self, answer: Answer) -> None:
        if not answer.trickles:
            self.wfile.write(answer.body)
            return
        for place in range(len(answer.body)):
            self.wfile.write(answer.body[place:place + 1])
            if self.server.stopping.wait(0.01):
                return

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@contextmanager
def in_front_of(endpoint: str) -> Iterator[FaultyProxy]:
    """A proxy that runs meanwhile."""
    proxy = FaultyProxy(endpoint)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
