"""`fedround simulate --try`: which settings are compared, and what came out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedround.spoken import how_many

if TYPE_CHECKING:
    from rich.table import Table

    from fedround.agreement import Agreement
    from fedround.simulation.tuning import Search, TunedTrial
    from fedround_cli.world import SimulationAsked, World

MOST = 81
"""Candidates of one search: three values of four settings."""


def candidates(agreement: Agreement, tried: Sequence[str]) -> dict[str, Agreement]:
    """Every combination of the values in words like "training.learning_rate=0.5,1,2", by its name.

    Raises ContractError for words of another form, unknown keys, invalid values, and too many combinations.
    """
    from fedround.agreement import Agreement
    from fedround.errors import ContractError
    from fedround.values import parse

    axes = [_axis(words) for words in tried]
    if len({key for key, _ in axes}) < len(axes):
        raise ContractError("--try: one setting was given twice; give all its values at once, with commas between them")
    combinations = list(itertools.product(*(values for _, values in axes)))
    if len(combinations) > MOST:
        raise ContractError(f"--try: {len(combinations)} combinations; at most {MOST} are compared: take fewer values")
    found = {}
    for values in combinations:
        changes = dict(zip((key for key, _ in axes), values, strict=True))
        name = ", ".join(f"{key} {value}" for key, value in changes.items())
        table = agreement.model_dump(mode="json", exclude_none=True)
        for key, value in changes.items():
            _put(table, key, value)
        found[name] = parse(Agreement, table, f"--try ({name})")
    return found


def search(asked: SimulationAsked, world: World, tried: Sequence[str], seed: int, *, apart: bool) -> Search:
    """Successive halving over the combinations, with a line for every trial."""
    from rich.progress import Progress, TimeElapsedColumn

    from fedround.simulation.tuning import halving
    from fedround_cli.output import err
    from fedround_cli.terminal import words

    named = candidates(asked.agreement, tried)
    with Progress(words("{task.completed} trials, the last: {task.description}"), TimeElapsedColumn(), console=err,
                  transient=True) as progress:
        bar = progress.add_task("none yet")

        def told(trial: TunedTrial) -> None:
            after = how_many(trial.rounds, "round")
            progress.update(bar, advance=1, description=f"{trial.name}: {trial.score:.4f} after {after}")

        return halving(named, asked.recipe, world.sites, rounds=asked.rounds, seed=seed, apart=apart, told=told)


def as_table(found: Search) -> Table:
    """The best first. A candidate's last trial counts, since the longest trial tells most."""
    from rich.table import Table

    table = Table("candidate", "rounds", "on the rows that sites hold out", title="Tried")
    last = {trial.name: trial for trial in found.trials}
    for trial in sorted(last.values(), key=lambda trial: (-trial.rounds, -trial.score, trial.name)):
        table.add_row(trial.name, str(trial.rounds), f"{trial.score:.4f}", style="bold" if trial.name == found.best else "")
    return table


def costs(found: Search) -> str:
    """What the search would cost in privacy if it were not simulated."""
    from fedround.privacy.profile import upward

    price = ("no privacy was asked for" if found.epsilon_if_live is None else
             f"epsilon {upward(found.epsilon_if_live, 2)} for each {found.trials[0].result.agreement.privacy.unit}")
    return (f"{how_many(found.rounds, 'round')} in {how_many(len(found.trials), 'campaign')}. Simulated on public rows, "
            f"this costs no privacy. A live federation would charge every trial: {price}.")


def as_json(found: Search) -> dict[str, Any]:
    """For scripts."""
    return {"best": found.best, "rounds": found.rounds, "epsilon_if_live": found.epsilon_if_live,
            "trials": [{"candidate": trial.name, "rounds": trial.rounds, "score": trial.score} for trial in found.trials]}


def _axis(words: str) -> tuple[str, list[object]]:
    from fedround.errors import ContractError

    key, _, values = words.partition("=")
    if not key or not values or not all(value.strip() for value in values.split(",")):
        raise ContractError(f"--try {words!r}: expected KEY=VALUE,VALUE,..., such as training.learning_rate=0.5,1,2")
    return key.strip(), [_value(value.strip()) for value in values.split(",")]


def _value(text: str) -> object:
    from fedround.errors import ContractError
    from infra.toml import parse_toml

    try:
        return parse_toml(f"value = {text}", text)["value"]
    except ContractError:
        return text                 # a word


def _put(table: dict[str, Any], key: str, value: object) -> None:
    """Change one entry. A section that is not there yet is made. A key that the settings do not know is refused later."""
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            from fedround.errors import ContractError

            raise ContractError(f"--try {key}: '{section}' holds no settings")
    table[last] = value
