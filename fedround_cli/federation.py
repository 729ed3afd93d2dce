"""fedround federation init, invite, add, rotate, revoke, log, check, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.errors import SetupError
from fedround.spoken import how_many, typed
from fedround_cli.coordinator import turns_in_words
from fedround_cli.folders import DEFAULT_COORDINATOR, DEFAULT_HOME, AnyFolder, CoordinatorFolder, Home
from fedround_cli.invited import AccessKey, SecretKey, credential_for, given, hand_over
from fedround_cli.output import AsJson, command, out, print_json

if TYPE_CHECKING:
    from fedround.federation import Federation
    from infra.settings import S3Credential, S3Settings

app = typer.Typer(no_args_is_help=True, help="The coordinator's folder and the federation file.")


@app.command()
@command
def init(
    settings: Annotated[Path, typer.Argument(
        help="TOML with name, quorum, privacy, training …: see fedround_examples/banks/settings.toml.")],
    recipe: Annotated[Path, typer.Option(help="Python file: features and model, the same for all sites.")],
    contract: Annotated[Path, typer.Option(help="JSON file: what every site's rows must look like.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    home: Home = DEFAULT_HOME,
    test_set: Annotated[Path | None, typer.Option(help="Public rows that nobody trains on.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="Begin every run with this checkpoint (safetensors): of the whole "
                                                         "model, or of a part of it.")] = None,
    api_url: Annotated[str | None, typer.Option(help="Prefect API; default: this machine's stack.")] = None,
    s3_endpoint: Annotated[str | None, typer.Option(help="S3 address; default: this machine's stack.")] = None,
    bucket: Annotated[str, typer.Option(help="S3 bucket.")] = "fedround",
    region: Annotated[str, typer.Option(help="S3 region.")] = "us-east-1",
    access_key: AccessKey = None,
    secret_key: SecretKey = None,
) -> None:
    """Make a coordinator's folder: a key, the agreed files, and a federation file that has no members yet.

    Addresses and the credential come from the servers that `fedround up` started, unless they are given.
    """
    from infra.settings import CoordinatorSettings
    from infra.toml import read_toml
    from tasks.membership import create_coordinator
    from validation.row_files import ending_of

    agreed = read_toml(settings)
    api, store, credential = _servers(home, api_url, s3_endpoint, bucket, region, given(access_key, secret_key))
    key = create_coordinator(
        folder, agreed,
        CoordinatorSettings(recipe="approved/recipe.py", contract="approved/contract.json", api_url=api,
                            store=store,
                            start=None if start_from is None else "approved/start.safetensors",
                            test_set=None if test_set is None else f"test_set{ending_of(test_set)}"),
        recipe, contract, credential, test_set, start_from)
    out.say("made [bold]{}[/]; the coordinator's public key, which every site will trust, is\n  {}\nNext: [bold]fedround "
            "federation invite NAME --coordinator {}[/] for every site", folder, key, typed(folder))


@app.command()
@command
def invite(
    site: Annotated[str, typer.Argument(help="The site's name: lower-case letters, digits, hyphens.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    home: Home = DEFAULT_HOME,
    output: Annotated[Path | None, typer.Option(help="Where to write it; default: NAME.invitation.toml.")] = None,
    access_key: AccessKey = None,
    secret_key: SecretKey = None,
) -> None:
    """Write an invitation: addresses, the agreed files, and an S3 credential that writes only below the site's prefix.

    Hand it to the site's operator over a channel you both trust: it holds a secret, and the key the site will trust.
    """
    from tasks.invitations import check_name, invite_site

    check_name(site)
    credential = credential_for(home, access_key, secret_key, lambda stack: stack.grant_site(site))
    hand_over(invite_site(folder, site, credential), output or Path(f"{site}.invitation.toml"),
              f"federation add {site} --key … --weight …")


@app.command()
@command
def add(
    site: Annotated[str, typer.Argument(help="The site's name, as in its invitation.")],
    key: Annotated[str, typer.Option(help="The public key that `fedround site init` showed to the site's operator.")],
    weight: Annotated[float, typer.Option(help="How much its updates count, for example its agreed number of rows.")],
    rows: Annotated[int | None, typer.Option(help="How many rows it trains on, as agreed. An answer made as if of more than "
                                                  "1.5 times as many, with less noise, is not admitted.")] = None,
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
) -> None:
    """Add a member to the federation file. The next round asks it too: a running campaign goes on, and nothing is restarted.

    The Prefect server hears of it first, so that no round asks a member that the server does not know.
    """
    import asyncio

    from fedround.federation import SiteEntry
    from fedround.values import parse
    from flows.service import register_site
    from tasks.membership import add_member

    parse(SiteEntry, {"name": site, "key": key, "weight": weight, "rows": rows}, f"member '{site}'")
    deployed = asyncio.run(register_site(folder, site))
    add_member(folder, site, key, weight, rows)
    out.print(f"'{site}' is a member" + (", and the next round asks it" if deployed else
                                         "; the Prefect server does not answer: [bold]fedround deploy[/] when it does"))


@app.command()
@command
def rotate(
    site: Annotated[str, typer.Argument(help="The member whose operator has run `fedround site rotate`.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    key: Annotated[str | None, typer.Option(help="The new public key, where the old one has named several.")] = None,
) -> None:
    """Take a member's new key, which its old key signed for. The next plan is the first that asks for it."""
    from tasks.coordinator import open_coordinator
    from tasks.membership import rotate_key

    key = rotate_key(folder, site, key)
    head = open_coordinator(folder).publish_federation().head
    out.print(f"'{site}' signs with {key} from entry {head.number} of the federation log on; nobody needs to restart")


