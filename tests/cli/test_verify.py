"""The certificate: what an auditor reads, and what a script reads, from the bucket alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedround import layout
from fedround.records import Commit
from fedround.signing import seal, unseal
from fedround_cli.main import app
from tests.small_federation import SmallFederation


@pytest.fixture
def federation(federation: SmallFederation) -> SmallFederation:
    federation.round()
    return federation


def fedround(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.output if result.exit_code == 0 else f"exit code {result.exit_code}: {result.output}"


def test_a_model_file_is_proven_offline(federation: SmallFederation):
    """Nothing but the bucket and a folder that names it: the rest of the coordinator is gone."""
    last = json.loads(fedround("verify", "spring", "--as", federation.root / "north", "--json"))["model"]
    model = federation.root / "store" / "models" / f"{last}.safetensors"
    shutil.rmtree(federation.root / "coordinator")
    found = json.loads(fedround("verify", "--checkpoint", model, "--as", federation.root / "north", "--json"))
    assert (found["run"], found["model"]) == ("spring", model.stem)
    assert [entry["number"] for entry in found["log"]] == [1]


def test_the_certificate_names_sites_rules_privacy_and_signatures(federation: SmallFederation):
    text = " ".join(fedround("verify", "spring", "--as", federation.root / "coordinator").split())
    for words in ("certificate of lineage", "east, north, south", "weighted_mean", "record level, ε ≤ 8 at δ 1e-05",
                  federation.coordinator.identity.key[:40], "signatures"):
        assert words in text


def test_with_recompute_the_certificate_says_so_and_a_model_that_does_not_follow_has_none(federation: SmallFederation):
    coordinator = federation.root / "coordinator"
    text = " ".join(fedround("verify", "spring", "--as", coordinator, "--recompute").split())
    assert "1 of 1 round from the sites' updates, byte for byte" in text
    assert "(--recompute)" in fedround("verify", "spring", "--as", coordinator), "what is only vouched for is said"
    rounds = json.loads(fedround("verify", "spring", "--as", coordinator, "--recompute", "--json"))["rounds"]
    assert [proof["recomputed"] for proof in rounds] == [False, True]
    identity, path = federation.coordinator.identity, federation.root / "store" / layout.commit("spring", 1)
    commit = unseal(path.read_bytes(), Commit, identity.key, "commit")
    path.unlink()
    path.write_bytes(seal(commit.model_copy(update={"note": "all is well"}), identity))
    assert fedround("verify", "spring", "--as", coordinator).startswith("╭")
    assert fedround("verify", "spring", "--as", coordinator, "--recompute").startswith("exit code 1")


def test_a_model_that_nobody_made_has_no_certificate(federation: SmallFederation, tmp_path: Path):
    model = next((federation.root / "store" / "models").glob("*.safetensors"))
    altered = Path(shutil.copyfile(model, tmp_path / "model.safetensors"))
    altered.write_bytes(model.read_bytes()[:-1] + b"?")
    text = fedround("verify", "--checkpoint", altered, "--as", federation.root / "coordinator")
    assert text.startswith("exit code 1")


def test_the_log_is_shown_and_rotation_and_revocation_are_commands(federation: SmallFederation):
    coordinator, north = federation.root / "coordinator", federation.root / "north"
    key = federation.site("north").identity.key
    assert "public key is" in fedround("site", "rotate", north)
    assert "entry 2" in fedround("federation", "rotate", "north", "-c", coordinator)
    assert "is revoked from entry 3" in fedround("federation", "revoke", "south", "-c", coordinator)
    log = json.loads(fedround("federation", "log", "--as", coordinator, "--json"))
    assert [[change["kind"] for change in entry["changes"]] for entry in log] == [
        ["begin", "enrol", "enrol", "enrol"], ["rotate"], ["revoke"]]
    assert log[1]["changes"][0]["old"] == key
    assert "is revoked" in fedround("federation", "log", "--as", coordinator)
