"""How good a committed model is: on the coordinator's public test set, and on the rows that sites hold out."""

from __future__ import annotations

import functools
from pathlib import Path

from fedround import codec
from fedround.learning.evaluate import Metrics, metrics, metrics_from_counts, scores
from fedround.learning.recipe import Examples, Recipe
from fedround.types import Commit
from tasks.collect import Collected
from tasks.coordinator import Coordinator
from tasks.history import read_checkpoint, read_tensors
from validation.rows import read_rows


def evaluate(coordinator: Coordinator, commit: Commit) -> Metrics | None:
    """The committed model on the public test set; None if the coordinator has none."""
    if coordinator.settings.test_set is None:
        return None
    schema = read_checkpoint(coordinator.store, commit, coordinator.identity.key).tensors
    source = f"model of round {commit.round}"
    tensors = codec.decode(read_tensors(coordinator.store, commit.model, schema, source), schema, source)
    examples = _test_set(coordinator.folder / coordinator.settings.test_set, coordinator.recipe)
    return metrics(scores(coordinator.recipe, tensors, examples), examples.labels_N)


def at_the_sites(collected: Collected) -> tuple[Metrics | None, dict[str, Metrics | None]]:
    """The plan's base model on the rows that sites hold out, from noised counts: over all sites, and per site."""
    counts = {site: admitted.answer.evaluation for site, admitted in sorted(collected.admitted.items())
              if admitted.answer.evaluation is not None}
    return metrics_from_counts(list(counts.values())), {site: metrics_from_counts([c]) for site, c in counts.items()}


@functools.lru_cache(maxsize=1)
def _test_set(path: Path, recipe: Recipe) -> Examples:
    return recipe.encode(read_rows(path))
