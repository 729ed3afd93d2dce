"""The policies that terraform makes, as files: on a real S3 server they let each member do what it must, and no more."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from fedround.errors import StoreDeniedError
from infra.settings import S3Credential
from infra.stack.seaweedfs import BUCKET
from infra.stores import S3Store
from tests.infra.s3_with_policies import POLICIES, S3WithPolicies, of_region, policy, s3_with_policies

TERRAFORM = shutil.which("terraform")
SITES = ("north", "south")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3WithPolicies]:
    with s3_with_policies(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def credentials(s3: S3WithPolicies) -> dict[str, S3Credential]:
    made = {name: s3.member(name) for name in ("coordinator", *SITES)}
    until(lambda: store(s3, made["north"]).put_once("sites/north/first", b"1"))
    return made


def until(works: Callable[[], object]) -> None:
    """A policy holds a moment after it was put there."""
    end = time.monotonic() + 60
    while True:
        try:
            works()
        except (StoreDeniedError, ClientError, pytest.fail.Exception):
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            return


def store(s3: S3WithPolicies, who: S3Credential) -> S3Store:
    return S3Store(s3.endpoint, BUCKET, who.access_key, who.secret_key)


def test_every_member_does_what_it_must(s3: S3WithPolicies, credentials: dict[str, S3Credential]):
    coordinator, north = (store(s3, credentials[name]) for name in ("coordinator", "north"))
    for key in ("runs/r/rounds/00001/plan-01.json", "memory/m", "models/x", "log/00001.json", "federations/f.json"):
        assert coordinator.put_once(key, b"1")
    for key in ("runs/r/rounds/00001/plan-01.json", "models/x", "log/00001.json", "federations/f.json"):
        assert north.get(key) == b"1"
    assert north.put_once("sites/north/r/answer.json", b"2")
    assert coordinator.get("sites/north/r/answer.json") == b"2"
    assert list(north.list("runs/")) == ["runs/r/rounds/00001/plan-01.json"]
    assert len(list(coordinator.list(""))) == 7


def test_a_site_reads_and_writes_nothing_else(s3: S3WithPolicies, credentials: dict[str, S3Credential]):
    north = store(s3, credentials["north"])
    assert store(s3, credentials["south"]).put_once("sites/south/a", b"1")
    for key in ("sites/south/a", "memory/m", "probes/x"):
        with pytest.raises(StoreDeniedError):
            north.get(key)
    for key in ("sites/south/b", "sites/northern/b", "runs/r/rounds/00001/commit.json", "models/y", "log/00002.json", "x"):
        with pytest.raises(StoreDeniedError):
            north.put_once(key, b"forged")
    for prefix in ("", "sites/", "sites/south/", "memory/"):
        with pytest.raises(StoreDeniedError):
            list(north.list(prefix))
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.client("s3", credentials["north"]).delete_object(Bucket=BUCKET, Key="sites/north/first")


def test_a_regional_coordinator_reads_its_members_and_writes_its_sums(s3: S3WithPolicies,
                                                                      credentials: dict[str, S3Credential]):
    coordinator, hills = store(s3, credentials["coordinator"]), store(s3, s3.region("hills", ["north"]))
    until(lambda: hills.put_once("regions/hills/first", b"1"))
    for key in ("runs/h/x", "sites/north/h/x", "sites/south/h/x", "sites/northern/h/x", "memory/h", "regions/plains/x"):
        assert coordinator.put_once(key, b"1")
    assert hills.get("runs/h/x") == hills.get("sites/north/h/x") == b"1"
    for key in ("sites/south/h/x", "sites/northern/h/x", "memory/h", "regions/plains/x"):
        with pytest.raises(StoreDeniedError):
            hills.get(key)
    for key in ("regions/plains/y", "regions/hillside/y", "sites/north/h/y", "runs/h/y", "models/h"):
        with pytest.raises(StoreDeniedError):
            hills.put_once(key, b"forged")


def test_the_buckets_policy_lets_nobody_overwrite_or_delete(s3: S3WithPolicies, credentials: dict[str, S3Credential]):
    s3.of_bucket("NobodyDeletes")
    for name in ("coordinator", "north"):
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.client("s3", credentials[name]).delete_object(Bucket=BUCKET, Key="sites/north/first")
    s3.of_bucket("OnlyOverTls")

    def is_denied() -> None:
        with pytest.raises(StoreDeniedError):
            store(s3, credentials["north"]).get("sites/north/first")

    until(is_denied)


@pytest.mark.skipif(TERRAFORM is None, reason="there is no terraform here")
def test_terraform_writes_the_policies_that_were_tried(tmp_path: Path):
    """The module has no provider, so that terraform can evaluate it without a network."""
    shutil.copytree(POLICIES, tmp_path / "policies")
    for command in (["init", "-input=false"], ["apply", "-auto-approve", "-input=false", f"-var=bucket={BUCKET}",
                                               f"-var=sites={json.dumps(SITES)}", '-var=regions={"hills": ["north"]}']):
        done = subprocess.run([str(TERRAFORM), f"-chdir={tmp_path / 'policies'}", *command], capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(subprocess.run([str(TERRAFORM), f"-chdir={tmp_path / 'policies'}", "output", "-json"],
                                     capture_output=True, check=True).stdout)
    assert json.loads(told["of_bucket"]["value"]) == policy("bucket", bucket=BUCKET)
    assert {name: json.loads(text) for name, text in told["of_members"]["value"].items()} == {
        "coordinator": policy("coordinator", bucket=BUCKET),
        "hills": of_region("hills", ["north"]), **{site: policy("site", bucket=BUCKET, site=site) for site in SITES}}
