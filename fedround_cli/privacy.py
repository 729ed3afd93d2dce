"""fedround privacy plan."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedround_cli import group_preview, promise
from fedround_cli.folders import shipped
from fedround_cli.output import AsJson, command, out, print_json
from fedround_cli.terminal import styled

if TYPE_CHECKING:
    from fedround.drift.spec import DriftWatch
    from fedround.learning.spec import Training
    from fedround.privacy.ledger import Ledger
    from fedround.privacy.spec import Mechanism, Promise, Unit
    from fedround.rounds.campaign import SpentAfter
    from fedround.secure_sums.spec import SecureSum
    from fedround.statistics import Groups, LocalEvaluation
    from fedround.statistics.partitions import Partition, Recurring

app = typer.Typer(no_args_is_help=True, help="Privacy: what a campaign will cost, before it runs.")

_MOST_DIGITS = 12
MOST_POINTS = 40
"""The most rounds at which a curve is computed."""


@app.callback()
def privacy() -> None:
    """Privacy: what a campaign will cost, before it runs."""


@dataclass(frozen=True)
class Cost:
    """One site's campaign."""

    site: str
    rows: int
    mechanism: Mechanism
    course: list[SpentAfter]
    across: dict[Unit, float]
    apart: bool
    """Whether rows to train on and rows held out pay apart."""
    worth: promise.Worth
    """The promise in other words."""
    already: float | None = None
    """Spent before, for a site's own folder."""
    refused: int | None = None
    """The round that the site's ledger would refuse. It is the first one, since a campaign is set aside whole."""
    doubts: tuple[str, ...] = ()
    """Reasons why the promise means less than its epsilon."""
    alone: float | None = None
    """Where noise is shared: epsilon after the last round if nobody else's share of it counts."""


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
        "colluders of the secure sum. Default: as 'combine' in SETTINGS says.")] = None,
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
    terms = _terms(settings, {
        "privacy": {"epsilon": epsilon, "delta_dp": delta_dp, "rounds": rounds, "unit": unit}, "persons": rows_per_person,
        "training": {"local_steps": steps, "batch_size": batch}, "evaluation": {"noise_std": evaluation_noise}}, recipe,
        _secure(secure))
    apart = apart and terms.privacy.unit != "person"        # a person may have rows on both sides
    costs = _costs(terms, _named(rows or []), rows_per_person, apart=apart)
    part = _partition(terms, partition) if site else None
    costs += [_own_cost(terms, folder, rows_per_person, part) for folder in site or []]
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


@dataclass(frozen=True)
class Terms:
    """What is costed."""

    privacy: Promise
    training: Training
    evaluation: LocalEvaluation
    groups: Groups | None
    drift: DriftWatch | None
    partitions: Recurring | None
    combine: SecureSum | None = None
    members: tuple[int, ...] = ()
    """Of a federation file: how many rows each trains on."""

    def shared(self, mechanism: Mechanism, members: int) -> Mechanism:
        """With the noise that so many members share, where they do."""
        from fedround.privacy.spec import shared

        return shared(mechanism, None if self.combine is None else self.combine.shared_by(members))


def _secure(said: str | None) -> SecureSum | None:
    from fedround.errors import ContractError
    from fedround.secure_sums.spec import SecureSum
    from fedround.values import parse

    if said is None:
        return None
    parts = said.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) <= _MOST_DIGITS for part in parts):
        raise ContractError(f"--secure {said}: expected three whole numbers, the threshold, the dropouts and the colluders: "
                            "10,2,1 for example")
    return parse(SecureSum, dict(zip(("threshold", "dropouts", "colluders"), map(int, parts), strict=True)), "--secure")


def _partition(terms: Terms, name: str | None) -> Partition | None:
    """Whose rows a campaign of these terms trains on now; None: all."""
    from datetime import UTC, datetime

    from fedround.errors import ContractError
    from fedround.statistics.partitions import Partition
    from fedround.values import parse

    how = terms.partitions
    if how is None:
        if name is not None:
            raise ContractError("--partition: these settings have no [partitions], so a campaign trains on all rows")
        return None
    if name is None and how.by == "value":
        raise ContractError("partitions by value have no order: name one with --partition")
    said = {"column": how.column, "by": how.by, "name": name or how.complete(datetime.now(UTC).date())}
    return parse(Partition, said, "--partition")


