"""Why the Prefect API does not serve is said in words, by the client that the worker uses."""

from __future__ import annotations

import os
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from fedround.errors import SetupError
from fedround_cli.main import reach_this_machine
from infra.api_problems import AUTHORITY, LOGIN
from infra.prefect_client import look_at_api

MEND, HOME = "check api_url in site.toml", Path("/nonexistent")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look leaves in the environment is taken out again."""
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH"):
        monkeypatch.setenv(name, "")


@contextmanager
def serving(status: int, certificate: Path | None = None, body: bytes = b"[]") -> Iterator[str]:
    """A server that is well, and answers everything else with this status and body; its address."""
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200 if self.path == "/api/health" and status != 404 else status)
            if status == 302:
                self.send_header("Location", "/login")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'' if certificate is None else 's'}://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def as_in_a_process_of_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings that `use_api` makes, and no second tries."""
    for name in (LOGIN, AUTHORITY):
        monkeypatch.delenv(name, raising=False)
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}):
        yield


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of an authority of its own, for this machine."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
            .sign(key, hashes.SHA256()))
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


@pytest.mark.parametrize(("status", "says"), [
    (401, f"asks for a login: set {LOGIN}"), (403, "does not let this login do that"), (302, "not as a Prefect API"),
    (404, "a Prefect API's address ends in /api"), (405, "is something else"), (407, "behind a proxy that asks for a login"),
    (500, "is in trouble"), (503, "is in trouble"), (418, "refuses the request")])
def test_an_answer_is_explained(status: int, says: str):
    with serving(status) as url, pytest.raises(SetupError, match=says) as caught:
        look_at_api(url, "north", MEND, HOME)
    assert url in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"", b"{}", b"17", b'[{"name": "x"}]'])
def test_words_that_are_not_prefects(body: bytes):
    with serving(200, body=body) as url, pytest.raises(SetupError, match="not as a Prefect API"):
        look_at_api(url, "north", MEND, HOME)


def test_a_login_that_is_not_the_right_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(LOGIN, "north:wrong")
    with serving(401) as url, pytest.raises(SetupError, match=f"does not accept the login in {LOGIN}") as caught:
        look_at_api(url, "north", MEND, HOME)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "http://no-such-host.invalid/api", "http://"])
def test_nobody_answers(url: str):
    with pytest.raises(SetupError, match=f"does not answer: {MEND}"):
        look_at_api(url, "north", MEND, HOME)


@pytest.mark.parametrize("url", ["", "banks", "ftp://host/api", "http://host:port/api"])
def test_no_address(url: str):
    with pytest.raises(SetupError, match="is no address of a Prefect API"):
        look_at_api(url, "north", MEND, HOME)


def test_a_certificate_is_trusted_by_the_setting_that_the_worker_reads(certificate: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(200, certificate) as url:
        with pytest.raises(SetupError, match=f"certificate that this machine does not trust .* set {AUTHORITY}"):
            look_at_api(url, "north", MEND, HOME)
        with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(certificate)}):      # as its process reads the variable
            assert look_at_api(url, "north", MEND, HOME).others == ""
        with (temporary_settings({PREFECT_API_SSL_CERT_FILE: str(certificate.parent / "gone.pem")}),
              pytest.raises(SetupError, match=f"No such file or directory; mend {AUTHORITY}")):
            look_at_api(url, "north", MEND, HOME)
    with serving(200) as url, pytest.raises(SetupError, match="does not trust .no TLS"):
        look_at_api(url.replace("http", "https"), "north", MEND, HOME)


@pytest.mark.parametrize("named", [{}, {"no_proxy": "host.example"}, {"NO_PROXY": "host.example"}, {"NO_PROXY": "*"}],
                         ids=["nothing", "small", "large", "everything"])
def test_a_proxy_of_the_surroundings_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch, named: dict[str, str]):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with serving(200) as url:
        reach_this_machine(surroundings := dict(os.environ))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, surroundings[name])
        assert look_at_api(url, "north", MEND, HOME).others == ""
        assert urllib.request.proxy_bypass("127.0.0.1")
        assert bool(urllib.request.proxy_bypass("host.example")) is bool(named)
