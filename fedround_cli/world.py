"""What `fedround simulate` runs: settings, recipe, and who has which rows."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedround.spoken import how_many

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from fedround.agreement import Agreement
    from fedround.federation import SiteEntry
    from fedround.learning.examples import Examples
    from fedround.learning.recipe import Recipe
    from fedround.simulation.sites import Site
    from fedround.statistics.partitions import Partition

HELD_OUT = 5
"""One row of this number is held out: of the data for the public test set, and of each site's rows for its validation."""


@dataclass(frozen=True)
class SimulationAsked:
    """What is simulated."""

    agreement: Agreement
    recipe: Recipe
    rounds: int
    path: Path
    """Of the recipe."""
    members: tuple[SiteEntry, ...] = ()
    """Of a federation file."""

    @property
    def person(self) -> str | None:
        """The column that says whose row it is; None: persons are not told apart."""
        return getattr(self.agreement.privacy, "person", None)


@dataclass(frozen=True, eq=False)
class World:
    """Who has which rows."""

    sites: Mapping[str, Site]
    test: Examples


def asked_of(what: Path, recipe: Path | None, epsilon: float | None, rounds: int | None, rule: str | None = None
             ) -> SimulationAsked:
    """The settings with the options in their place. rule: of those that they offer.

    Raises SetupError or ContractError for what cannot be read.
    """
    from fedround.agreement import Agreement
    from fedround.errors import ContractError
    from fedround.federation import SiteEntry
    from fedround.learning.recipe import load_recipe
    from fedround.privacy.spec import NoPrivacy
    from fedround.values import parse
    from infra.toml import read_toml

    file = what / "settings.toml" if what.is_dir() else what
    path = what / "recipe.py" if recipe is None and what.is_dir() else recipe
    if path is None:
        raise ContractError("which recipe? Give --recipe FILE, or an example's folder instead of a settings file")
    table = read_toml(file)
    known = {key: value for key, value in table.items() if key in Agreement.model_fields}
    if not isinstance(known.get("privacy", {}), dict):
        raise ContractError(f"{file}: 'privacy' is no table of settings")
    if epsilon is not None:
        known["privacy"] = {"unit": "none"} if epsilon == 0 else {**known.get("privacy", {}), "epsilon": epsilon}
        if isinstance(known.get("choices"), dict):          # here any may be tried
            known["choices"] = {key: value for key, value in known["choices"].items() if key != "epsilon"}
    of_one_site = "selection" in known or "pace" in known       # what privacy.rounds counts, and not all rounds
    if rounds is not None and not of_one_site and known.get("privacy", {}).get("unit") != "none":
        known["privacy"] = {**known.get("privacy", {}), "rounds": rounds}
    entries = table.get("sites", []) if "coordinator" in table else []
    members = tuple(parse(SiteEntry, entry, f"{file}: a member") for entry in entries)
    found = load_recipe(path)
    agreement = parse(Agreement, known, str(file)).learning(found.learner)
    agreement = agreement.chosen(agreement.offer.choice(None, rule))
    agreed = 10 if isinstance(agreement.privacy, NoPrivacy) else agreement.privacy.rounds
    return SimulationAsked(agreement, found, agreed if rounds is None else rounds, path, members)


def part_of(agreement: Agreement, name: str | None) -> Partition | None:
    """The partition that is simulated; None: all rows. Raises ContractError unless the settings ask for what is named."""
    from fedround.errors import ContractError
    from fedround.statistics.partitions import Partition
    from fedround.values import parse

    how = agreement.partitions
    if how is None and name is None:
        return None
    if how is None:
        raise ContractError("--part: these settings do not tell rows apart, so a campaign trains on all of them; leave it "
                            "out, or add [partitions]")
    if name is None:
        raise ContractError(f"these settings tell rows apart by {how.in_words}, and a campaign trains on one part of them: "
                            "name it with --part, such as --part 2026-w48")
    return parse(Partition, {"column": how.column, "by": how.by, "name": name}, "--part")


def example(folder: Path, recipe: Recipe, part: Partition | None = None, person: str | None = None) -> World:
    """The rows of an example: those that STORY in its split.py gives. part: of the sites' rows only these. person: as in
    `dealt`.
    """
    import numpy as np

    from fedround.errors import ContractError, SetupError
    from fedround.simulation.sites import Site

    path = folder / "split.py"
    if not path.exists():
        raise ContractError("which rows? Give --data FILE, and --partition to deal them; or an example's folder with a "
                            "split.py")
    spec = importlib.util.spec_from_file_location(f"fedround_example_{folder.resolve().name}", path)
    if spec is None or spec.loader is None:
        raise SetupError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module         # dataclasses and typing look a class's module up by its name
    spec.loader.exec_module(module)
    parts = module.STORY.split()

    def site(*files: pd.DataFrame) -> Site:
        train, validation = (_only(file, part) for file in files)
        return Site(recipe.encode(train), recipe.encode(validation), columns={} if person is None else {
            person: np.concatenate([_column(file, person) for file in (train, validation)])})

    return World({bank.name: site(bank.train, bank.validation) for bank in parts.banks}, recipe.encode(parts.public_test))


