"""`fedround privacy plan`: which campaign is costed, from a settings file and the options in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedround_cli.folders import shipped

if TYPE_CHECKING:
    from fedround.drift.spec import DriftWatch
    from fedround.learning.spec import Training
    from fedround.privacy.spec import Mechanism, Promise
    from fedround.secure_sums.spec import SecureSum
    from fedround.statistics import Groups, LocalEvaluation
    from fedround.statistics.partitions import Partition, Recurring

_MOST_DIGITS = 12


@dataclass(frozen=True)
class Costed:
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
    paced: bool = False
    """Whether sites work at their own pace, so that some give more updates than others."""

    def shared(self, mechanism: Mechanism, members: int) -> Mechanism:
        """With the noise that so many members share, where they do."""
        from fedround.privacy.spec import shared

        return shared(mechanism, None if self.combine is None else self.combine.shared_by(members))


def secure_sum(said: str | None) -> SecureSum | None:
    """What '--secure T,D,C[,signed]' says. Raises ContractError if it is no secure sum."""
    from fedround.errors import ContractError
    from fedround.secure_sums.spec import SecureSum
    from fedround.values import parse

    if said is None:
        return None
    numbers = said.removesuffix(",signed")
    parts = numbers.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) <= _MOST_DIGITS for part in parts):
        raise ContractError(f"--secure {said}: expected three whole numbers, the threshold, the dropouts and the colluders: "
                            "10,2,1 for example, or 9,3,1,signed")
    return parse(SecureSum, {**dict(zip(("threshold", "dropouts", "colluders"), map(int, parts), strict=True)),
                             "consistency": "counted" if numbers == said else "signed"}, "--secure")


def partition_of(terms: Costed, name: str | None) -> Partition | None:
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
    """The table's, or what the recipe says."""
    from fedround.learning.recipe import load_recipe
    from fedround.learning.spec import NAMED, LocalTraining
    from fedround.values import parse

    if recipe is not None and (said := load_recipe(recipe).learner) is not None:
        return said
    learner = NAMED.get(str(table.get("name")))
    return parse(LocalTraining, table, source) if learner is None else parse(learner, table, source)


def costed(path: Path | None, said: dict[str, Any], recipe: Path | None, secure: SecureSum | None) -> Costed:
    """The file's tables, with the options that were given in their place. Raises ContractError if they cannot be costed."""
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
    known = ("privacy", "training", "evaluation", "groups", "drift", "partitions", "combine", "pace")
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
    return Costed(privacy, training,
                  parse(LocalEvaluation, tables["evaluation"], source.replace("privacy", "evaluation")),
                  parse(Groups, file["groups"], source.replace("privacy", "groups")) if "groups" in file else None,
                  parse(DriftWatch, file["drift"], source.replace("privacy", "drift")) if "drift" in file else None,
                  parse(Recurring, file["partitions"], source.replace("privacy", "partitions")) if "partitions" in file
                  else None, combine, members, "pace" in file)


def named_rows(rows: list[str]) -> list[tuple[str, int]]:
    """What '--rows NAME=N' says, each time. Raises ContractError if it is no name and number."""
    from fedround.errors import ContractError

    found = []
    for text in rows:
        name, _, count = text.rpartition("=")
        if not count.isdecimal() or len(count) > _MOST_DIGITS or int(count) < 1:
            raise ContractError(f"--rows {text}: expected NAME=N with N from 1 to 10^{_MOST_DIGITS}, for example --rows "
                                "north=1200")
        found.append((name or "site", int(count)))
    return found