def _training(table: dict[str, Any], recipe: Path | None, source: str) -> Training:
    """The table's, or the trees of the recipe."""
    from fedround.learning.recipe import load_recipe
    from fedround.learning.spec import LocalTraining
    from fedround.learning.trees.spec import Trees
    from fedround.learning.union.spec import UnionStep
    from fedround.values import parse

    if recipe is not None and (trees := load_recipe(recipe).trees) is not None:
        return trees
    kinds: dict[str, type[Training]] = {"trees": Trees, "union_step": UnionStep}
    return parse(kinds.get(str(table.get("name")), LocalTraining), table, source)


def _terms(path: Path | None, said: dict[str, Any], recipe: Path | None, secure: SecureSum | None) -> Terms:
    """The file's tables, with the options that were given in their place."""
    from fedround.drift.spec import DriftWatch
    from fedround.errors import ContractError
    from fedround.learning.spec import Parts
    from fedround.learning.trees.agreed import objection_to_promise
    from fedround.learning.trees.spec import Trees
    from fedround.learning.union.agreed import objection_to_sums, objection_without_sums
    from fedround.privacy.spec import PersonPrivacy, RecordPrivacy, SitePrivacy
    from fedround.secure_sums.spec import SecureSum
    from fedround.statistics import Groups, LocalEvaluation
    from fedround.statistics.partitions import Recurring
    from fedround.values import parse
    from infra.toml import read_toml

    if path is not None and (path := shipped(path)).is_dir():
        path, recipe = path / "settings.toml", path / "recipe.py" if recipe is None else recipe
    file = {} if path is None else read_toml(path)
    known = ("privacy", "training", "evaluation", "groups", "drift", "partitions", "combine")
    if wrong := [name for name in known if not isinstance(file.get(name, {}), dict)]:
        raise ContractError(f"{path}: '{wrong[0]}' is no table of settings")
    tables = {name: {**file.get(name, {}), **{key: value for key, value in said.get(name, {}).items() if value is not None}}
              for name in ("privacy", "training", "evaluation")}
    wanted = tables["privacy"]
    if wanted.get("unit") == "none":
        raise ContractError("the unit is 'none': without noise there is nothing to cost, epsilon is infinite at once")
    missing = [option for option in ("epsilon", "rounds") if option not in wanted]
    if path is None and missing:
        raise ContractError(f"give a settings file, or {' and '.join(f'--{option}' for option in missing)}")
    wanted.setdefault("delta_dp", 1e-5)
    source = "privacy" if path is None else f"{path}, privacy"
    kinds: dict[str, type[Promise]] = {"record": RecordPrivacy, "person": PersonPrivacy, "site": SitePrivacy}
    if wanted.setdefault("unit", "record") not in kinds:
        raise ContractError(f"{source}: the unit is 'record', 'person' or 'site'")
    if wanted["unit"] == "person":
        wanted.setdefault("person", "person")
        if said["persons"] is not None:
            wanted["rows_per_person"] = said["persons"]
    privacy = parse(kinds[wanted["unit"]], wanted, source)
    training = _training(tables["training"], recipe, source.replace("privacy", "training"))
    if isinstance(training, Trees) and (objection := objection_to_promise(training, privacy)) is not None:
        raise ContractError(f"{source}: {objection}")
    combine = secure
    if combine is None and "combine" in file:
        combine = parse(SecureSum, file["combine"], source.replace("privacy", "combine"))
    why_not = objection_without_sums(training) if combine is None else objection_to_sums(
        training, privacy, None, None, Parts(), None, ())
    if why_not is not None:
        raise ContractError(f"{source.replace('privacy', 'training')}: {why_not}")
    members = tuple(int(one.get("rows", 0)) for one in file.get("sites", []) if isinstance(one, dict))
    return Terms(privacy, training,
                 parse(LocalEvaluation, tables["evaluation"], source.replace("privacy", "evaluation")),
                 parse(Groups, file["groups"], source.replace("privacy", "groups")) if "groups" in file else None,
                 parse(DriftWatch, file["drift"], source.replace("privacy", "drift")) if "drift" in file else None,
                 parse(Recurring, file["partitions"], source.replace("privacy", "partitions")) if "partitions" in file
                 else None, combine, members)


