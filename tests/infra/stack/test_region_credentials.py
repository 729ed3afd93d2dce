"""What a regional coordinator's credential opens at a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedround.errors import ContractError, StoreDeniedError
from infra.settings import S3Credential
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint
from infra.stores import S3Store, require_conditional_writes


@pytest.fixture(scope="module")
def server(short_folder: Path) -> Iterator[tuple[SeaweedFS, int]]:
    s3, ports = SeaweedFS(short_folder / "s3"), choose(PORTS, {}, {})
    s3.spawn(ports)
    try:
        s3.wait_ready(ports["s3"])
        yield s3, ports["s3"]
    finally:
        s3.ask_to_stop()
        s3.wait_stopped(ports)


def opened(port: int, credential: S3Credential) -> S3Store:
    return S3Store(endpoint(port), BUCKET, credential.access_key, credential.secret_key)


def test_it_reads_its_members_and_writes_below_its_own_prefix_and_nothing_else(server: tuple[SeaweedFS, int]):
    s3, port = server
    everything = opened(port, s3.coordinator_credential())
    for key in ("sites/ash/spring/x", "sites/ashes/spring/x", "sites/birch/spring/x", "runs/spring/x", "memory/x",
                "regions/plains/x"):
        everything.put_once(key, b"there")
    hills = opened(port, s3.grant_region("hills", ["ash"], port))
    require_conditional_writes(hills, "regions/hills/probes")
    assert hills.get("sites/ash/spring/x") == hills.get("runs/spring/x") == b"there"
    for key in ("sites/ashes/spring/x", "sites/birch/spring/x", "memory/x", "regions/plains/x"):
        with pytest.raises(StoreDeniedError):
            hills.get(key)
    for key in ("sites/ash/spring/y", "runs/spring/y", "regions/plains/y", "regions/hillside/y", "models/y"):
        with pytest.raises(StoreDeniedError):
            hills.put_once(key, b"mine")


def test_named_again_it_is_the_same_and_reads_the_members_of_now(server: tuple[SeaweedFS, int]):
    s3, port = server
    before = s3.grant_region("coast", ["cedar"], port)
    opened(port, s3.coordinator_credential()).put_once("sites/elm/x", b"there")
    assert s3.grant_region("coast", ["elm"], port) == before
    assert opened(port, before).get("sites/elm/x") == b"there"
    with pytest.raises(ContractError, match="no region's name"):
        s3.grant_region("*", [], port)
