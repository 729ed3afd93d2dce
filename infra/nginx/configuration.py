"""The proxy's folder, and nginx's configuration, which is written from the list of calls.

::

    DIR/nginx.conf          written anew by every `fedround proxy init`; holds the server's auth string (0600)
    DIR/logins              names and digests; nginx and the doorkeeper read it for every call
    DIR/doorkeeper.toml     what the doorkeeper needs to know
    DIR/server.auth         the auth string of the Prefect server behind (0600): its PREFECT_SERVER_API_AUTH_STRING
    DIR/members/NAME.env    a member's login, to hand over and delete (0600): an EnvironmentFile of its process
    DIR/run/                sockets, logs, temporary files
"""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path
from typing import Annotated

import jinja2
from pydantic import Field

from fedround.errors import ContractError, SetupError
from fedround.files import make_folders, write_whole
from fedround.values import Value
from infra.doorkeeper.calls import CALLS
from infra.doorkeeper.fetches import LOG
from infra.doorkeeper.logins import new_login, read_logins, write_logins
from infra.doorkeeper.settings import SERVER_AUTH, DoorkeeperSettings, Login
from infra.settings import save_toml

_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-f:]+\]):[0-9]{1,5}")
_HOST = re.compile(r"[A-Za-z0-9.-]+")
_FILE = re.compile(r"/[^\s;{}\"'$\\#]+")


class Proxy(Value):
    """What a proxy stands before, and with what certificate."""

    coordinator: Login
    """The name of the coordinator's login."""
    api_behind: str
    """Where only the proxy reaches the Prefect server: host:port."""
    s3_behind: str | None = None
    """The same of an S3 server; None where the bucket has TLS of its own."""
    api_listen: str = "0.0.0.0:443"
    s3_listen: str = "0.0.0.0:9443"
    api_name: str
    s3_name: str = "localhost"
    certificate: str
    key: str
    client_authority: str | None = None
    """Whoever reaches the API must have a certificate of this authority, too, made out for the name of its login."""
    models_per_day: Annotated[int, Field(ge=1)] = 200
    """How many models an S3 credential may fetch in a day before the doorkeeper tells it; nothing is refused."""
    calls_per_second: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Of a site's login, on average over ten seconds; what is more gets 429, and Prefect's client asks again later."""


def make_proxy(folder: Path, proxy: Proxy) -> list[str]:
    """Write the folder, or write it anew; logins and the server's auth string stay. Returns the new logins' names.

    Raises ContractError for what nginx would read as something else than a name, an address or a file.
    """
    folder = folder.resolve()
    _check(folder, proxy)
    make_folders(folder / "members", mode=0o700)
    make_folders(folder / "run")
    if not (folder / SERVER_AUTH).exists():
        write_whole(folder / SERVER_AUTH, f"proxy:{secrets.token_urlsafe(32)}\n".encode(), durable=True)
    if not (folder / "logins").exists():
        write_logins(folder / "logins", {})
    settings = DoorkeeperSettings(api_behind=f"http://{proxy.api_behind}/api", coordinator=proxy.coordinator,
                                  certificates=proxy.client_authority is not None,
                                  models_per_day=None if proxy.s3_behind is None else proxy.models_per_day)
    save_toml(settings, folder / "doorkeeper.toml", "Written by 'fedround proxy init'.")
    write_whole(folder / "nginx.conf", configuration(folder, proxy, settings).encode(), durable=True)
    return [] if proxy.coordinator in read_logins(folder / "logins") else [give_login(folder, proxy.coordinator)]


def give_login(folder: Path, name: str) -> str:
    """Make a login, in place of the one that the member had. Returns the name; members/NAME.env holds the secret."""
    logins = read_logins(folder / "logins")
    auth_string, kept = new_login(name)
    write_whole(folder / "members" / f"{name}.env", f"PREFECT_API_AUTH_STRING={auth_string}\n".encode(), durable=True)
    write_logins(folder / "logins", {**logins, name: kept})
    return name


def take_login(folder: Path, name: str) -> None:
    """Take a member's login back. Raises SetupError if it has none."""
    logins = read_logins(folder / "logins")
    if logins.pop(name, None) is None:
        raise SetupError(f"'{name}' has no login: {', '.join(sorted(logins)) or 'nobody'} has one")
    write_logins(folder / "logins", logins)
    (folder / "members" / f"{name}.env").unlink(missing_ok=True)


def configuration(folder: Path, proxy: Proxy, settings: DoorkeeperSettings) -> str:
    """nginx.conf."""
    login = base64.b64encode(settings.auth_string(folder).encode()).decode()
    return _written("nginx.conf.j2", folder=folder, calls=CALLS, logins=folder / "logins", socket=folder / settings.socket,
                    server_login=f"Basic {login}", fetched=LOG, **proxy.model_dump())


def forwarder(folder: Path, listen: str, host: str, certificate: Path, key: Path, authority: Path) -> str:
    """The configuration of an nginx at a site that must show a certificate. host: the proxy's, with its port."""
    for file in (certificate, key, authority):
        _is(_FILE, str(file), "a file")
    _is(_ADDRESS, listen, "an address")
    _is(_ADDRESS, host, "an address")
    return _written("forwarder.conf.j2", folder=folder, listen=listen, host=host, name=host.rpartition(":")[0],
                    certificate=certificate, key=key, authority=authority)


def _check(folder: Path, proxy: Proxy) -> None:
    for address in (proxy.api_behind, proxy.s3_behind, proxy.api_listen, proxy.s3_listen):
        _is(_ADDRESS, address, "host:port")
    for host in (proxy.api_name, proxy.s3_name):
        _is(_HOST, host, "the name of a host")
    for file in (str(folder), proxy.certificate, proxy.key, proxy.client_authority):
        _is(_FILE, file, "the whole path of a file, without spaces and signs that nginx reads")


def _is(pattern: re.Pattern[str], text: str | None, what: str) -> None:
    if text is not None and pattern.fullmatch(text) is None:
        raise ContractError(f"{text!r} is not {what}")


def _written(template: str, **values: object) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    return environment.from_string((Path(__file__).parent / template).read_text()).render(**values)