def _named(rows: list[str]) -> list[tuple[str, int]]:
    from fedround.errors import ContractError

    found = []
    for text in rows:
        name, _, count = text.rpartition("=")
        if not count.isdecimal() or len(count) > _MOST_DIGITS or int(count) < 1:
            raise ContractError(f"--rows {text}: expected NAME=N with N from 1 to 10^{_MOST_DIGITS}, for example --rows "
                                "north=1200")
        found.append((name or "site", int(count)))
    return found


def _costs(terms: Terms, rows: list[tuple[str, int]], rows_per_person: int | None, *, apart: bool) -> list[Cost]:
    """Of each site; or of one for all, where they share the noise."""
    if terms.combine is None or not rows:
        return [_cost(terms, name, count, rows_per_person, apart=apart) for name, count in rows]
    members = tuple(count for _, count in rows)
    return [_cost(terms, f"each of {len(rows)}", sum(members), rows_per_person, apart=apart, members=members)]


def _cost(terms: Terms, site: str, rows: int, rows_per_person: int | None, already: float | None = None, *,
          apart: bool, members: tuple[int, ...] = ()) -> Cost:
    """rows: with shared noise, of all members together. members: the rows of each of them."""
    from fedround.errors import ContractError, ToleranceError
    from fedround.privacy import persons, sense
    from fedround.privacy.units import alone
    from fedround.rounds import campaign

    privacy, evaluation, drift = terms.privacy, terms.evaluation, terms.drift
    try:
        if terms.combine is not None:
            terms.combine.check(len(members))
        mechanism = campaign.mechanism_for(privacy, terms.training, evaluation, rows, terms.groups, drift,
                                           apart=apart and terms.combine is None)
    except (ContractError, ToleranceError) as error:
        whose = f"site '{site}' with {rows} rows" if terms.combine is None else f"combine, {rows} rows"
        raise ContractError(f"{whose}: {error}") from None
    own = max(members, default=rows)        # what delta_dp means, each site judges by its own rows
    few = min(privacy.rounds, MOST_POINTS)
    points = sorted({1 + round(i * (privacy.rounds - 1) / max(few - 1, 1)) for i in range(few)})
    uses = campaign.whole(privacy, mechanism, evaluation, terms.groups, drift)
    told = promise.worth(lambda delta: campaign.dearest_record(*uses, delta, privacy.unit, apart=apart),
                         privacy.delta_dp, own, None if privacy.unit == "person" else rows_per_person,
                         lambda held: persons.dearest_person(*uses, privacy.delta_dp, held, apart=apart))
    by_itself = None if terms.combine is None else campaign.dearest_record(
        *([alone(terms.shared(one, len(members))) for one in part] for part in uses), delta_dp=privacy.delta_dp,
        unit=privacy.unit, apart=apart)
    course = list(campaign.course(privacy, mechanism, evaluation, points, terms.groups, drift, apart=apart))
    return Cost(site, rows, mechanism, course,
                campaign.across_units(privacy, mechanism, evaluation, terms.groups, drift, apart=apart), apart, told, already,
                doubts=tuple(sense.doubts(privacy.delta_dp, own, mechanism, terms.training.batch_size)),
                alone=by_itself)


def _own_cost(terms: Terms, folder: Path, rows_per_person: int | None, part: Partition | None) -> Cost:
    """With what the site's ledger holds and its policy allows; of all its rows, or of those in a partition."""
    from fedround.errors import ContractError
    from fedround.privacy import ledger
    from site_workers import registry
    from site_workers.rows import rows_of
    from site_workers.site import open_site

    site = open_site(folder)
    if terms.combine is not None and not all(terms.members or (0,)):
        raise ContractError("--site, with members that share noise: give the federation file, which says how many rows each "
                            "member has; or --rows for every member")
    count = sum(terms.members) if terms.combine is not None else rows_of(site, part, terms.privacy).units(terms.privacy)
    book, policy = ledger.read(site.ledger), site.policy
    cost = _cost(terms, site.name, count, rows_per_person, ledger.held(book, policy.delta_dp, unit=terms.privacy.unit),
                 apart=registry.are_apart(site.folder, site.settings.data) and terms.privacy.unit != "person",
                 members=terms.members)
    unit, most = policy.alone
    over = _held_with(terms, cost, book, policy.delta_dp, unit, part, alone=True) > most or any(
        _held_with(terms, cost, book, policy.delta_dp, whose, part) > bound for whose, bound in policy.budgets.items())
    refused = 1 if over else None
    return replace(cost, refused=refused)


