"""fedround proxy: the proxy between organisations, with a login for each member."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedround.spoken import typed
from fedround_cli.folders import DEFAULT_COORDINATOR, CoordinatorFolder
from fedround_cli.output import command, log_to_terminal, out

app = typer.Typer(no_args_is_help=True, help="TLS, a login for each member, and what a site's login may call.")

ProxyFolder = Annotated[Path, typer.Argument(help="The proxy's folder (proxy init makes it).")]


@app.command()
@command
def init(
    folder: ProxyFolder,
    api_behind: Annotated[str, typer.Option(help="host:port of the Prefect server, which only the proxy reaches.")],
    name: Annotated[str, typer.Option(help="The name under which members reach the API.")],
    certificate: Annotated[Path, typer.Option(help="The TLS certificate, with its chain.")],
    key: Annotated[Path, typer.Option(help="The certificate's key.")],
    listen: Annotated[str, typer.Option(help="Where nginx listens for the API.")] = "0.0.0.0:443",
    s3_behind: Annotated[str | None, typer.Option(help="host:port of an S3 server without TLS.")] = None,
    s3_name: Annotated[str | None, typer.Option(help="The name under which members reach it; default: --name.")] = None,
    s3_listen: Annotated[str, typer.Option(help="Where nginx listens for S3.")] = "0.0.0.0:9443",
    client_authority: Annotated[Path | None, typer.Option(
        help="Mutual TLS: who reaches the API must show a certificate of this authority, with its login's name.")] = None,
    calls_per_second: Annotated[int, typer.Option(
        min=1, max=10_000, help="How many calls a site's login may make, on average over ten seconds.")] = 20,
    models_per_day: Annotated[int, typer.Option(
        min=1, help="With --s3-behind: how many models an S3 credential may fetch in a day before that is told.")] = 200,
    coordinator: CoordinatorFolder = DEFAULT_COORDINATOR,
) -> None:
    """Write nginx.conf, the doorkeeper's settings, and logins for the coordinator and all members that have none.

    Run it again after a change: logins stay. nginx.conf depends on no member, so that a new login needs no reload.
    """
    from infra.doorkeeper.logins import read_logins
    from infra.nginx import Proxy, give_login, make_proxy
    from infra.settings import CoordinatorSettings, load_federation, load_toml

    settings = load_toml(CoordinatorSettings, coordinator / "coordinator.toml")
    federation = load_federation(coordinator / settings.federation)
    made = make_proxy(folder, Proxy(
        coordinator=federation.pool, api_behind=api_behind, s3_behind=s3_behind, api_listen=listen,
        s3_listen=s3_listen, api_name=name, s3_name=s3_name or name, certificate=str(certificate.absolute()),
        key=str(key.absolute()), client_authority=None if client_authority is None else str(client_authority.absolute()),
        calls_per_second=calls_per_second, models_per_day=models_per_day))
    known = read_logins(folder / "logins")
    made += [give_login(folder, site.name) for site in federation.sites if site.name not in known]
    for member in made:
        _say_login(folder, member)
    out.say("wrote {}/nginx.conf\nNext: set PREFECT_SERVER_API_AUTH_STRING of the Prefect server to what {}/server.auth "
            "says, then [bold]fedround proxy start {}[/] and [bold]nginx -p {} -c nginx.conf[/]",
            folder, folder, typed(folder), typed(folder.resolve()))


@app.command()
@command
def login(
    folder: ProxyFolder,
    member: Annotated[str, typer.Argument(help="The site's name; it need not be a member yet.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the login back. The member's next call is refused.")] = False,
) -> None:
    """Make a member's login, in place of the one it had; or take it back. Holds from the next call on."""
    from infra.nginx import give_login
    from infra.nginx.configuration import take_login
    from tasks.invitations import check_name

    check_name(member)
    if remove:
        take_login(folder, member)
        out.print(f"'{member}' has no login any more")
    else:
        _say_login(folder, give_login(folder, member))


@app.command()
@command
def start(folder: ProxyFolder) -> None:
    """Serve the doorkeeper, which reads what sites say to the Prefect API, until stopped. nginx is started beside it."""
    from infra.doorkeeper.app import serve
    from infra.doorkeeper.settings import DoorkeeperSettings
    from infra.settings import load_toml

    log_to_terminal()
    serve(load_toml(DoorkeeperSettings, folder / "doorkeeper.toml"), folder.resolve())


def _say_login(folder: Path, member: str) -> None:
    out.say("the login of '{}' is in {}/members/{}.env: hand it over privately, then delete it", member, folder, member)
