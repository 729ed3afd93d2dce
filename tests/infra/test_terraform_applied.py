"""The terraform files, applied: by terraform and AWS's own provider, to a server that stands in for AWS.

The server keeps what it is told and enforces nothing of it; `test_terraform_policies.py` tries the policies on a server that
enforces them. Nothing here leaves this machine.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.infra.manifests import INFRA
from tests.infra.s3_with_policies import policy

TERRAFORM = shutil.which("terraform")
MIRRORS = (Path.home() / ".terraform.d/plugins", Path("/usr/share/terraform/plugins"),
           Path("/usr/local/share/terraform/plugins"), *sorted(Path("/opt").glob("*")))
"""Where a machine may have providers without a network: terraform's own places, and add-on software."""
MIRROR = next((one for one in MIRRORS if any(one.glob("registry.terraform.io/hashicorp/aws/*"))), None)
BUCKET, SITES = "banks-of-the-north", ["north", "south"]

pytestmark = pytest.mark.skipif(TERRAFORM is None or MIRROR is None,
                                reason="no terraform here, or no folder of providers that has hashicorp/aws")


@dataclass(frozen=True)
class Account:
    """An account that is not one, and the files that are applied to it."""

    folder: Path
    endpoint: str

    def terraform(self, *words: str, fails: bool = False) -> str:
        environment = os.environ | {
            "TF_CLI_CONFIG_FILE": str(self.folder / "terraform.rc"), "CHECKPOINT_DISABLE": "1",
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_EC2_METADATA_DISABLED": "true"}
        done = subprocess.run([str(TERRAFORM), f"-chdir={self.folder}", *words], env=environment, check=False,
                              capture_output=True, text=True)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def asked(self, service: str):
        return boto3.client(service, endpoint_url=self.endpoint, region_name="eu-central-1", aws_access_key_id="any",
                            aws_secret_access_key="any", config=Config(s3={"addressing_style": "path"}))


def variables(sites: list[str]) -> tuple[str, ...]:
    return "-input=false", "-no-color", f"-var=bucket={BUCKET}", f"-var=sites={json.dumps(sites)}"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("terraform") / "files"
    shutil.copytree(INFRA / "terraform", folder)
    (folder / "terraform.rc").write_text(f'provider_installation {{\n filesystem_mirror {{\n path = "{MIRROR}"\n }}\n}}\n')
    skipped = "skip_credentials_validation = true\n skip_metadata_api_check = true\n s3_use_path_style = true"
    (folder / "here_override.tf").write_text(f'provider "aws" {{\n {skipped}\n}}\n')
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = Account(folder, f"http://{host}:{port}")
        found.terraform("init", "-input=false")
        found.terraform("validate")
        found.terraform("apply", "-auto-approve", *variables(SITES))
        yield found
    finally:
        server.stop()


def test_the_bucket_keeps_versions_locks_them_and_is_encrypted_under_a_key_that_turns(account: Account):
    s3, kms = account.asked("s3"), account.asked("kms")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    locked = s3.get_object_lock_configuration(Bucket=BUCKET)["ObjectLockConfiguration"]
    assert locked["ObjectLockEnabled"] == "Enabled"
    assert locked["Rule"]["DefaultRetention"].items() >= {"Mode": "GOVERNANCE", "Days": 365}.items()
    [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    under = rule["ApplyServerSideEncryptionByDefault"]
    assert under["SSEAlgorithm"] == "aws:kms"
    assert kms.get_key_rotation_status(KeyId=under["KMSMasterKeyID"])["KeyRotationEnabled"]


def test_nothing_of_the_bucket_is_public_and_its_policy_is_the_one_that_was_tried(account: Account):
    s3 = account.asked("s3")
    assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"] == dict.fromkeys(
        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True)
    assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"]) == policy("bucket", bucket=BUCKET)


def test_each_member_has_an_identity_of_its_own_with_its_own_objects_and_the_key(account: Account):
    iam = account.asked("iam")
    told = json.loads(account.terraform("output", "-json", "credentials"))
    assert {*told} == {"coordinator", *SITES}
    for name, credential in told.items():
        user = f"{BUCKET}-{name}"
        found = {one: iam.get_user_policy(UserName=user, PolicyName=one)["PolicyDocument"]
                 for one in iam.list_user_policies(UserName=user)["PolicyNames"]}
        as_tried = policy("coordinator", bucket=BUCKET) if name == "coordinator" else policy("site", bucket=BUCKET, site=name)
        assert found["objects"] == as_tried
        [allowed] = found["key"]["Statement"]
        assert allowed["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
        [key] = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
        assert key["AccessKeyId"] == credential["access_key"]
        assert credential["secret_key"]


def test_what_was_applied_is_what_the_files_say_and_another_site_changes_nobody_else(account: Account):
    assert "No changes." in account.terraform("plan", *variables(SITES))
    plan = account.terraform("plan", *variables([*SITES, "west"]))
    assert "Plan: 4 to add, 0 to change, 0 to destroy." in plan


@pytest.mark.parametrize("name", ["coordinator", "north/.."])
def test_a_site_whose_name_would_reach_into_anothers_prefix_is_refused(account: Account, name: str):
    assert "A site's name has at most 40" in " ".join(account.terraform("plan", *variables([name]), fails=True).split())


def test_a_site_that_left_loses_its_key_and_the_bucket_stays(account: Account):
    account.terraform("apply", "-auto-approve", *variables(["north"]))
    with pytest.raises(ClientError, match="NoSuchEntity"):
        account.asked("iam").get_user(UserName=f"{BUCKET}-south")
    assert account.asked("s3").get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