def _column(frame: pd.DataFrame, name: str) -> npt.NDArray[np.object_]:
    from fedround.errors import ContractError

    if name not in frame.columns:
        raise ContractError(f"the rows have no column '{name}', which privacy.person names")
    return frame[name].to_numpy(object)


def _only(frame: pd.DataFrame, part: Partition | None) -> pd.DataFrame:
    from fedround.errors import ContractError

    if part is None:
        return frame
    if part.column not in frame.columns:
        raise ContractError(f"the rows have no column '{part.column}', which [partitions] names")
    return frame[part.holds(frame[part.column].astype(str).to_numpy())].reset_index(drop=True)


def dealt(asked: SimulationAsked, data: Path, partition: str, sites: int, test: Path | None, seed: int,
          part: Partition | None = None, person: str | None = None) -> World:
    """Rows of one file, or of one part of it, dealt to sites. A fifth is held out at each site, and without a test file a
    fifth before for all. person: the column that says whose row it is, where persons are protected.
    """
    import numpy as np

    from fedround.errors import ContractError
    from fedround.simulation.partition import Column, deal, parse_partition, take
    from fedround.simulation.sites import Site
    from validation.encoding import columns_alone, encoded_alone

    how, everybody = parse_partition(partition), encoded_alone(data, asked.recipe, asked.path)
    order = np.random.default_rng(seed).permutation(np.arange(len(everybody)) if part is None else _places(data, part))
    public = len(order) // HELD_OUT if test is None else 0
    rows = np.sort(order[public:])
    named = [*([how.column] if isinstance(how, Column) else []), *([] if person is None else [person])]
    columns = columns_alone([data], named) if named else {}
    if missing := sorted({*named} - columns.keys()):
        raise ContractError(f"the data have no column '{missing[0]}'")
    column = columns[how.column].astype(object)[rows] if isinstance(how, Column) else None
    whose = None if person is None else columns[person][rows]
    examples = take(everybody, rows)
    tested = (take(everybody, np.sort(order[:public])) if test is None
              else encoded_alone(test, asked.recipe, asked.path))
    parts = deal(how, examples, sites, seed, column, asked.recipe.task)
    found = {}
    for place, (name, own) in enumerate(parts.items()):
        shuffled, held = np.random.default_rng([seed, place]).permutation(own), len(own) // HELD_OUT
        kept = np.concatenate([shuffled[held:], shuffled[:held]])
        found[name] = Site(take(examples, shuffled[held:]), take(examples, shuffled[:held]) if held else None,
                           columns={} if person is None or whose is None else {person: whose[kept]})
    return World(found, tested)


def _places(data: Path, part: Partition) -> npt.NDArray[np.int64]:
    import numpy as np

    from fedround.errors import ContractError
    from validation.encoding import columns_alone

    found = columns_alone([data], [part.column])
    if part.column not in found:
        raise ContractError(f"the data have no column '{part.column}', which [partitions] names")
    places = np.flatnonzero(part.holds(found[part.column]))
    if len(places) == 0:
        raise ContractError(f"no row is in the part '{part.name}' of the data, told apart by {part.in_words}")
    return places


def with_members(world: World, members: Sequence[SiteEntry]) -> World:
    """The sites as members of a federation file have agreed: with their names, weights, hours and closed days.

    Sites that are called as the members keep their rows; others take the names in order, if they are as many. Raises
    ContractError if neither is so.
    """
    from fedround.errors import ContractError

    if not members:
        return world
    by_name = {entry.name: entry for entry in members}
    names = {name: name for name in world.sites} if by_name.keys() >= world.sites.keys() else dict(
        zip(sorted(world.sites), by_name, strict=False))
    if len(names) < len(world.sites) or len(world.sites) < len(members):
        raise ContractError(f"the federation file has {how_many(len(members), 'member')}, and "
                            f"{how_many(len(world.sites), 'site', 'is', 'are')} simulated: leave --sites out, or simulate "
                            "settings without members")
    return World({names[name]: replace(site, weight=by_name[names[name]].weight, hours=by_name[names[name]].hours,
                                       closed=by_name[names[name]].closed) for name, site in world.sites.items()}, world.test)
