"""fedround simulate."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedround.spoken import how_many
from fedround_cli.output import AsJson, command, err, out, print_json
from fedround_cli.terminal import words

if TYPE_CHECKING:
    from rich.table import Table

    from fedround.codec import Tensors
    from fedround.learning.recipe import Recipe
    from fedround.learning.tasks import Metrics
    from fedround.simulation.asking import Calendar
    from fedround.simulation.chance import Seeded
    from fedround.simulation.on_ray import RayCrew
    from fedround.simulation.result import Result
    from fedround_cli.world import SimulationAsked, World

MOST_ALONE = 20
_MOST_METRICS, _NARROW = 3, 80


@dataclass(frozen=True)
class _Clock:
    """How long sites take, and when it is."""

    seconds: Mapping[str, float] | None = None
    calendar: Calendar | None = None


@command
def simulate(
    what: Annotated[Path, typer.Argument(
        help="An example (banks, hospitals, insurance, digits, mnist, carloan, or a folder of your own with settings.toml, "
        "recipe.py and split.py); or settings.toml, or federation.toml.")],
    recipe: Annotated[Path | None, typer.Option(help="The recipe, if WHAT is a file.")] = None,
    data: Annotated[Path | None, typer.Option(help="Rows (Parquet or CSV) that are dealt to simulated sites.")] = None,
    partition: Annotated[str, typer.Option(
        help="How rows are dealt: iid, dirichlet:0.5, shards:2, quantity:1, features:0.8 or column:NAME.")] = "iid",
    part: Annotated[str | None, typer.Option(
        metavar="NAME", help="If the settings have [partitions]: on whose rows the campaign trains, such as "
        "2026-w48.")] = None,
    sites: Annotated[int | None, typer.Option(
        min=1, help="Number of simulated sites. Default: as many as the federation file has members, or 10.")] = None,
    test: Annotated[Path | None, typer.Option(help="Public rows to judge with. Default: a fifth of the data, drawn.")] = None,
    rounds: Annotated[int | None, typer.Option(
        min=1, help="Default: as many as the privacy allows, or 10. Noise is made for so many; with [selection] or [pace] "
        "for privacy.rounds, which counts one site's updates.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Instead of privacy.epsilon. 0: no privacy at all.")] = None,
    rule: Annotated[str | None, typer.Option(
        metavar="NAME", help="Another rule of those that the settings let be chosen ([choices] rule).")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the sites that each round asks, drawn anew. The others "
                                         "count as dropouts where the settings add up under 'combine'.")] = 1.0,
    seconds: Annotated[str | None, typer.Option(
        metavar="S1,S2,…", help="How long sites take for a plan, in order of their names, over and over: rounds close by a "
        "virtual clock. Default: all answer at once.")] = None,
    begins: Annotated[str | None, typer.Option(
        metavar="TIME", help="When the first round begins, such as 2026-12-01T18:00+01:00: members with 'hours' or 'closed' "
        "days are not asked then. With --seconds.")] = None,
    every: Annotated[float | None, typer.Option(
        min=0, help="Seconds from the beginning of a round to that of the next, at least. With --begins.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; all random draws follow from it.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of campaigns, with consecutive seeds.")] = 1,
    exact: Annotated[bool, typer.Option(
        "--exact", help="Train site by site with the arithmetic of a live site: slower, same distribution.")] = False,
    workers: Annotated[int | None, typer.Option(
        min=1, help="Train on this number of Ray workers (pip install 'fedround[ray]'); same result.")] = None,
    tried: Annotated[list[str] | None, typer.Option(
        "--try", metavar="KEY=V1,V2,…", help="Compare settings by successive halving on the rows that sites hold "
        "out. Several --try: all combinations.")] = None,
    apart: Annotated[bool, typer.Option(
        "--apart", help="Sites as made with 'site init --ledger': rows to train on and rows held out pay apart, and less "
        "noise keeps the same epsilon.")] = False,
    compare: Annotated[bool, typer.Option(
        "--compare", help="Also train on all rows in one place, and at each site alone; and where the settings add up under "
        "'combine', with noise of each site's own.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw the labels of every site as an SVG picture.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole campaign in this process: no servers, no keys, no protection. For choosing settings.

    Settings, recipe, rule, privacy and server optimizer are those of a live federation, and the same code computes them.
    Shows what a campaign reaches, what it costs in epsilon and what it sends, before anybody is asked for a record.

    * `fedround simulate banks`: twelve banks, the agreed settings, every round on the public test set
    * `fedround simulate banks --epsilon 1 --seeds 3`: the same at a smaller budget, three times
    * `fedround simulate banks --compare`: also pooled training, and each bank by itself
    * `fedround simulate banks --try training.learning_rate=1,3,9 --try training.local_steps=5,10`: which is best?
    * `fedround simulate settings.toml --recipe recipe.py --data rows.parquet --sites 100 --partition dirichlet:0.3`

    A partition says how different the sites are. *iid*: not at all. *dirichlet:A*: each label's rows are dealt in shares
    drawn with concentration A; at 0.1 most sites see few labels. *shards:K*: each site gets K pieces of the rows sorted by
    label. *quantity:A*: sites of different sizes. *features:S*: rows that look alike go together. *column:NAME*: one site for
    each value of the column.

    Whom a round asks ([selection], [reputation]), how the training changes ([training] rule) and whose late answers count
    ([pace]) follows from the settings, as live. A federation file's members lend the sites their names, weights, hours and
    closed days.

    * `fedround simulate federation.toml --recipe recipe.py --data rows.parquet --rounds 40`: who takes part, and how often?
    * `fedround simulate paced.toml --recipe recipe.py --data rows.parquet --seconds 60,120,600`: sites at speeds of 1:2:10
    """
    from fedround_cli.folders import shipped
    from fedround_cli.simulate_pace import calendar_of, seconds_of
    from fedround_cli.world import asked_of, dealt, example, part_of, with_members

    what = shipped(what)
    asked = asked_of(what, recipe, epsilon, rounds, rule)
    only = part_of(asked.agreement, part)
    person = asked.person
    world = (example(what, asked.recipe, only, person) if data is None
             else dealt(asked, data, partition, sites or len(asked.members) or 10, test, seed, only, person))
    world = with_members(world, asked.members)
    clock = _Clock(seconds_of(seconds, world.sites), calendar_of(begins, every))
    if tried:
        _refuse_beside_try(share != 1, seeds != 1, exact, workers is not None, compare, picture is not None,
                           seconds is not None, begins is not None)
        _try(asked, world, tried, seed, apart=apart, as_json=as_json)
        return
    results = [_run(asked, world, number, clock, share=share, stacked=not exact, workers=workers, apart=apart)
               for number in range(seed, seed + seeds)]
    rivals = _rivals(asked, world, seed, share) if compare else {}
    own = _with_own_noise(asked, world, seed, share, apart=apart) if compare else None
    if picture is not None:
        from fedround_cli.label_plot import as_svg

        title = f"{asked.agreement.name}: rows of {how_many(len(world.sites), 'site')}"
        picture.write_text(as_svg(*_groups(world, asked.recipe), title))
    if as_json:
        from fedround_cli.simulate_json import campaign

        print_json({"settings": asked.agreement.model_dump(mode="json"), "sites": {
            name: len(site.train) for name, site in world.sites.items()}, "campaigns": [
            campaign(number, result) for number, result in enumerate(results, seed)],
            "compared": {name: found.model_dump() for name, found in rivals.items()},
            "own_noise": None if own is None else campaign(seed, own)})
        return
    _show(asked, world, results, own, rivals, seed)
    if picture is not None:
        out.say("wrote {}", picture)


