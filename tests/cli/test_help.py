"""`--help` teaches, everywhere, and at once."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys

import click
import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from fedround_cli.main import app
from tests.cli.conftest import Fedround


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and every group, as typed."""
    children = getattr(command, "commands", {})
    return [path, *(found for name, child in sorted(children.items()) for found in commands(child, (*path, name)))]


FEDROUND = typer.main.get_command(app)


def find(path: tuple[str, ...]) -> click.Command:
    command = FEDROUND
    for name in path:
        command = command.commands[name]        # type: ignore[attr-defined]
    return command


ALL = commands(FEDROUND)


def test_all_the_commands_are_there():
    names = {" ".join(path) for path in ALL}
    assert names >= {
        "demo", "up", "down", "status", "federation init", "federation invite", "federation add", "federation check",
        "federation show", "site init", "site check", "site start", "site ledger", "site approve", "site audit",
        "site recover", "coordinator start", "deploy", "train run", "round run", "models list", "models show", "models get",
        "models rebuild", "verify"}


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "fedround")
def test_every_command_explains_itself_and_all_its_options(fedround: Fedround, path: tuple[str, ...]):
    result = fedround(*path, "--help")
    assert result.exit_code == 0
    assert len(result.stdout) > 150
    for parameter in find(path).params:
        if parameter.name not in ("help", "install_completion", "show_completion"):
            assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} has no help"


def test_no_name_is_cut_in_a_narrow_terminal_and_no_flag_asks_for_a_value(monkeypatch: pytest.MonkeyPatch):
    """A name that is too long for its column goes on below."""
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 60)
    for path in ALL:
        told = CliRunner().invoke(app, [*path, "--help"]).output
        assert "<bool>" not in told
        ours = [str(getattr(parameter, part, "")) for parameter in find(path).params for part in ("help", "metavar")]
        cut = [word for word in re.findall(r"[\w.-]+…", told) if not any(word in text for text in ours)]
        assert not cut, f"fedround {' '.join(path)}: {cut}"


def test_help_answers_at_once_and_imports_nothing_heavy():
    """In CPU time, which a busy machine does not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", """
import json, sys
sys.argv = ["fedround", "--help"]
from fedround_cli.main import app
try:
    app()
except SystemExit as stop:
    print(json.dumps([stop.code, sorted(name for name in sys.modules if "." not in name)]), file=sys.stderr)
"""], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, modules = json.loads(done.stderr)
    assert code == 0
    assert not {"torch", "prefect", "great_expectations", "dvc", "boto3", "botocore", "pandas", "sklearn"} & set(modules)
    assert "fedround demo" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_an_unknown_command_is_named(fedround: Fedround):
    result = fedround("trian")
    assert result.exit_code == 2
    assert "trian" in result.stderr


def test_json_is_offered_wherever_a_script_would_read():
    for path in (("status",), ("federation", "show"), ("site", "check"), ("site", "ledger"), ("train", "run"),
                 ("round", "run"), ("models", "list"), ("models", "show"), ("verify",)):
        assert any("--json" in parameter.opts for parameter in find(path).params), path
