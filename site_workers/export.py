"""A model for use at the site: the shared model with the site's own parts, or the site's personal one; fine-tuned if asked.

Nothing of this is sent, charged or reported to anybody. It reads the store as any member may.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedround import codec
from fedround.codec import Tensors
from fedround.errors import ContractError
from fedround.files import write_whole
from fedround.learning.clusters import model_of
from fedround.learning.evaluate import scores
from fedround.learning.guard import UNGUARDED
from fedround.learning.lesson import Lesson
from fedround.learning.parts import Rest
from fedround.learning.personal import personalise
from fedround.learning.recipe import schemas
from fedround.learning.spec import LocalTraining
from fedround.learning.tasks import Metrics
from fedround.privacy.noise import stream
from fedround.records import Checkpoint, Commit
from fedround.rounds.site import PERSONAL, PRIVATE
from fedround.signing import digest
from infra.documents import read_tensors
from infra.history import read_checkpoint
from site_workers import history, inputs, kept, seen
from site_workers.rows import Rows, read_site_rows
from site_workers.site import Site


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A whole model, and its metrics on the rows that this site holds out."""

    run: str
    round: int
    shared: str
    """The digest of the shared model that it is made of."""
    tensors: Mapping[str, npt.NDArray[np.float32]]
    metrics: Metrics | None
    """Exact, of rows that were not trained on; for this site's eyes. None: too few rows, or of one label only."""
    before: Metrics | None
    """The same before fine-tuning; None without."""


def own_model(site: Site, run: str | None = None, *, personal: bool = False, tuning: LocalTraining | None = None) -> OwnModel:
    """The run's last committed model with the frozen and the private parts that belong to it; or the site's personal model.

    run: which one; None if the site has taken part in one only.
    tuning: train it further on the site's rows, without noise, in all parts that are trained together. The same rows and
    model give the same bytes.
    Raises ContractError if there is no such model, TrustError or ChainError if the model in the store does not hold. It does
    not prove the model's lineage: 'fedround verify' does.
    """
    commit = history.newest(site, _only(site) if run is None else run, seen.read(site.folder))
    checkpoint, rows = _checkpoint(site, commit), read_site_rows(site)
    model = _personal(site, commit, checkpoint) if personal else _best(
        site, _shared(site, commit, checkpoint), checkpoint, rows)
    rest = _rest(site, commit, checkpoint)
    before = None
    if tuning is not None:
        before = _metrics(site, {**model, **rest.whole}, rows)
        batches = stream(site.noise_secret, b"fine-tuning", commit.model.encode(), rows.digest)
        model, private = personalise(site.recipe, Lesson(model, rows.train, rest), tuning, batches, UNGUARDED)
        rest = Rest(private, rest.frozen)
    whole = {**model, **rest.whole}
    return OwnModel(commit.run, commit.round, commit.model, whole, _metrics(site, whole, rows), before)


def write(model: OwnModel, path: Path) -> str:
    """Write a safetensors file that only its owner may read: no noise hides the rows that it was trained on. Returns its
    SHA-256.
    """
    body = codec.encode(model.tensors)
    write_whole(path, body, durable=True, mode=0o600)
    return digest(body)


def _only(site: Site) -> str:
    runs = sorted(seen.read(site.folder).runs)
    if len(runs) != 1:
        raise ContractError(f"this site has taken part in {', '.join(runs) or 'no run'}: name one with --run")
    return runs[0]


def _checkpoint(site: Site, commit: Commit) -> Checkpoint:
    found = read_checkpoint(site.store, commit, site.settings.coordinator)
    if found.recipe_digest != site.recipe.digest:
        raise ContractError(
            f"checkpoint of round {commit.round} of run '{commit.run}': was trained with recipe {found.recipe_digest[:16]}, "
            f"approved here is {site.recipe.digest[:16]}: put back the recipe of that run")
    return found


def _shared(site: Site, commit: Commit, checkpoint: Checkpoint) -> Tensors:
    source = f"model of round {commit.round} of run '{commit.run}'"
    return read_tensors(site.store, commit.model, checkpoint.tensors, source, by="commit")


def _best(site: Site, tensors: Tensors, checkpoint: Checkpoint, rows: Rows) -> Tensors:
    """Of several models the one that is best on the rows held out here."""
    models = [model_of(tensors, cluster, checkpoint.clusters) for cluster in range(checkpoint.clusters)]
    if len(models) == 1:
        return models[0]
    found = [_metrics(site, model, rows) for model in models]
    worth = [-math.inf if one is None else one.known()[site.recipe.task.headline] for one in found]
    return models[worth.index(max(worth))]


def _rest(site: Site, commit: Commit, checkpoint: Checkpoint) -> Rest:
    """The frozen part, and the private one as of the site's last answer in the run, or as it begins."""
    begun = inputs.begun(site, commit.run, checkpoint.rest, checkpoint.parts)
    private = kept.newest(site.safe, commit.run, commit.round + 1, PRIVATE, schemas(site.recipe, checkpoint.parts).private)
    return begun if private is None else Rest(private, begun.frozen)


def _personal(site: Site, commit: Commit, checkpoint: Checkpoint) -> Tensors:
    found = kept.newest(site.safe, commit.run, commit.round + 1, PERSONAL, checkpoint.tensors)
    if found is None:
        raise ContractError(f"this site keeps no personal model of run '{commit.run}': the federation agrees on one with "
                            "'personal = {name = \"ditto\", pull = …}', and the site's next answer leaves one")
    return found


def _metrics(site: Site, whole: Tensors, rows: Rows) -> Metrics | None:
    try:
        return site.recipe.task.metrics(scores(site.recipe, whole, rows.validation))
    except ContractError:       # rows of one label only, or a model that has diverged
        return None