def _held_with(terms: Terms, cost: Cost, book: Ledger, delta_dp: float, unit: Unit, part: Partition | None, *,
               alone: bool = False) -> float:
    """The epsilon in the ledger if this campaign began now: it is set aside whole, or refused in its first round."""
    from fedround.privacy import ledger
    from fedround.privacy.entries import Charge, Lot, Rows, Use
    from fedround.privacy.participation import times_paid
    from fedround.rounds.campaign import counts_of, groups_of, watched

    members = len(terms.members)
    sides: tuple[Rows, Rows] = ("train", "validation") if cost.apart else ("all", "all")
    counts, rounds = counts_of(terms.privacy, terms.evaluation), terms.privacy.rounds
    uses = Counter[Use]({(cost.mechanism, sides[0]): times_paid(cost.mechanism, rounds)})
    uses.update([(one, sides[1]) for one in (*counts * (rounds + 1), *groups_of(terms.privacy, terms.groups))])
    uses.update([(one, "all") for one in watched(terms.privacy, terms.drift)])
    lots = tuple(Lot(mechanism=terms.shared(one, members), rows=side, times=times) for (one, side), times in uses.items())
    begun = Charge(federation="planned", run="planned", round=1, purpose="train", plan=None,
                   mechanisms=tuple(terms.shared(one, members) for one in (cost.mechanism, *counts)),
                   rows=(sides[0], *[sides[1]] * len(counts)) if cost.apart else (),
                   delta_dp=delta_dp, utc="2000-01-01T00:00:00Z", campaign=lots,
                   partition=part.in_ledger if part is not None and ledger.tells_apart(book, part.in_ledger) else None)
    return ledger.held(ledger.with_entries(book, [begun]), delta_dp, unit=unit, alone=alone)


def _show(terms: Terms, costs: list[Cost]) -> None:
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
        cells = [cost.site, f"{cost.rows}", _sampling(cost.mechanism), f"{cost.mechanism.noise_multiplier:.3f}",
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
    if (leaf := _in_a_leaf(terms, costs)) is not None:
        noise, held = leaf
        quieter = "" if noise < held else ": take fewer leaves (depth) or fewer trees in a round, and a larger l2"
        out.say("the noise in each leaf's sum is as loud as {} rows, all these sites together; on average a leaf has {}{}",
                f"{noise:.1f}", f"{held:.1f}", quieter)
    if apart := [cost.site for cost in costs if cost.apart]:
        out.say("rows to train on and rows held out pay apart at {}: ε is of the record that pays most", ", ".join(apart))
    for cost in costs:
        for doubt in cost.doubts:
            out.print(styled("[yellow]![/] {}: {}", cost.site, doubt), highlight=False)


def _title(terms: Terms) -> str:
    privacy, training = terms.privacy, terms.training
    whom = {"record": "one record of a site", "person": "all rows of one person at a site",
            "site": "all that a site contributes"}[privacy.unit]
    return (f"{privacy.rounds} rounds of {training.in_words}: ε ≤ {privacy.epsilon:g} "
            f"at δ {privacy.delta_dp:g} for {whom}")


def _sampling(mechanism: Mechanism) -> str:
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


def _in_a_leaf(terms: Terms, costs: list[Cost]) -> tuple[float, float] | None:
    """How many rows the noise in a leaf's sum is as loud as, and how many a leaf has on average, of all these sites together;
    None if no trees grow from rows.
    """
    from fedround.learning.trees.spec import Trees
    from fedround.privacy.spec import RowSum

    trees, sums = terms.training, [cost.mechanism for cost in costs if isinstance(cost.mechanism, RowSum)]
    if not isinstance(trees, Trees) or len(sums) < len(costs):
        return None
    noise = math.sqrt(trees.per_round * sum(one.noise_multiplier ** 2 for one in sums))
    return noise, sum(cost.rows for cost in costs) / trees.leaves


def _as_json(cost: Cost) -> dict[str, Any]:
    return {"site": cost.site, "rows": cost.rows, "apart": cost.apart, "mechanism": cost.mechanism.model_dump(),
            "course": [asdict(spent) for spent in cost.course],
            "epsilon_across_units": {unit: None if math.isinf(value) else value for unit, value in cost.across.items()},
            "epsilon_alone": None if cost.alone is None or math.isinf(cost.alone) else cost.alone,
            **promise.as_json(cost.worth), "spent_before": cost.already, "refused_in_round": cost.refused,
            "warnings": list(cost.doubts)}