@app.command()
@command
def revoke(
    site: Annotated[str, typer.Argument(help="The member whose key is lost or stolen.")],
    folder: CoordinatorFolder = DEFAULT_COORDINATOR,
    quorum: Annotated[int | None, typer.Option(help="The quorum from now on, with one member less.")] = None,
) -> None:
    """Revoke a member's key. Earlier rounds stay proven; nothing that is signed with the key counts any more.

    The site can come back with a new key: `fedround federation add`.
    """
    from tasks.coordinator import open_coordinator
    from tasks.membership import revoke_key

    key = revoke_key(folder, site, quorum)
    head = open_coordinator(folder).publish_federation().head
    out.print(f"{key} of '{site}' is revoked from entry {head.number} of the federation log on. Rounds that it signed before "
              "are marked by [bold]fedround verify[/]")


@app.command("log")
@command
def show_log(
    folder: AnyFolder = DEFAULT_COORDINATOR,
    as_json: AsJson = False,
) -> None:
    """Show the federation log: who was a member, with which key, from when on; every entry is verified."""
    from rich.table import Table

    from fedround.federation_log import in_words
    from fedround_cli.membership import store_and_key
    from tasks.verify import read_log

    log = read_log(*store_and_key(folder))
    if as_json:
        print_json([{"digest": logged.digest, **logged.entry.model_dump(mode="json")} for logged in log])
        return
    if not log:
        out.print("the federation log has no entry yet: [bold]fedround deploy[/] writes the first")
        return
    table = Table("entry", "digest", "federation file", "what changed", title="federation log")
    for logged in log:
        table.add_row(str(logged.entry.number), logged.digest[:16], logged.entry.federation_digest[:16],
                      "\n".join(in_words(change) for change in logged.entry.changes))
    out.print(table)


