"""What the proxy's folder is made from: every federation's name fits, and nothing that nginx would read otherwise."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedround.errors import ContractError
from infra.doorkeeper.settings import DoorkeeperSettings
from infra.nginx import Proxy, give_login, make_proxy
from infra.settings import load_toml
from infra.stack.ports import HOST, is_free
from tests.infra.organisations import NGINX, free_port, make_authority, needs_nginx, short_folder, started, user, wait_for

GOOD = {"coordinator": f"{'a' * 40}-coordinator", "api_behind": "127.0.0.1:4200", "api_name": "fed.example",
        "certificate": "/tls/fed.pem", "key": "/tls/fed.key"}


def proxy(**changes: Any) -> Proxy:
    return Proxy(**{**GOOD, **changes})


def test_the_longest_name_of_a_federation_has_a_login_that_stays(tmp_path: Path):
    assert make_proxy(tmp_path / "proxy", proxy()) == [GOOD["coordinator"]]
    made = (tmp_path / "proxy" / "logins").read_bytes()
    assert make_proxy(tmp_path / "proxy", proxy(api_listen="0.0.0.0:8443")) == []
    assert (tmp_path / "proxy" / "logins").read_bytes() == made
    assert load_toml(DoorkeeperSettings, tmp_path / "proxy" / "doorkeeper.toml").coordinator == GOOD["coordinator"]


@pytest.mark.parametrize(("field", "value"), [
    ("api_behind", "127.0.0.1:4200; } server {"), ("api_behind", "x"), ("s3_behind", "x:1\n"),
    ("api_listen", "0.0.0.0:443 ssl"), ("api_name", "a b"), ("s3_name", "$host"), ("certificate", "/tls/a b"),
    ("key", "key.pem"), ("client_authority", "/a;b")])
def test_attack_what_nginx_would_read_as_something_else_is_refused(tmp_path: Path, field: str, value: str):
    with pytest.raises(ContractError):
        make_proxy(tmp_path / "proxy", proxy(**{field: value}))
    assert not (tmp_path / "proxy").exists()


@pytest.fixture
def asked() -> Iterator[Callable[[str, str], list[int]]]:
    """Forty calls with this login and password, before a server that is not there. One a second is allowed, ten at once."""
    with short_folder() as root:
        (certificate, key), port, folder = make_authority(root).sign("proxy"), free_port(), root / "proxy"
        coordinator, = make_proxy(folder, proxy(api_listen=f"{HOST}:{port}", certificate=str(certificate), key=str(key),
                                                api_behind=f"{HOST}:1", calls_per_second=1))
        secrets = {name: (folder / "members" / f"{name}.env").read_text().strip().rpartition(":")[2]
                   for name in (coordinator, give_login(folder, "north"), give_login(folder, "south"))}
        tls = ssl.create_default_context(cafile=str(root / "authority.pem"))

        def ask(name: str, password: str = "") -> list[int]:
            with httpx.Client(verify=tls, auth=(name, password or secrets[name]), trust_env=False, timeout=60) as client:
                return [client.get(f"https://localhost:{port}/api/health").status_code for _ in range(40)]

        with started([str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-g", f"daemon off;{user()}"], root / "nginx.log"):
            wait_for(lambda: not is_free(port), root)
            yield ask


@needs_nginx
def test_attack_a_login_that_asks_without_end_is_sent_away_alone(asked: Callable[..., list[int]]):
    """No clock decides: forty calls take less than half a minute anywhere, and within it ten and thirty pass at most."""
    assert set(asked("north", "a guess")) == {401, 429}
    north = asked("north")
    assert north[:10] == [502] * 10, "whoever guesses has used up nothing of the member's"
    assert 429 in north
    assert 429 not in asked("south")[:10]
    assert set(asked(GOOD["coordinator"])) == {502}
