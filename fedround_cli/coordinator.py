"""fedround coordinator invite, init, add, remove, list, update, start; fedround deploy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import FedroundError, SetupError
from fedround.spoken import typed
from fedround_cli.folders import DEFAULT_COORDINATOR, DEFAULT_HOME, CoordinatorFolder, Home
from fedround_cli.invited import AccessKey, SecretKey, credential_for, hand_over
from fedround_cli.output import AsJson, command, log_to_terminal, out, print_json
from fedround_cli.train import Epsilon, Rule, chosen

if TYPE_CHECKING:
    from fedround.federation import Federation

app = typer.Typer(no_args_is_help=True, help="The coordinator's process, and others that take turns with it.")


@app.command()
@command
def invite(
    name: Annotated[str, typer.Argument(help="Another coordinator's name: lower-case letters, digits, hyphens.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    home: Home = DEFAULT_HOME,
    output: Annotated[Path | None, typer.Option(help="Where to write it; default: NAME.coordinator.toml.")] = None,
    access_key: AccessKey = None,
    secret_key: SecretKey = None,
) -> None:
    """Write an invitation for another coordinator: addresses, recipe, contract, and a credential for the whole bucket.

    Hand it over privately. The test set goes apart.
    """
    from tasks.invitations import check_name, invite_coordinator

    check_name(name, "coordinator")
    credential = credential_for(home, access_key, secret_key, lambda stack: stack.coordinator_credential())
    hand_over(invite_coordinator(folder, name, credential), output or Path(f"{name}.coordinator.toml"),
              f"coordinator add {name}=KEY …")


@app.command()
@command
def init(
    folder: Annotated[Path, typer.Argument(help="The other coordinator's new folder.")],
    invitation: Annotated[Path, typer.Option(help="What the founder sent.")],
    test_set: Annotated[Path | None, typer.Option(help="The founder's test set, if it has one.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="The checkpoint with which every run begins, if there is "
                                                         "one.")] = None,
) -> None:
    """Make another coordinator's folder with a key of its own, and show the key. Recipe and contract in it are the founder's
    word: read them.
    """
    from infra.invitations import CoordinatorInvitation, load_invitation
    from tasks.coordinators import create_other

    asked = load_invitation(CoordinatorInvitation, invitation)
    key = create_other(folder, asked, test_set, start_from)
    out.say("made [bold]{}[/]; the founder needs its name and public key:\n  {}={}\nNext, once the founder has added it and "
            "run [bold]fedround deploy[/]: [bold]fedround coordinator update --coordinator {}[/]", folder, asked.name, key,
            typed(folder))


@app.command()
@command
def add(
    others: Annotated[list[str], typer.Argument(metavar="NAME=KEY …", help="Coordinators and the keys that `fedround "
                                                                           "coordinator init` showed.")],
    founder: Annotated[str | None, typer.Option(help="Let this folder's coordinator take turns, too, under this "
                                                     "name.")] = None,
    silence: Annotated[int | None, typer.Option(help="After so many seconds without a commit the next one goes "
                                                     "on.")] = None,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
) -> None:
    """Let coordinators take turns: each round is proposed by one, and counts with the signatures of a majority.

    At least three, all in one command; or more beside those that there are. A name that is there gets the new key.
    """
    from tasks.coordinators import add_coordinators

    keys = dict(_parted(one) for one in others)
    if len(keys) < len(others):
        raise FedroundError("one name is given twice")
    _told(add_coordinators(folder, keys, founder, silence))


@app.command()
@command
def remove(
    names: Annotated[list[str], typer.Argument(help="Who takes no turns any more.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Their keys are lost or stolen: nobody may ever use them "
                                                          "again.")] = False,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
) -> None:
    """Take coordinators out of the federation file: nothing that they sign counts from the next plan on. Without any left,
    this one coordinates alone; one or two are too few.
    """
    from tasks.coordinators import remove_coordinators

    _told(remove_coordinators(folder, names, revoke=revoke))


@app.command("list")
@command
def list_(folder: CoordinatorFolder = DEFAULT_COORDINATOR, as_json: AsJson = False) -> None:
    """Show who takes turns, with which key, and how many must sign. `fedround status` says who serves."""
    from rich.table import Table

    from infra.settings import CoordinatorSettings, load_federation, load_toml

    federation = load_federation(folder / load_toml(CoordinatorSettings, folder / "coordinator.toml").federation)
    entries = [{"name": one.name, "key": one.key, "founder": one.key == federation.coordinator}
               for one in federation.coordinators]
    if as_json:
        print_json({"coordinators": entries, "majority": federation.majority, "silence_s": federation.silence_s})
        return
    if entries:
        table = Table("coordinator", "key", "founder", title=f"federation '{federation.name}'")
        for one in entries:
            table.add_row(str(one["name"]), str(one["key"]), "yes" if one["founder"] else "")
        out.print(table)
    out.say("{}", turns_in_words(federation))


@app.command()
@command
def update(folder: CoordinatorFolder = DEFAULT_COORDINATOR) -> None:
    """At another coordinator: write the federation file that is in force into its folder. Repeat it when the founder has
    changed the file.
    """
    from tasks.coordinators import take_file

    taken = take_file(folder)
    out.say("the file of entry {} of the federation log is in {}: {}\nNext: [bold]fedround coordinator start --coordinator {}"
            "[/]", taken.entry.number, folder, turns_in_words(taken.federation), typed(folder))


def turns_in_words(federation: Federation) -> str:
    """Who must sign a round."""
    if not (count := len(federation.coordinators)):
        return "one coordinator alone"
    return (f"{count} coordinators take turns, {federation.majority} must sign, {count - federation.majority} may be away; "
            f"after {federation.silence_s} s without a commit the next one goes on")


def _parted(said: str) -> tuple[str, str]:
    name, _, key = said.partition("=")
    if not key:
        raise SetupError(f"'{said}': expected NAME=KEY, as 'fedround coordinator init' shows it")
    return name, key


def _told(federation: Federation) -> None:
    out.say("{}\nNext: [bold]fedround deploy[/] here, which puts the file into force; then [bold]fedround coordinator "
            "update[/] at each of the others", turns_in_words(federation))


@app.command()
@command
def start(folder: CoordinatorFolder = DEFAULT_COORDINATOR) -> None:
    """Serve the federation's rounds until stopped: scheduled, from the UI's form, or from `train run` and `round run`.

    One process, one round at a time. If it is killed at any moment and started again, it continues where it stopped.
    """
    from flows.service import serve_coordinator

    log_to_terminal()
    serve_coordinator(folder)


@command
def deploy(
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    cron: Annotated[str | None, typer.Option(
        help="A new schedule: one more round at these times, for example '0 3 * * 1'. If the federation tells rows "
             "apart: a campaign on the last partition that is complete then. Missed times are made up once.")] = None,
    time_zone: Annotated[str, typer.Option(help="The time zone of the schedule, for example 'Europe/Berlin'.")] = "UTC",
    no_cron: Annotated[bool, typer.Option("--no-cron", help="Remove the schedule. Otherwise it stays as it is.")] = False,
    run: Annotated[str, typer.Option(
        help="The run that scheduled rounds continue; if the federation tells rows apart, how the runs' names "
             "begin.")] = "scheduled",
    epsilon: Epsilon = None,
    rule: Rule = None,
    automations: Annotated[bool, typer.Option(
        "--automations", help="Also make automations: a late site, a failed round, a budget that is nearly spent, drift, "
                              "answers that are rejected again and again, a forged signature.")] = False,
    notify: Annotated[str | None, typer.Option(
        metavar="BLOCK", help="Whom new automations tell: a notification block of the server, 'slack-webhook/ours'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Register pools and deployments with the Prefect server, and show what changes. Repeat it after changing the members.

    The schedule stays unless another is asked for, and so do pauses and limits that people have set in the UI. The server
    learns names and forms, and no code: no path, no command, no entrypoint.
    """
    from flows.service import automate, register

    if notify is not None and not automations:
        raise FedroundError("--notify says whom new automations tell: give --automations with it")
    if cron is not None and no_cron:
        raise FedroundError("--cron makes a schedule and --no-cron removes it: give one of them")
    choice = chosen(epsilon, rule)
    if choice and cron is None:
        raise FedroundError("--epsilon and --rule are of the runs that a schedule begins: give --cron with them")
    done = "would be deployed" if dry_run else "deployed"
    changes = asyncio.run(register(folder, None if cron is None else (cron, run, time_zone, choice), keep=not no_cron,
                                   dry=dry_run))
    if automations:
        changes += asyncio.run(automate(folder, notify, dry=dry_run))
    for change in changes:
        if change.of.startswith(("schedule", "pool ", "automation ")):
            if change.what:
                out.say("{}: {}", change.of, change.what)
        else:
            out.say("{} {}: {}", done, change.of, change.what or "as it was")
    if cron is not None and not dry_run:
        out.print(f"at '{cron}' ({time_zone}), while 'fedround coordinator start' runs: one more round of run '{run}'; "
                  f"if the federation tells rows apart, a campaign on the last full partition, in a run '{run}-…' of its own")