@app.command()
@command
def check(folder: CoordinatorFolder = DEFAULT_COORDINATOR) -> None:
    """Check the coordinator's folder: federation file, key, recipe (tried on the test set), contract, and the store."""
    from fedround import sightings
    from flows.service import enter
    from infra.stores import require_conditional_writes
    from tasks.trial import differ, try_recipe

    coordinator = enter(folder)
    require_conditional_writes(coordinator.store, "probes")
    federation, members, settings = coordinator.federation, len(coordinator.federation.sites), coordinator.settings
    notes = () if settings.test_set is None else try_recipe(
        folder / settings.recipe, folder / settings.test_set, federation, folder / settings.contract)
    out.print(f"[green]✓[/] federation '{federation.name}': {how_many(members, 'site')}, quorum {federation.quorum}; the "
              "store keeps what is written once")
    out.print(f"[green]✓[/] the model of '{federation.recipe}' can be scored and trained, and encodes each row by itself"
              if settings.test_set is not None else
              "[yellow]![/] without a test set the recipe cannot be tried here; each site tries it on its own rows")
    for note in (*notes, *differ(folder / settings.recipe, folder / settings.contract)):
        out.say("[yellow]![/] {}", note)
    if federation.coordinators:
        out.say("[green]✓[/] {}", turns_in_words(federation))
    warn_of_regions_that_stop_sums(federation)
    _warn_of_meaningless_privacy(federation)
    _warn_of_targets_out_of_reach(federation)
    if (liars := sightings.liars_needed(federation)) == 0:
        out.print(f"[yellow]![/] a quorum of {federation.quorum} of {members} is no majority: a coordinator could show two "
                  f"groups of sites two histories. With a quorum of {members // 2 + 1} the sites would notice")
    else:
        late = ("" if federation.pace is None else
                f"; a fork stops {how_many(sightings.window(federation), 'round')} after it, not one")
        out.print(f"[green]✓[/] two histories would need {liars} of the {how_many(members, 'site')} to lie{late}")


def warn_of_regions_that_stop_sums(federation: Federation) -> None:
    """A region that is away takes all its members with it, and a sum bears so many dropouts."""
    largest = max(federation.regions, key=lambda one: len(one.members), default=None)
    if federation.combine is not None and largest is not None and len(largest.members) > federation.combine.dropouts:
        out.say("[yellow]![/] region '{}' has {}, and {} may be missing in a sum: no round goes on without its "
                "coordinator. With consistency = \"signed\" more may be missing", largest.name,
                how_many(len(largest.members), "member"), federation.combine.dropouts)


def _warn_of_meaningless_privacy(federation: Federation) -> None:
    """What sites will refuse. The coordinator does not know how many rows they have: the agreed weights stand for them."""
    from fedround.privacy import sense
    from fedround.privacy.spec import NoPrivacy

    privacy = federation.privacy
    if isinstance(privacy, NoPrivacy):
        return
    rows = max([0, *(round(site.weight) for site in federation.sites)])
    batch = federation.training.batch_size if privacy.unit != "site" else None
    for doubt in sense.doubts(privacy.delta_dp, rows or None, None, batch):
        out.print(f"[yellow]![/] {doubt}", highlight=False)


def _warn_of_targets_out_of_reach(federation: Federation) -> None:
    """Runs that may be begun and that every site would refuse. As above, the largest weight stands for a site's rows."""
    from fedround.choices import Choice
    from fedround.errors import ContractError
    from fedround.rounds.campaign import mechanism_for

    rows = max([0, *(round(site.weight) for site in federation.sites)])
    for target in () if federation.combine is not None or rows == 0 else federation.offer.epsilons[1:]:
        run = federation.chosen(Choice(epsilon=target))
        try:
            mechanism_for(run.privacy, run.training, run.evaluation, rows, run.groups, run.drift)
        except ContractError as error:
            out.say("[yellow]![/] nobody answers a run at epsilon {}: {}", f"{target:g}", error)


