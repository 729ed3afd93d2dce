"""How commands speak: tables for people, JSON for scripts, one sentence and an exit code for problems."""

from __future__ import annotations

import errno
import functools
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from fedround.errors import FedroundError
from fedround_cli.terminal import Terminal
from infra.logs import chosen_handler, log_lines

out = Terminal()
err = Terminal(stderr=True)

P = ParamSpec("P")
R = TypeVar("R")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]
Deadline = Annotated[int | None, typer.Option("--deadline", "--deadline-s", help="Seconds that sites have to answer.")]


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(data, indent=2, default=str))


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A problem of the user or of the machine is one sentence on standard error and exit code 1, never a traceback."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except FedroundError as error:
            err.say("[bold red]fedround:[/] {}", error)
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno == errno.EPIPE:      # `| head` has seen enough
                raise
            err.say("[bold red]fedround:[/] {}", _in_words(error))
            raise typer.Exit(1) from None

    return wrapped


def log_to_terminal(level: int = logging.INFO) -> None:
    """Log lines of our own, for long-lived commands."""
    from rich.logging import RichHandler

    plain = RichHandler(console=err, show_path=False)
    handler = chosen_handler(plain)
    log_lines("%(message)s" if handler is plain else "%(asctime)s %(levelname)s %(name)s %(message)s", handler, level=level)


def _as_named(error: OSError) -> Path | str:
    """The file as whoever typed the command knows it: not the temporary one beside it (`fedround.files`)."""
    if not isinstance(error.filename, str):
        return "this machine"
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8,}", (path := Path(error.filename)).name)
    return path if found is None else path.with_name(found[1])


def _in_words(error: OSError) -> str:
    """The operating system's error, its file, and what helps."""
    where = _as_named(error)
    if error.errno == errno.ENOENT and isinstance(where, Path) and not where.parent.exists():
        return f"{where}: there is no folder {where.parent}; make it, or name another place"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{where}: {error.strerror or type(error).__name__}; " + (
        "make room" if full else "check the path and its permissions") + ", then run the command again: nothing is lost"
