"""The coordinator's own update, for rules that compare every site with it (FLTrust)."""

from __future__ import annotations

from pathlib import Path

from fedround import codec
from fedround.aggregation.rows import ArrayNumbers
from fedround.aggregation.spec import Aggregation
from fedround.errors import ContractError
from fedround.files import kept_while_unchanged
from fedround.learning.examples import Examples
from fedround.learning.guard import UNGUARDED
from fedround.learning.learn import learn
from fedround.learning.lesson import Lesson
from fedround.learning.recipe import Recipe
from fedround.privacy.noise import stream
from fedround.privacy.spec import NoMechanism
from fedround.records import Plan
from infra.documents import read_tensors
from infra.history import read_rest
from tasks.coordinator import Coordinator
from validation.encoding import encoded_alone


def require_root_set(coordinator: Coordinator, how: Aggregation) -> None:
    """Raises ContractError if the rule needs rows of the coordinator's own, and it has none."""
    if how.rule.needs_root and coordinator.settings.root_set is None:
        raise ContractError(f"the rule '{how.rule.name}' compares every update with the coordinator's own: name a file of "
                            "rows that it may train on, 'root_set = \"root.parquet\"', in coordinator.toml, or agree on "
                            "another rule")


def root_update(coordinator: Coordinator, plan: Plan, plan_digest: str) -> ArrayNumbers | None:
    """The recipe trained on the root set as a site would, without noise; None unless the rule asks for it.

    Which rows a batch holds is drawn from the plan's digest: the same plan, the same bytes.
    """
    if not plan.agreed.aggregation.rule.needs_root:
        return None
    require_root_set(coordinator, plan.agreed.aggregation)
    rows = _root_set(coordinator.folder / (coordinator.settings.root_set or ""), coordinator.recipe, coordinator.recipe_file)
    base = read_tensors(coordinator.store, plan.base_model, plan.tensors, f"base model of round {plan.round}")
    batches = stream(bytes(32), plan_digest.encode(), b"root set")
    rest = read_rest(coordinator.store, coordinator.recipe, plan.agreed.parts, plan.rest, plan.run)
    trained = learn(coordinator.recipe, Lesson(base, rows, rest), plan.agreed.training, NoMechanism(), batches, UNGUARDED)
    return ArrayNumbers(codec.flatten(trained.delta))


@kept_while_unchanged
def _root_set(path: Path, recipe: Recipe, file: Path) -> Examples:
    return encoded_alone(path, recipe, file)
