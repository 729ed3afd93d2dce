"""The reference pages, made from the code that they describe whenever the site is built. None is in the repository."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import cast

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from docs_site.models import NAMED_TEXTS, Model, reachable, section, titles
from fedround import layout, signing
from fedround.agreement import Agreement
from fedround.bundle import Manifest
from fedround.contribution.said import Contribution
from fedround.federation import Federation
from fedround.federation_log import LogEntry, Rotation
from fedround.promotion import Policy
from fedround.records import Answer, Checkpoint, Commit, Cosignature, Finding, PartialSum, Plan, Refusal
from fedround.sightings import Sighting
from fedround.synthetic.blueprint import Blueprint
from fedround.synthetic.said import Synthetic
from fedround.values import Signed
from fedround_cli.main import app
from infra.invitations import CoordinatorInvitation, Invitation, RegionInvitation
from infra.settings import CoordinatorSettings, DatabaseSettings, RegionSettings, S3Credential, SiteSettings
from site_workers.policy import SitePolicy
from tasks.promote import Decision
from tasks.reporting.card import Facts
from validation.contract import ContractFile

FILES: dict[str, tuple[Model, str]] = {
    "settings.toml": (Agreement, "What a federation agrees on, before it has members. `fedround federation init` reads it."),
    "federation.toml": (Federation, "The same with the members and their keys, in the coordinator's folder."),
    "coordinator.toml": (CoordinatorSettings, "Addresses and files of the coordinator, in its folder."),
    "NAME.coordinator.toml": (CoordinatorInvitation, "What the founder hands to [another](../coordinators.md). A secret."),
    "region.toml": (RegionSettings, "Addresses of a regional coordinator, in its folder. [Regions](../regions.md)."),
    "REGION.region.toml": (RegionInvitation, "What a coordinator gives to a regional coordinator. It holds a credential."),
    "site.toml": (SiteSettings, "Addresses, rows and approved files of a site, in its folder."),
    "policy.toml": (SitePolicy, "What a site allows: [in full](../operating/site.md#what-a-site-allows-policytoml)."),
    "promotion.toml": (Policy, "What a model must be [before it is used](../models.md#stages-candidate-and-production)."),
    "card.toml": (Facts, "What no computer knows of a model, for its card; in the coordinator's folder."),
    "synthetic.toml": (Blueprint, "What [synthetic rows](../synthetic.md) look like, and which tables are asked for them."),
    "contract.json": (ContractFile, "What rows must look like. [Data contracts](../contracts.md)."),
    "SITE.invitation.toml": (Invitation, "What a coordinator gives to a new member. It holds a credential."),
    "keys/s3.toml": (S3Credential, "The credential of the object store, mode 0600."),
    "keys/database.toml": (DatabaseSettings, "Where rows come from, if they come from a database, mode 0600."),
}
"""Every file that a person writes or reads, its type, and a word on it."""

SIGNED: dict[str, type[Signed]] = {
    "A plan": Plan, "An answer": Answer, "A refusal": Refusal, "A sighting": Sighting, "A commit": Commit,
    "A checkpoint": Checkpoint, "A finding": Finding, "An entry of the federation log": LogEntry, "A rotation": Rotation,
    "A contribution": Contribution, "A bundle's manifest": Manifest, "A decision to promote": Decision,
    "A card of synthetic rows": Synthetic, "A region's partial sum": PartialSum,
    "A coordinator's signature of a proposal": Cosignature,
}
"""What travels, signed; the federation file is signed, too."""


def pages() -> dict[str, str]:
    """Every generated page, by its name below docs/."""
    return {"reference/cli.md": cli(), "reference/files.md": files(), "reference/wire.md": wire(),
            "reference/store.md": store()}


# -- commands ----------------------------------------------------------------------------------------------------------

Command = TyperCommand | TyperGroup
Parameter = TyperArgument | TyperOption


def commands(of: Command | None = None, path: tuple[str, ...] = ("fedround",)) -> Iterator[tuple[str, Command]]:
    """Every command by its whole name, groups too, as `fedround --help` orders them."""
    command = cast(Command, typer.main.get_command(app)) if of is None else of
    yield " ".join(path), command
    for name, inner in command.commands.items() if isinstance(command, TyperGroup) else ():
        yield from commands(cast(Command, inner), (*path, name))


def cli() -> str:
    """All commands with all that `--help` says of them."""
    parts = ["# Commands", "", "Every command, as `fedround … --help` has it: this page is made from the code.", ""]
    for name, command in commands():
        if name == "fedround":
            continue
        level = "##" if name.count(" ") == 1 else "###"
        parts += [f"{level} {name}", "", _help(command), ""]
        if not isinstance(command, TyperGroup):
            parts += _parameters(name, command)
    return "\n".join(parts)


def _help(command: Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\f", "")


def _parameters(name: str, command: Command) -> list[str]:
    context = typer.Context(command)
    shown = [parameter for parameter in command.params if "--help" not in parameter.opts]
    usage = [piece for one in shown if isinstance(one, TyperArgument) for piece in one.get_usage_pieces(context)]
    lines = [f"```text\n{' '.join([name, *usage])}\n```", ""]
    if not shown:
        return lines
    rows = [_parameter(cast(Parameter, one), context) for one in shown]
    return [*lines, "| | | default | |", "|---|---|---|---|", *rows, ""]


def _parameter(parameter: Parameter, context: typer.Context) -> str:
    names, kind = [parameter.display_name_raw.upper()], ""
    if isinstance(parameter, TyperOption):
        names = [*parameter.opts, *parameter.secondary_opts]
        kind = parameter.metavar or ("" if parameter.is_flag else parameter.display_type(context).strip("<>"))
        limits = (f"{word} {limit:g}" for word, limit in (("at least", parameter.min), ("at most", parameter.max))
                  if limit is not None)
        kind = ", ".join([kind.removesuffix(" range"), *limits])
    text = " ".join([*(parameter.help or "").split(), *([f"Also `{parameter.envvar}`."] if parameter.envvar else [])])
    default = "needed" if parameter.required else _default(parameter)
    return f"| {', '.join(f'`{name}`' for name in names)} | {_cell(kind)} | {_cell(default)} | {_cell(text)} |"


def _default(parameter: Parameter) -> str:
    value = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    return "" if value is None or value is False or value == [] or callable(value) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# -- files and documents -----------------------------------------------------------------------------------------------

def files() -> str:
    """Every file that people write or read."""
    parts = ["# Files", "",
             ("Every key of every file, made from the types that read them. Unknown keys are refused. A table in a table is "
              "`[training]`, or `training = {local_steps = 10}`. `none`: leave the key out."), ""]
    return _with_sections(parts, {name: (words, model) for name, (model, words) in FILES.items()})


def _with_sections(parts: list[str], entries: dict[str, tuple[str, Model]]) -> str:
    """A page with a heading for each entry, its words, and the sections of what is new in it."""
    called = titles(reachable(*(model for _, model in entries.values())))
    seen = set[Model]()
    for heading, (words, model) in entries.items():
        parts += [f"## {heading}", "", words, "", *(section(one, called) for one in reachable(model) if one not in seen)]
        seen |= set(reachable(model))
    return "\n".join([*parts, *_kinds_of_text()])


def wire() -> str:
    """Every signed document."""
    parts = ["# What travels", "", inspect.getdoc(signing) or "", "",
             "The keys of each body, made from the types that read them. Unknown keys are refused.", ""]
    return _with_sections(parts, {name: (f"`kind`: `{model.kind}`", model) for name, model in SIGNED.items()})


def _kinds_of_text() -> list[str]:
    rows = [f"| `{said.partition(':')[0]}` | {' '.join(said.partition(':')[2].split())} | `{pattern}` |"
            for pattern, said in NAMED_TEXTS.items()]
    return ["## Kinds of text", "", "| | | |", "|---|---|---|", *rows, ""]


_SEE_ALSO = ("What each document holds: [what travels](wire.md). Who may read and write what: "
             "[operating guide](../operating/servers.md).")


def store() -> str:
    """Where what lies in the bucket."""
    head, _, rest = (inspect.getdoc(layout) or "").partition("::\n")
    drawn, _, after = rest.partition("\n\nThe keys of")
    body = inspect.cleandoc(drawn)
    return "\n".join(["# The object store", "", head.strip(), "", f"```text\n{body}\n```", "", f"The keys of{after}", "",
                      _SEE_ALSO, ""])
