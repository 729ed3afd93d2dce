"""The programs that the manifests start, as they stand there: of compose, of Kubernetes and of systemd."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.pages import ROOT

INFRA = ROOT / "infra"
OURS = ("prefect", "doorkeeper", "nginx", "coordinator", "site", "region")


@dataclass(frozen=True)
class Program:
    """One process: what is typed, and what the manifest itself puts into its environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str]

    def here(self, changes: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """The same on this machine: folders, hosts and secrets are replaced, in this order, and nothing else."""
        def changed(text: str) -> str:
            for old, new in changes.items():
                text = text.replace(old, new)
            return text

        return [changed(word) for word in self.command], {name: changed(value) for name, value in self.environment.items()}


def of_compose() -> dict[str, Program]:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    return {name: Program(tuple(services[name]["command"]), services[name].get("environment", {})) for name in OURS}


def of_systemd() -> dict[str, Program]:
    return {name: _of_unit(INFRA / "systemd" / f"fedround-{name}.service") for name in OURS}


def _of_unit(path: Path) -> Program:
    lines = [line.partition("=") for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    [start] = [value for key, _, value in lines if key == "ExecStart"]
    program, *rest = shlex.split(start)
    environment = dict(value.split("=", 1) for key, _, value in lines if key == "Environment")
    return Program((Path(program).name, *rest), environment)


def documents() -> Iterator[dict[str, Any]]:
    """Everything in infra/kubernetes."""
    for path in sorted((INFRA / "kubernetes").glob("*.yaml")):
        yield from filter(None, yaml.safe_load_all(path.read_text()))


def of_kubernetes() -> dict[str, Program]:
    found = {}
    for document in documents():
        if document["kind"] in ("Deployment", "StatefulSet"):
            for container in document["spec"]["template"]["spec"]["containers"]:
                environment = {one["name"]: one.get("value", f"${{{one['name']}}}") for one in container.get("env", [])}
                found[container["name"]] = Program(
                    tuple(container.get("command", [])) + tuple(container.get("args", [])), environment)
    return {name: found[name] for name in OURS}


def without_place(program: Program) -> tuple[tuple[str, ...], dict[str, str]]:
    """What is the same wherever it runs: where a server listens and what its secrets are is the place's business."""
    command = tuple(re.sub(r"^(0\.0\.0\.0|127\.0\.0\.1)$", "HOST", word) for word in program.command)
    kept = {name: re.sub(r"^(0\.0\.0\.0|127\.0\.0\.1):\d+$", "HOST", value) for name, value in program.environment.items()
            if "$" not in value}
    return command, kept
