"""fedround privacy plan."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround.spoken import how_many
from fedround_cli import group_preview, promise
from fedround_cli.costed import Costed, costed, named_rows, partition_of, secure_sum
from fedround_cli.costs import Cost, costs_of, in_a_leaf, own_cost
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.terminal import styled

if TYPE_CHECKING:
    from rich.text import Text

    from fedround.privacy.spec import TrainingMechanism

app = typer.Typer(no_args_is_help=True, help="Privacy: what a campaign will cost, before it runs.")


@app.callback()
def privacy() -> None:
    """Privacy: what a campaign will cost, before it runs."""


@app.command()
@command
def plan(
    settings: Annotated[Path | None, typer.Argument(
        help="federation.toml or settings.toml: its tables [privacy], [training], [evaluation] and [drift]; or an example's "
        "name. Options win.")] = None,
    rows: Annotated[list[str] | None, typer.Option(
        "--rows", metavar="NAME=N", help="A site and its number of training rows; once for each site.")] = None,
    site: Annotated[list[Path] | None, typer.Option(
        help="A site's own folder, at the site: its rows, its ledger and its policy count.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="The most that a site may spend over all rounds.")] = None,
    delta_dp: Annotated[float | None, typer.Option(help="The probability that goes with it. Default: 1e-5.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds that the budget must last for.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Local steps in each round.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Expected rows in each step.")] = None,
    unit: Annotated[str | None, typer.Option(
        help="'record' (each row is protected), 'person' (all rows of each person; --rows then counts persons) or 'site' "
        "(all it contributes).")] = None,
    evaluation_noise: Annotated[float | None, typer.Option(
        help="Standard deviation of the noise on every score count.")] = None,
    apart: Annotated[bool, typer.Option(
        "--apart", help="The sites of --rows are made with 'site init --ledger': rows to train on and rows held out pay "
        "apart. (--site FOLDER knows by itself.)")] = False,
    rows_per_person: Annotated[int | None, typer.Option(
        min=1, max=50, metavar="K", help="Also say what the promise is worth for a person with K rows at one site. With the "
        "unit 'person': at most so many rows of one are used.")] = None,
    partition: Annotated[str | None, typer.Option(
        metavar="NAME", help="With --site, if the settings have [partitions]: whose rows the campaign trains on, such as "
        "2026-w48. Default: the last that is complete.")] = None,
    groups_from: Annotated[Path | None, typer.Option(
        help="Public rows with the watched attributes: they tell how large groups are. Without: all equally large.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write epsilon against rounds as an SVG picture.")] = None,
    secure: Annotated[str | None, typer.Option(
        metavar="T,D,C", help="The sites of --rows add up their numbers and share the noise: threshold, dropouts and "
        "colluders of the secure sum; then ',signed' if members sign who is in it. Default: as 'combine' in SETTINGS "
        "says.")] = None,
    recipe: Annotated[Path | None, typer.Option(
        help="The recipe, if it says TREES and SETTINGS is not made from it yet. It runs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cost a campaign before it runs: the noise that each site needs, and what it will have spent after each round.

    Nothing is charged, sent or trained. Epsilon bounds what an observer of everything that leaves a site can learn about one
    record (or about the site), in the worst case. It grows fast at first, and then like the square root of the rounds. A site
    with few rows draws each of them more often (the sampling rate) and needs more noise. The noised score counts of the
    evaluations have a column of their own. If they cost much, raise evaluation.noise_std (--evaluation-noise). So have the
    counts for drift, if the file agrees on some.

    * `fedround privacy plan banks --rows north=1200 --rows south=400`
    * `fedround privacy plan --epsilon 5 --rounds 20 --steps 10 --batch 256 --rows all=1800`
    * `fedround privacy plan federation.toml --site my-site`: with what its ledger holds and its policy allows

    Where members share noise ('combine', or --secure), the noise is that of all rows together, and there are two prices:
    while the others add their noise, and alone, if all of them told what they added.
    """
    terms = costed(settings, {
        "privacy": {"epsilon": epsilon, "delta_dp": delta_dp, "rounds": rounds, "unit": unit}, "persons": rows_per_person,
        "training": {"local_steps": steps, "batch_size": batch}, "evaluation": {"noise_std": evaluation_noise}}, recipe,
        secure_sum(secure))
    apart = apart and terms.privacy.unit != "person"        # a person may have rows on both sides
    costs = costs_of(terms, named_rows(rows or []), rows_per_person, apart=apart)
    part = partition_of(terms, partition) if site else None
    costs += [own_cost(terms, folder, rows_per_person, part) for folder in site or []]
    if not costs:
        from fedround.errors import ContractError

        raise ContractError("how many rows do the sites have? Give --rows NAME=N for each of them, or --site FOLDER")
    if picture is not None:
        from fedround_cli.epsilon_plot import as_svg

        picture.write_text(as_svg({cost.site: cost.course for cost in costs}, terms.privacy.epsilon, _title(terms)))
    previewed = None if terms.groups is None or terms.privacy.unit == "site" else group_preview.preview(
        terms.groups, terms.privacy.delta_dp, {cost.site: cost.rows for cost in costs}, groups_from)
    if as_json:
        print_json({"privacy": terms.privacy.model_dump(), "training": terms.training.model_dump(),
                    "evaluation": terms.evaluation.model_dump(), "sites": [_as_json(cost) for cost in costs],
                    "drift": None if terms.drift is None else terms.drift.model_dump(mode="json"),
                    "groups": None if previewed is None else asdict(previewed)})
        return
    _show(terms, costs)
    if previewed is not None:
        group_preview.show(previewed)
    if picture is not None:
        out.say("wrote {}", picture)


