"""Commands run in this process, as `fedround …` would run them, without touching its environment."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import prefect.main  # noqa: F401 - sets up logging, once, and closes streams of earlier handlers: not inside a test
import pytest
import typer.testing
from click.testing import Result
from prefect.context import SettingsContext, get_settings_context
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from fedround_cli.main import app
from tests.small_federation import SmallFederation

API_THAT_IS_DOWN = "http://127.0.0.1:9/api"        # nobody listens on port 9; the small federation's files name it
Fedround = Callable[..., Result]

typer.testing._get_command = functools.cache(typer.testing._get_command)      # the tree of commands is built once


@pytest.fixture(scope="session")
def api_is_down() -> SettingsContext:
    """Prefect's settings as a process of its own would read them from the environment. To make them takes a while."""
    with temporary_settings({PREFECT_API_URL: API_THAT_IS_DOWN}):
        return get_settings_context()


@pytest.fixture
def fedround(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api_is_down: SettingsContext) -> Iterator[Fedround]:
    """Run a command in an empty folder; returns what it printed and its exit code."""
    before = dict(os.environ)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "400")
    with SettingsContext(profile=api_is_down.profile, settings=api_is_down.settings):
        yield lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def coordinator(federation: SmallFederation) -> Path:
    """The folder of a coordinator who has three members."""
    return federation.root / "coordinator"


def one_sentence(result: Result, *says: str) -> str:
    """The command failed with one line on standard error that holds all of `says`, and no traceback."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit | type(None)), result.exception
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("fedround: ")
    for part in says:
        assert part in lines[0], lines[0]
    return lines[0]
