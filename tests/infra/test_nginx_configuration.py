"""What the proxy's folder is made from: every federation's name fits, and nothing that nginx would read otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedround.errors import ContractError
from infra.doorkeeper.settings import DoorkeeperSettings
from infra.nginx import Proxy, make_proxy
from infra.settings import load_toml

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