@app.command()
@command
def show(folder: CoordinatorFolder = DEFAULT_COORDINATOR, as_json: AsJson = False) -> None:
    """Show who takes part and what every round asks for, with the recipe's and the contract's numbers for the telephone."""
    from rich.table import Table

    from fedround.signing import digest
    from fedround.spoken import in_numbers
    from flows.service import enter

    coordinator = enter(folder)
    federation = coordinator.federation
    if as_json:
        print_json(federation.model_dump(mode="json"))
        return
    table = Table("site", "weight", "rows", "key", title=f"federation '{federation.name}'")
    for site in federation.sites:
        table.add_row(site.name, f"{site.weight:g}", "–" if site.rows is None else str(site.rows), site.key)
    out.print(table)
    for name in ("privacy", "training", "evaluation", "optimizer"):
        out.print(f"{name:<11} {_in_words(getattr(federation, name).model_dump(exclude={'axes', 'often', 'rises'}))}")
    if (how := federation.partitions) is not None:
        out.say("{}", f"{'partitions':<11} a campaign trains on one part of the rows, told apart by {how.in_words}")
    if federation.offers_terms:
        out.print(f"{'choices':<11} a run may have {federation.offer}", highlight=False)
    if (how_selected := federation.selection) is not None:
        out.say("{}", f"{'selection':<11} {_in_words({'': how_selected.model_dump()}).strip()}")
    for name in ("compression", "personal", "groups", "drift", "combine", "reputation", "incentive", "pace"):
        if (agreed := getattr(federation, name)) is not None:
            out.say("{}", f"{name:<11} {_in_words({'': agreed.model_dump(mode='json')}).strip().strip('()')}")
    for site in federation.sites:
        if not site.is_always_there:
            days = "".join(f"; closed {one.first} to {one.last}" for one in site.closed)
            out.say("{}", f"{'there':<11} {site.name}: {site.hours or 'always'}{days}")
    for one in federation.coordinators:
        founder = "  (founder)" if one.key == federation.coordinator else ""
        out.say("{}", f"{'coordinator':<11} {one.name}  {one.key}{founder}")
    for region in federation.regions:
        end = "" if region.until is None else f", until round {region.until}"
        out.say("{}", f"{'region':<11} {region.name}: {', '.join(region.members)}{end}  {region.key}")
    out.print(f"{'aggregation':<11} {federation.how_to_aggregate()}\n"
              f"{'round':<11} quorum {federation.quorum}  deadline {federation.deadline_s} s"
              f"{'' if federation.idle_s is None else f'  idle {federation.idle_s} s'}"
              f"{'' if federation.enough is None else '  closes with ' + how_many(federation.enough, 'update')}\n"
              f"{'recipe':<11} {federation.recipe}  {federation.recipe_digest}\n"
              f"{'':<11} {in_numbers(federation.recipe_digest)}\n"
              f"{'contract':<11} {federation.contract_digest}\n{'':<11} {in_numbers(federation.contract_digest)}\n"
              f"{'file':<11} {digest(coordinator.federation_document)}")


def _in_words(values: dict[str, object]) -> str:
    """`local_steps 10 algorithm fedprox (mu 0.1)`; a setting that is not agreed is not shown."""
    def one(value: object) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(one, value))
        if not isinstance(value, dict):
            return str(value)
        name, rest = value.get("name", ""), _in_words({key: item for key, item in value.items() if key != "name"})
        return f"{name} ({rest})" if name and rest else str(name or f"({rest})")

    return "  ".join(f"{key} {one(value)}" for key, value in values.items()
                     if value is not None and value not in ((), []))


def _servers(home: Path, api_url: str | None, endpoint: str | None, bucket: str, region: str, own: S3Credential | None
             ) -> tuple[str, S3Settings, S3Credential]:
    """Prefect API, bucket and credential: what was typed, and this machine's where nothing was."""
    from infra.settings import S3Settings
    from infra.stack import LocalStack

    if (own is None) != (endpoint is None):
        raise SetupError("a bucket of your own is --s3-endpoint, --access-key and --secret-key together")
    info = LocalStack.find(home)
    if own is not None and endpoint is not None and (api := api_url or (info and info.api_url)):
        return api, S3Settings(endpoint=endpoint, bucket=bucket, region=region), own
    if info is None:
        raise SetupError("no servers run on this machine: run 'fedround up' first, or give --api-url, --s3-endpoint, "
                         "--access-key and --secret-key")
    return (api_url or info.api_url, S3Settings(endpoint=info.s3_endpoint, bucket=info.bucket, region=region),
            LocalStack(home).coordinator_credential())
