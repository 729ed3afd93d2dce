"""A real S3 server with the users and policies that terraform makes: the same files, by the same API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from infra.settings import S3Credential
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint
from infra.stack.server import write_private
from tests.e2e.pages import ROOT

POLICIES = ROOT / "infra" / "terraform" / "policies"
_ADMIN = S3Credential(access_key="admin-of-tests", secret_key="secret-of-tests")


def policy(name: str, **values: str) -> dict[str, Any]:
    """A policy as terraform's `templatefile` writes it."""
    text = (POLICIES / f"{name}.json.tftpl").read_text()
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", value)
    assert "${" not in text
    return json.loads(text)


def of_region(name: str, members: Sequence[str]) -> dict[str, Any]:
    """A regional coordinator's policy."""
    prefixes = ["federations/*", "log/*", "models/*", "runs/*", *(f"sites/{site}/*" for site in members),
                f"regions/{name}/*"]
    return policy("region", bucket=BUCKET, region=name, prefixes=json.dumps(prefixes),
                  objects=json.dumps([f"arn:aws:s3:::{BUCKET}/{prefix}" for prefix in prefixes]))


@dataclass
class S3WithPolicies:
    """The server, and who may do what in it."""

    port: int

    @property
    def endpoint(self) -> str:
        return endpoint(self.port)

    def client(self, service: str, who: S3Credential = _ADMIN) -> Any:
        return boto3.client(service, endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=who.access_key,
                            aws_secret_access_key=who.secret_key)

    def member(self, name: str) -> S3Credential:
        """A user with the policy of a member's, and a credential of its own."""
        return self._user(name, policy("coordinator", bucket=BUCKET) if name == "coordinator" else
                          policy("site", bucket=BUCKET, site=name))

    def region(self, name: str, members: Sequence[str]) -> S3Credential:
        """The same for a regional coordinator."""
        return self._user(name, of_region(name, members))

    def _user(self, name: str, made: dict[str, Any]) -> S3Credential:
        iam, user = self.client("iam"), f"{BUCKET}-{name}"
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="objects", PolicyDocument=json.dumps(made))
        key = iam.create_access_key(UserName=user)["AccessKey"]
        return S3Credential(access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])

    def of_bucket(self, *sids: str) -> None:
        """The bucket's policy, or those statements of it."""
        whole = policy("bucket", bucket=BUCKET)
        kept = [one for one in whole["Statement"] if not sids or one["Sid"] in sids]
        self.client("s3").put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({**whole, "Statement": kept}))


@contextmanager
def s3_with_policies(root: Path) -> Iterator[S3WithPolicies]:
    server, ports = SeaweedFS(root), choose(PORTS, {}, {})
    (root / "s3").mkdir(parents=True)
    write_private(root / "s3" / "identities.json", json.dumps({"identities": [{
        "name": "admin", "actions": ["Admin"], "credentials": [
            {"accessKey": _ADMIN.access_key, "secretKey": _ADMIN.secret_key}]}]}))
    plain = server.server.spawn
    server.server.spawn = lambda command, *more: plain([*command, "-s3.iam.readOnly=false"], *more)
    server.spawn(ports)
    try:
        server.wait_ready(ports["s3"])
        yield S3WithPolicies(ports["s3"])
    finally:
        server.ask_to_stop()
        server.wait_stopped(ports)
