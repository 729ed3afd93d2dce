"""fedround up and down: the servers on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from fedround.spoken import typed
from fedround_cli.folders import DEFAULT_HOME, Home
from fedround_cli.output import command, out


@command
def up(
    home: Home = DEFAULT_HOME,
    api_port: Annotated[int | None, typer.Option(help="Port of the Prefect API and UI; a free one if not given.")] = None,
    s3_port: Annotated[int | None, typer.Option(help="Port of the S3 server; a free one if not given.")] = None,
) -> None:
    """Start PostgreSQL, a Prefect server and an S3 server on this machine, and leave them running.

    All data lie below --home, and `fedround down` keeps them. The servers listen on 127.0.0.1 only. If this command ends
    before they are ready, or is killed, none of them stays.
    """
    from infra.stack import LocalStack
    from infra.watcher import watched

    with watched(home) as keep, out.status("starting the servers …") as status:
        info = LocalStack(home, api_port=api_port, s3_port=s3_port).start(status.update)
        keep()
    out.say("Prefect UI  {}\nPrefect API {}\nS3          {}  bucket {}\n\nNext: [bold]fedround federation init[/], or stop "
            "them with [bold]fedround down --home {}[/]",
            info.ui_url, info.api_url, info.s3_endpoint, info.bucket, typed(home))


@command
def down(home: Home = DEFAULT_HOME) -> None:
    """Stop the servers of --home, and the processes that `fedround demo` started there. Data are kept.

    Processes that you started yourself with `site start` or `coordinator start` go on: stop them with Ctrl-C.
    """
    from infra.stack import LocalStack
    from infra.stack.processes import stop_recorded

    stopped = stop_recorded(home)
    LocalStack(home).stop()
    out.say(f"stopped{': ' + ', '.join(stopped) + ' and' if stopped else ''} the servers; data are kept in {{}}", home)
