"""fedround region invite, init, key, mandate, start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedround.spoken import how_many, typed
from fedround_cli.folders import DEFAULT_COORDINATOR, DEFAULT_HOME, CoordinatorFolder, Home
from fedround_cli.invited import AccessKey, SecretKey, credential_for, hand_over
from fedround_cli.output import command, log_to_terminal, out

app = typer.Typer(no_args_is_help=True, help="Regional coordinators: each adds up the updates of its members.")

RegionName = Annotated[str, typer.Argument(help="The region's name: lower-case letters, digits, hyphens.")]
Members = Annotated[list[str], typer.Option("--member", help="A member of the region; give it once for each.")]
RegionFolder = Annotated[Path, typer.Argument(help="The regional coordinator's folder (region init makes it).")]


@app.command()
@command
def invite(
    region: RegionName,
    member: Members,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    home: Home = DEFAULT_HOME,
    output: Annotated[Path | None, typer.Option(help="Where to write it; default: NAME.region.toml.")] = None,
    access_key: AccessKey = None,
    secret_key: SecretKey = None,
) -> None:
    """Write an invitation for a regional coordinator: addresses, and a credential that reads its members' answers and writes
    below its own prefix.

    Hand it over privately. Repeat it when other members belong to the region: the credential then reads theirs.
    """
    from tasks.invitations import check_name, invite_region

    check_name(region, "region")
    credential = credential_for(home, access_key, secret_key, lambda stack: stack.grant_region(region, member))
    hand_over(invite_region(folder, region, credential), output or Path(f"{region}.region.toml"),
              f"region mandate {region} --key … --member …")


@app.command()
@command
def init(
    folder: RegionFolder,
    invitation: Annotated[Path, typer.Option(help="What the coordinator sent.")],
) -> None:
    """Make a regional coordinator's folder with a key of its own, and show the key."""
    from infra.invitations import RegionInvitation, load_invitation
    from tasks.region import create_region

    made = create_region(folder, load_invitation(RegionInvitation, invitation))
    out.say("made [bold]{}[/]; the coordinator needs its public key:\n  {}\nNext, once the coordinator has given the "
            "mandate: [bold]fedround region start {}[/]", folder, made, typed(folder))


@app.command()
@command
def key(folder: RegionFolder) -> None:
    """Show the public key, and nothing else."""
    from tasks.region import open_region

    typer.echo(open_region(folder).identity.key)


@app.command()
@command
def mandate(
    region: RegionName,
    key: Annotated[str, typer.Option(help="The public key that `fedround region init` showed.")],
    member: Members,
    until: Annotated[int | None, typer.Option(help="The last round of any run for which it holds.")] = None,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
) -> None:
    """Give, renew or change a region's mandate in the federation file. It holds from the next plan on, once every member is
    in exactly one region.
    """
    import asyncio

    from fedround.regions.spec import Region
    from fedround.values import parse
    from flows.service import register_site
    from tasks.membership import give_mandate

    given = parse(Region, {"name": region, "key": key, "members": member, "until": until}, f"mandate of region '{region}'")
    outside = give_mandate(folder, given)
    deployed = asyncio.run(register_site(folder, region))
    out.say("region '{}' adds up {}" + ("" if deployed else "; the Prefect server does not answer: [bold]fedround "
                                                "deploy[/] when it does"), region, how_many(len(member), "member"))
    if outside:
        out.say("[yellow]![/] in no region yet: {}. Every member is in exactly one, so nothing is planned before each has a "
                "mandate's place", ", ".join(outside))


@app.command()
@command
def start(folder: RegionFolder) -> None:
    """Serve the region's pool until stopped: wait for the members' answers, admit them, add up, sign."""
    from flows.region_host import serve_region

    log_to_terminal()
    serve_region(folder)
