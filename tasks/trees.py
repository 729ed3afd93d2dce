"""Before sites are asked: whether there are trees left to grow, and whether those of the model are the recipe's."""

from __future__ import annotations

from fedround.errors import ContractError
from fedround.learning.recipe import Recipe
from fedround.learning.trees.outputs import grown
from fedround.records import Checkpoint, Commit
from infra.documents import read_tensors
from infra.history import read_checkpoint
from tasks.coordinator import Coordinator


def require_same_trees(recipe: Recipe, checkpoint: Checkpoint, run: str) -> None:
    """Raises ContractError if the leaves of the run's model may belong to other trees than the recipe's."""
    if recipe.trees is not None and checkpoint.recipe_digest != recipe.digest:
        raise ContractError(f"the model of run '{run}' was grown by recipe {checkpoint.recipe_digest[:16]}, and the "
                            f"coordinator's is {recipe.digest[:16]}, whose trees may split elsewhere: put back the recipe of "
                            "that run, or begin a new run without its model")


def require_trees_left(coordinator: Coordinator, parent: Commit) -> None:
    """Raises ContractError if a round that continues `parent` has no trees to grow. Other learners need none."""
    trees = coordinator.recipe.trees
    if trees is None:
        return
    checkpoint = read_checkpoint(coordinator.store, parent, coordinator.key)
    require_same_trees(coordinator.recipe, checkpoint, parent.run)
    model = read_tensors(coordinator.store, parent.model, checkpoint.tensors, f"model of round {parent.round}", by="commit")
    if grown(model) + trees.per_round > trees.trees:
        raise ContractError(f"all {trees.trees} trees of run '{parent.run}' have grown: the run is done, and no site is "
                            "asked. A recipe with more rounds in TREES lets a new run grow more")
