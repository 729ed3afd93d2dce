"""How commands speak: tables for people, JSON for scripts, one sentence and an exit code for problems."""

from __future__ import annotations

import errno
import functools
import json
import logging
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler

from fedround.errors import FedroundError

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


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
            err.print(f"[bold red]fedround:[/] {_escaped(str(error))}")
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno == errno.EPIPE:      # `| head` has seen enough
                raise
            err.print(f"[bold red]fedround:[/] {_escaped(_in_words(error))}")
            raise typer.Exit(1) from None

    return wrapped


def log_to_terminal(level: int = logging.INFO) -> None:
    """Log lines of our own, for long-lived commands."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", datefmt="[%X]",
                        handlers=[RichHandler(console=err, show_path=False)])
    logging.getLogger("fedround").setLevel(level)


def _in_words(error: OSError) -> str:
    """What the operating system refused, where, and what helps."""
    where = error.filename if error.filename is not None else "this machine"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{where}: {error.strerror or type(error).__name__}; " + (
        "make room" if full else "check the path and its permissions") + ", then run the command again: nothing is lost"


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