def _refuse_beside_try(*given: bool) -> None:
    """A search runs its own campaigns: what would be ignored is said."""
    from fedround.errors import ContractError

    options = ("--share", "--seeds", "--exact", "--workers", "--compare", "--picture", "--seconds", "--begins")
    if ignored := [option for option, is_given in zip(options, given, strict=True) if is_given]:
        raise ContractError(f"{', '.join(ignored)} has no effect with --try: leave it out, and simulate the best candidate "
                            "with it afterwards")


def _try(asked: SimulationAsked, world: World, tried: list[str], seed: int, *, apart: bool, as_json: bool) -> None:
    from fedround_cli import candidates

    found = candidates.search(asked, world, tried, seed, apart=apart)
    if as_json:
        print_json(candidates.as_json(found))
        return
    out.print(candidates.as_table(found))
    out.say("best: [bold]{}[/]. {}", found.best, candidates.costs(found))


def _run(asked: SimulationAsked, world: World, seed: int, clock: _Clock, *, share: float, stacked: bool, workers: int | None,
         apart: bool) -> Result:
    """One campaign, with a bar on the terminal."""
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from fedround.simulation.campaign import simulate as run
    from fedround.simulation.chance import Seeded

    chance = Seeded(seed)
    columns = words("seed {task.fields[seed]}: round {task.completed} of {task.total}"), BarColumn(), words(
        "{task.fields[reached]}"), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as progress, _crew(asked, world, chance, workers) as crew:
        bar = progress.add_task("", total=asked.rounds, seed=seed, reached="")
        return run(asked.agreement, asked.recipe, world.sites, rounds=asked.rounds, chance=chance, stacked=stacked,
                   share=share, test=world.test, crew=crew, apart=apart, seconds=clock.seconds,
                   calendar=clock.calendar, told=lambda one: progress.update(
                       bar, advance=1, reached="" if one.test is None else str(one.test)))


