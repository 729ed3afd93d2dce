"""Where the proxy asks for certificates, a login counts with its own member's only, and an nginx at the site shows it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.nginx import forwarder
from infra.stack import LocalStack
from infra.stack.ports import HOST
from tests.infra.organisations import NGINX, Between, between, free_port, needs_nginx, short_folder, started, user, wait_for

pytestmark = [pytest.mark.stack, needs_nginx]


@pytest.fixture(scope="module")
def proxy(stack: LocalStack) -> Iterator[Between]:
    behind = stack.start(lambda _: None).api_url.split("/")[2]
    with short_folder() as root, between(root, behind, None, "door-coordinator", certificates=True) as made:
        yield made


def status(proxy: Between, login: str, certificate: tuple[Path, Path] | None) -> int:
    context = ssl.create_default_context(cafile=str(proxy.authority.file))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    member, _, secret = login.partition(":")
    return httpx.get(f"{proxy.api_url}/health", auth=(member, secret), verify=context, trust_env=False).status_code


def test_a_login_counts_only_with_the_certificate_of_the_same_member(proxy: Between):
    north, south = proxy.login("door-north"), proxy.authority.sign("door-south")
    mine = proxy.authority.sign("door-north")
    assert status(proxy, north, mine) == 200
    assert status(proxy, north, south) == 403
    assert status(proxy, north, None) == 400
    assert status(proxy, "door-north:wrong", mine) == 401
    longer = proxy.authority.sign("door-north,CN=door-south")
    assert status(proxy, proxy.login("door-south"), longer) == 403, "a name that only looks like another"


def test_an_nginx_at_the_site_shows_the_certificate_and_trusts_only_the_authority(proxy: Between, tmp_path: Path):
    login, here = proxy.login("door-north"), f"{HOST}:{free_port()}"
    certificate, key = proxy.authority.sign("door-north")
    host = proxy.api_url.removeprefix("https://").removesuffix("/api")
    (tmp_path / "run").mkdir()
    (tmp_path / "forwarder.conf").write_text(forwarder(tmp_path, here, host, certificate, key, proxy.authority.file))
    with started([str(NGINX), "-p", str(tmp_path), "-c", "forwarder.conf", "-g", f"daemon off;{user()}"], tmp_path / "f.log"):
        def ask(path: str) -> int:
            try:
                return httpx.get(f"http://{here}/api{path}", auth=("door-north", login.split(":")[1]),
                                 trust_env=False).status_code
            except httpx.TransportError:
                return 0

        wait_for(lambda: ask("/health") == 200, tmp_path)
        assert ask("/work_pools/door-south") == 403
