"""The options that name folders, the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[Path, typer.Option(
    "--home", envvar="FEDROUND_HOME", help="Folder of the servers on this machine.", show_default=True)]
CoordinatorFolder = Annotated[Path, typer.Option(
    "--coordinator", "-c", envvar="FEDROUND_COORDINATOR", help="The coordinator's folder (federation init made it).")]
AnyFolder = Annotated[Path, typer.Option(
    "--as", "-c", envvar="FEDROUND_COORDINATOR",
    help="A coordinator's or a site's folder: says which store to read, and whose signature must be on what is read.")]
SiteFolder = Annotated[Path, typer.Argument(help="The site's folder (site init made it).")]


def shipped(named: Path) -> Path:
    """The file or folder of this name. If there is none, the example of this name that comes with fedround."""
    if named.exists() or len(named.parts) != 1:
        return named
    found = Path(__file__).parents[1] / "fedround_examples" / named
    return found if (found / "settings.toml").is_file() else named


DEFAULT_HOME = Path(".fedround")
DEFAULT_COORDINATOR = Path("coordinator")
