"""What stands between organisations, really started: a private authority, nginx, and the doorkeeper."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.nginx import Proxy, give_login, make_proxy
from infra.stack.ports import HOST, is_free
from tests.e2e.pages import ROOT
from tests.infra.manifests import of_compose

PATIENCE_S = 300.0
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None and not os.environ.get("FEDROUND_REQUIRE_NGINX"),
                                 reason="there is no nginx here (Debian: nginx-light)")


@dataclass(frozen=True)
class Authority:
    """A private authority, and what it has signed, below one folder."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.folder / "authority.pem"

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate for this name, and its key. It serves as a server's on this machine, and as a member's."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, self.certificate.subject, self.key, authority=False)
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
        return files


def make_authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private authority")])
    made = Authority(folder, key, _certificate("private authority", key, name, key, authority=True))
    made.file.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
    return made


def _certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey, *,
                 authority: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    return (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer).public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST)), x509.DNSName("localhost")]),
                           critical=False)
            .sign(signer, hashes.SHA256()))


@dataclass
class Between:
    """A running proxy."""

    folder: Path
    authority: Authority
    api_url: str
    s3_endpoint: str

    def login(self, name: str) -> str:
        """The member's auth string; made if it has none."""
        file = self.folder / "members" / f"{name}.env"
        if not file.exists():
            give_login(self.folder, name)
        return file.read_text().strip().partition("=")[2]

    def calls(self) -> list[tuple[str, int, str, str]]:
        """Who called what, with which status: nginx's own record."""
        lines = [line.split('"') for line in (self.folder / "run" / "access.log").read_text().splitlines()]
        return [(who.split()[1], int(who.split()[2]), *what.split(" ", 1)) for who, what, _ in lines]


@contextmanager
def between(root: Path, api_behind: str, s3_behind: str | None, coordinator: str, *, certificates: bool = False
            ) -> Iterator[Between]:
    """While this lasts, nginx and the doorkeeper stand before the two servers."""
    root.mkdir(parents=True, exist_ok=True)
    authority = make_authority(root)
    certificate, key = authority.sign("proxy")
    ports = free_port(), free_port()
    folder = root / "proxy"
    make_proxy(folder, Proxy(
        coordinator=coordinator, api_behind=api_behind, s3_behind=s3_behind, api_listen=f"{HOST}:{ports[0]}",
        s3_listen=f"{HOST}:{ports[1]}", api_name="localhost", certificate=str(certificate), key=str(key),
        client_authority=str(authority.file) if certificates else None,
        calls_per_second=1000))                         # tests of what is refused call as fast as they can
    place = {"/srv/proxy": str(folder), "daemon off;": f"daemon off;{user()}"}
    (doorkeeper, environment), (command, _) = (of_compose()[name].here(place) for name in ("doorkeeper", "nginx"))
    with (started(installed(doorkeeper), root / "doorkeeper.log", **environment),
          started(installed(command), root / "nginx.log") as nginx):
        wait_for(lambda: nginx.poll() is not None or not is_free(ports[0]), root)
        wait_for((folder / "run" / "doorkeeper.sock").exists, root)
        assert nginx.poll() is None, (root / "nginx.log").read_text()
        yield Between(folder, authority, f"https://localhost:{ports[0]}/api", f"https://localhost:{ports[1]}")


@contextmanager
def started(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                                   env=os.environ | {"PYTHONPATH": str(ROOT)} | environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def installed(command: list[str]) -> list[str]:
    """The same with the programs of this environment."""
    modules = {"fedround": "fedround_cli.main", "prefect": "prefect"}
    program, *words = command
    return [str(NGINX), *words] if program == "nginx" else [sys.executable, "-m", modules[program], *words]


def is_up(url: str) -> bool:
    """Whether a server answers here with 200."""
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(condition: Callable[[], bool], folder: Path) -> None:
    """Until the condition holds; else the logs in the folder say why."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def user() -> str:
    """As root, nginx would serve as a user who may not enter the tests' folders."""
    return " user root;" if os.geteuid() == 0 else ""


@contextmanager
def short_folder() -> Iterator[Path]:
    """For sockets, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="fedround-between-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