def _crew(asked: SimulationAsked, world: World, chance: Seeded,
          workers: int | None) -> AbstractContextManager[RayCrew | None]:
    if workers is None:
        return nullcontext()
    from fedround.simulation.on_ray import RayCrew

    rows = {name: site.train for name, site in world.sites.items()}
    return RayCrew(asked.path, rows, asked.agreement.training, chance, workers)


def _rivals(asked: SimulationAsked, world: World, seed: int, share: float) -> dict[str, Metrics]:
    from rich.progress import track

    from fedround.errors import ContractError
    from fedround.learning.evaluate import scores
    from fedround.simulation.chance import Seeded
    from fedround.simulation.compare import alone, centralised

    found: dict[str, Metrics] = {}

    def judge(name: str, trained: Callable[[], Tensors]) -> None:
        try:
            found[name] = asked.recipe.task.metrics(scores(asked.recipe, trained(), world.test))
        except ContractError as error:      # it has diverged; the others are told
            err.say("{}: {}", name, error)

    how, cohort = (asked.agreement, asked.recipe), max(1, round(share * len(world.sites)))
    judge("all rows in one place", partial(centralised, *how, world.sites, asked.rounds, Seeded(seed), cohort))
    largest = sorted(world.sites, key=lambda name: (-len(world.sites[name].train), name))[:MOST_ALONE]
    for name in track(largest, "each site alone", console=err, transient=True):
        judge(f"{name} alone", partial(alone, *how, world.sites[name], asked.rounds, Seeded(seed)))
    return found


def _with_own_noise(asked: SimulationAsked, world: World, seed: int, share: float, *, apart: bool) -> Result | None:
    """The same campaign where nobody shares noise; None where nobody does anyhow."""
    from dataclasses import replace

    from fedround.simulation.compare import with_own_noise

    if asked.agreement.combine is None:
        return None
    alike = replace(asked, agreement=with_own_noise(asked.agreement, world.sites))
    return _run(alike, world, seed, _Clock(), share=share, stacked=True, workers=None, apart=apart)


def _groups(world: World, recipe: Recipe) -> tuple[list[str], dict[str, list[int]]]:
    """What the task tells apart among targets, in words, and how many rows of each every site has."""
    import numpy as np

    found = {name: recipe.task.groups(site.train.targets) for name, site in world.sites.items()}
    words = next(iter(found.values()))[0]
    return words, {name: np.bincount(place_N, minlength=len(words)).tolist() for name, (_, place_N) in found.items()}