def _show(terms: Costed, costs: list[Cost]) -> None:
    from rich.table import Table

    from fedround.privacy.profile import upward
    from fedround_cli.epsilon_plot import as_text

    privacy, own = terms.privacy, any(cost.already is not None for cost in costs)
    counted = "persons" if privacy.unit == "person" else "rows"
    table = Table("site", counted, "sampling", "noise multiplier", "ε after the last round", "evaluations alone",
                  title=_title(terms))
    for heading in (["ε if nobody else's noise counts"] * (terms.combine is not None) + ["drift alone"] * (
            terms.drift is not None) + ["ε of a record"] * (privacy.unit != "record")
                    + ["spent before", "the ledger"] * own):
        table.add_column(heading)
    for cost in costs:
        last = cost.course[-1]
        cells: list[str | Text] = [cost.site, f"{cost.rows}", _sampling(cost.mechanism), _noise(cost.mechanism),
                 upward(last.total, 4), upward(last.evaluation, 4) if last.evaluation > 0 else "none leave"]
        if cost.alone is not None:
            cells.append(upward(cost.alone, 4))
        if terms.drift is not None:
            cells.append(upward(last.drift, 4))
        if privacy.unit != "record":
            cells.append(upward(cost.across["record"], 4))
        if own:
            cells += (["", ""] if cost.already is None else
                      [upward(cost.already, 4), styled("[green]takes all rounds[/]") if cost.refused is None
                       else styled("[red]refuses it[/]")])
        table.add_row(*cells)
    out.print(table)
    out.print(as_text({cost.site: cost.course for cost in costs}, privacy.epsilon), highlight=False)
    promise.show({cost.site: cost.worth for cost in costs})
    if terms.paced:
        out.say("with [pace], 'rounds' counts the updates that one site gives, {} at most: fast sites give most, and a run "
                "may have more rounds; an answer that comes too late is paid for", privacy.rounds)
    if (leaf := in_a_leaf(terms, costs)) is not None:
        noise, held = leaf
        quieter = "" if noise < held else ": take fewer leaves (depth) or fewer trees in a round, and a larger l2"
        out.say("the noise in each leaf's sum is as loud as {} rows, all these sites together; on average a leaf has {}{}",
                f"{noise:.1f}", f"{held:.1f}", quieter)
    if apart := [cost.site for cost in costs if cost.apart]:
        out.say("rows to train on and rows held out pay apart at {}: ε is of the record that pays most", ", ".join(apart))
    for cost in costs:
        for doubt in cost.doubts:
            out.print(styled("[yellow]![/] {}: {}", cost.site, doubt), highlight=False)


def _title(terms: Costed) -> str:
    privacy, training = terms.privacy, terms.training
    whom = {"record": "one record of a site", "person": "all rows of one person at a site",
            "site": "all that a site contributes"}[privacy.unit]
    return (f"{how_many(privacy.rounds, 'round')} of {training.in_words}: ε ≤ {privacy.epsilon:g} "
            f"at δ {privacy.delta_dp:g} for {whom}")


def _noise(mechanism: TrainingMechanism) -> str:
    return "none" if mechanism.kind == "none" else f"{mechanism.noise_multiplier:.3f}"


def _sampling(mechanism: TrainingMechanism) -> str:
    """How a site visits its rows."""
    match mechanism.kind:
        case "dp_sgd" | "adaptive_dp_sgd":
            return f"{mechanism.sampling_rate:.4f}"
        case "dp_ftrl":
            return f"in order, {mechanism.batch_size} at a time"
        case "row_sum":
            return "all rows"
        case _:
            return "not counted"


def _as_json(cost: Cost) -> dict[str, Any]:
    return {"site": cost.site, "rows": cost.rows, "apart": cost.apart, "mechanism": cost.mechanism.model_dump(),
            "course": [asdict(spent) for spent in cost.course],
            "epsilon_across_units": {unit: None if math.isinf(value) else value for unit, value in cost.across.items()},
            "epsilon_alone": None if cost.alone is None or math.isinf(cost.alone) else cost.alone,
            **promise.as_json(cost.worth), "spent_before": cost.already, "refused_in_round": cost.refused,
            "warnings": list(cost.doubts)}
