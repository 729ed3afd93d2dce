"""The manifests start the same programs everywhere, and each tool can read its own. `e2e/test_organisations.py` runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fedround_cli.main import app
from tests.infra.manifests import INFRA, OURS, documents, of_compose, of_kubernetes, of_systemd, without_place

ANALYSE, KUBECTL, DOCKER = (shutil.which(name) for name in ("systemd-analyze", "kubectl", "docker"))


@pytest.mark.parametrize("name", OURS)
def test_compose_kubernetes_and_systemd_start_the_same_program_with_the_same_settings(name: str):
    assert without_place(of_compose()[name]) == without_place(of_kubernetes()[name]) == without_place(of_systemd()[name])


@pytest.mark.parametrize("name", ["doorkeeper", "coordinator", "site", "region"])
def test_what_they_type_is_a_command_of_ours(name: str):
    program, *words = of_compose()[name].command
    assert program == "fedround"
    helped = CliRunner().invoke(app, [*words[:2], "--help"])
    assert helped.exit_code == 0, helped.output


def test_nobody_is_root_and_no_image_is_written_to():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    for name in OURS:
        service = compose[name]
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
        assert service["stop_grace_period"] == "10s"
        unit = (INFRA / "systemd" / f"fedround-{name}.service").read_text()
        assert re.search(r"^User=fedround-\w+$", unit, re.MULTILINE)
        assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "TimeoutStopSec=10"} <= set(unit.splitlines())
    for document in documents():
        if document["kind"] in ("Deployment", "StatefulSet") and document["metadata"]["name"] != "postgres":
            spec = document["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"]
            assert not spec["automountServiceAccountToken"]
            for container in spec["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"]
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert re.search(r"^USER 10001", (INFRA / "Containerfile").read_text(), re.MULTILINE)


def test_nobody_but_the_proxy_reaches_the_server_behind():
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    behind = {name for name, service in compose["services"].items() if "behind" in service["networks"]}
    assert behind == {"postgres", "prefect", "doorkeeper", "nginx"}
    assert compose["networks"]["behind"] == {"internal": True}
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["nginx"]
    services = {one["metadata"]["name"]: one["spec"] for one in documents() if one["kind"] == "Service"}
    assert [name for name, spec in services.items() if spec.get("type", "ClusterIP") != "ClusterIP"] == ["proxy"]


def test_no_secret_stands_in_a_manifest():
    for path in (*INFRA.glob("*.yaml"), *INFRA.glob("kubernetes/*"), *INFRA.glob("systemd/*"), *INFRA.glob("terraform/*.tf")):
        for line in path.read_text().splitlines():
            if re.search(r"(?i)(password|auth_string|secret_key)\W*[:=]\s*\S", line) and not line.strip().startswith("#"):
                assert "${" in line or "secretKeyRef" in line or "key.secret" in line, (path.name, line)


@pytest.mark.skipif(ANALYSE is None, reason="there is no systemd-analyze here")
def test_systemd_reads_the_units_and_finds_little_exposed(tmp_path: Path):
    for name in OURS:
        text = (INFRA / "systemd" / f"fedround-{name}.service").read_text()
        unit = tmp_path / f"fedround-{name}.service"
        unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))      # not installed here
        read = subprocess.run([str(ANALYSE), "verify", str(unit)], capture_output=True, text=True, check=False)
        assert read.returncode == 0, read.stderr
        assert unit.name not in read.stderr, read.stderr
        judged = subprocess.run([str(ANALYSE), "security", "--offline=true", "--threshold=25", str(unit)],
                                capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stdout[-500:]


@pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl here")
def test_kubectl_builds_the_coordinators_organisation():
    built = subprocess.run([str(KUBECTL), "kustomize", str(INFRA / "kubernetes")], capture_output=True, text=True,
                           check=False)
    assert built.returncode == 0, built.stderr
    kinds = {document["kind"] for document in yaml.safe_load_all(built.stdout)}
    assert kinds == {"Deployment", "Namespace", "NetworkPolicy", "PersistentVolumeClaim", "Service", "StatefulSet"}


def test_docker_reads_the_compose_file(tmp_path: Path):
    if DOCKER is None or subprocess.run([DOCKER, "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no docker compose here")
    for name in ("coordinator.env", "site.env", "region.env"):
        (tmp_path / name).write_text("PREFECT_API_AUTH_STRING=x\n")
    shutil.copyfile(INFRA / "compose.yaml", tmp_path / "compose.yaml")
    read = subprocess.run([str(DOCKER), "compose", "-f", str(tmp_path / "compose.yaml"), "config", "--format", "json"],
                          capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "POSTGRES_PASSWORD": "x", "PREFECT_SERVER_API_AUTH_STRING": "y"})
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["name"] == "fedround"