def _show(asked: SimulationAsked, world: World, results: list[Result], own: Result | None, rivals: dict[str, Metrics],
          seed: int) -> None:
    from rich.table import Table

    from fedround.privacy.profile import upward
    from fedround_cli.label_plot import as_text
    from fedround_cli.simulate_pace import paid_for_nothing, table_of

    out.print(as_text(*_groups(world, asked.recipe)), highlight=False)
    if len(results) == 1:
        out.print(_rounds_table(asked, results[0]))
    table = Table("", *_names(results[0]), "ε", "sent", title="On the public test set")
    private = [*((f"the federation, seed {number}", result) for number, result in enumerate(results, seed)),
               *([] if own is None else [("with each site's own noise", own)])]
    for name, result in private:
        spent = "none" if result.epsilon is None else upward(result.epsilon, 3)
        table.add_row(name, *_cells(result.last.test), spent, _in_words(result.sent_bytes))
    for name, found in rivals.items():
        table.add_row(name, *_cells(found), "no privacy", "")
    out.print(table)
    last = results[-1]
    if noises := _noises(last):
        out.print(f"noise multipliers: smallest {noises[0]:.3f}, median {statistics.median(noises):.3f}, largest "
                  f"{noises[-1]:.3f} ({how_many(len(noises), 'site')})", highlight=False)
    if last.epsilon_alone is not None:
        out.say("ε counts the noise that others add; if every other site told what it added, it would be {}",
                upward(last.epsilon_alone, 3))
    if (took_part := last.participation) is not None:
        out.print(table_of(took_part))
        out.say("{}", took_part)
    if (lost := paid_for_nothing(last)) is not None:
        out.say("{}", lost)
    _show_at_sites("", last.at_sites)
    _show_at_sites("personal models' ", last.personal_at_sites)
    for note in last.notes:
        out.say("[yellow]note:[/] {}", note)


def _noises(result: Result) -> list[float]:
    """The noise multipliers of the sites that took part, sorted; none where nothing is noised."""
    from fedround.privacy.spec import NoMechanism

    return sorted(mechanism.noise_multiplier for mechanism in result.mechanisms.values()
                  if not isinstance(mechanism, NoMechanism))


def _show_at_sites(whose: str, reached: Mapping[str, Metrics]) -> None:
    from tasks.reporting.words import label

    for name in _shown(next(iter(reached.values()))) if reached else ():
        values = [found.known()[name] for found in reached.values() if name in found.known()]
        out.print(f"{whose}{label(name)} at the sites, on the rows that each holds out: smallest {min(values):.3f}, median "
                  f"{statistics.median(values):.3f}, largest {max(values):.3f} ({how_many(len(values), 'site')})",
                  highlight=False)


def _rounds_table(asked: SimulationAsked, result: Result) -> Table:
    from rich.table import Table

    agreement = asked.agreement
    timed = [] if result.last.ended_s is None else ["closed, min"]
    table = Table("round", *timed, *_names(result), "asked", "left out", "sent", title=f"{agreement.name}: "
                  f"{how_many(len(result.rounds), 'round')} of {agreement.training.in_words}, {agreement.how_to_aggregate()}")
    for one in result.rounds:
        left_out = ", ".join(one.left_out[:3]) + (" …" if len(one.left_out) > 3 else "")
        closed = [] if one.ended_s is None else [f"{one.ended_s / 60:.1f}"]
        table.add_row(str(one.number), *closed, *_cells(one.test), str(one.asked), left_out,
                      _in_words(one.sent_bytes + one.received_bytes))
    return table


def _names(result: Result) -> list[str]:
    from tasks.reporting.words import label

    return [] if result.last.test is None else [label(name) for name in _shown(result.last.test)]


def _cells(found: Metrics | None) -> list[str]:
    return [] if found is None else [f"{value:.4f}" for value in _shown(found).values()]


def _shown(found: Metrics) -> dict[str, float]:
    """The first of the task's metrics: as many as a table has room for. `--json` has all."""
    return dict(itertools.islice(found.known().items(), 1 if out.width < _NARROW else _MOST_METRICS))


def _in_words(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} GB"
