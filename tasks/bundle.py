"""From a committed round to a bundle: proven, exported, checked, measured, described, signed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from fedround import __version__, bundle, codec
from fedround.bundle import Approval, Bundle, Column, Manifest
from fedround.codec import Tensors
from fedround.errors import ContractError, NotFoundError
from fedround.learning import exported
from fedround.learning.examples import Array, Arrays, Examples, rows_in, shapes
from fedround.learning.exported import Float32, Served
from fedround.learning.recipe import Recipe
from fedround.learning.tasks import Metrics, Scored, check_numbers
from fedround.learning.triggers import strongest
from fedround.privacy.spec import NoPrivacy
from fedround.promotion import ModelEvidence, Performance
from fedround.records import Checkpoint, Commit
from fedround.values import Value, parse
from infra.documents import read_tensors
from infra.history import read_checkpoint, read_commit, read_rest
from infra.settings import load_toml
from tasks.certificate import Certificate, certified
from tasks.compare_groups import compared
from tasks.coordinator import Coordinator
from tasks.drift import evidence as drift_evidence
from tasks.report import records
from tasks.reporting.card import Facts, render_card
from validation.rows import read_rows

if TYPE_CHECKING:
    import pandas as pd

CHECKED_ROWS, TOLERANCE = 10_000, 1e-5
_CALLS, _SAMPLE = 300, 50
V = TypeVar("V", bound=Value)


@dataclass(frozen=True, eq=False)
class _Model:
    """A committed model, read from the store and held against its commit."""

    commit: Commit
    digest: str
    checkpoint: Checkpoint
    tensors: Tensors
    """With the frozen part."""


def build(coordinator: Coordinator, run: str, number: int, rows: Path | None = None, *,
          trigger_features: int | None = None) -> bytes:
    """The bundle of a committed round. Nobody has approved it yet.

    rows: a file of public rows, to check the export on, and to find the columns that the recipe needs; None: the public test
    set. trigger_features: of how many features a backdoor's mark is looked for on them; None: it is not.
    Raises TrustError or ChainError if the round's history does not hold; ContractError if there is no such round, its model
    is not whole, the recipe is another one, or ONNX computes something else than the model;
    DivergedError if the model says no numbers.
    """
    model = _read(coordinator, run, number)
    certificate = certified(coordinator.store, run, coordinator.key, number)
    recipe, frame = coordinator.recipe, read_rows(_rows(coordinator) if rows is None else rows)
    inputs = recipe.features(frame)
    onnx = exported.to_onnx(recipe, model.tensors, shapes(inputs))
    files = {bundle.MODEL: codec.encode(model.tensors), bundle.RECIPE: _recipe_bytes(coordinator), bundle.ONNX: onnx,
             bundle.INT8: exported.to_int8(onnx)}
    tested = recipe.encode(frame) if rows is None else None
    evidence = _measured(coordinator, model, files, inputs, tested, certificate)
    if trigger_features is not None:
        mark = strongest(recipe.task, Served(onnx).answers, inputs, most_features=trigger_features)
        evidence = evidence.model_copy(update={"trigger": mark})
    return _sealed(coordinator, Manifest(
        federation=model.commit.federation, run=run, round=number, commit=model.digest, model=model.commit.model,
        recipe=recipe.name, recipe_digest=recipe.digest, task=recipe.task,
        inputs=tuple(bundle.Input(**shape._asdict()) for shape in shapes(inputs)), columns=needed(recipe.features, frame),
        parts=bundle.described(files), tool_version=__version__), files, evidence, certificate)


def approved(coordinator: Coordinator, found: Bundle, approval: Approval) -> bytes:
    """The same bundle, with the name of who said yes to it."""
    files = {name: found.files[name] for name in (bundle.MODEL, bundle.RECIPE, bundle.ONNX, bundle.INT8)}
    manifest = found.manifest.model_copy(update={"approval": approval})
    return _sealed(coordinator, manifest, files, evidence_of(found), certificate_of(found))


def evidence_of(found: Bundle) -> ModelEvidence:
    """What was measured of a bundle's model. Raises ContractError if another version wrote it down in other words."""
    return _part(found, bundle.MEASURED, ModelEvidence)


def certificate_of(found: Bundle) -> Certificate:
    """What was proven of its lineage. Raises as `evidence_of`."""
    return _part(found, bundle.CERTIFICATE, Certificate)


def _part(found: Bundle, name: str, kind: type[V]) -> V:
    body = found.files.get(name)
    what = f"'{name}' of the bundle of round {found.manifest.round} of run '{found.manifest.run}'"
    if body is None:
        raise ContractError(f"{what}: there is none, so nothing can be decided about it; make the bundle again")
    try:
        return parse(kind, body, what)
    except ContractError as error:
        raise ContractError(f"{error}. fedround {found.manifest.tool_version} made it, and this is {__version__}: make the "
                            "bundle again") from None


def needed(features: Callable[[pd.DataFrame], object], frame: pd.DataFrame) -> tuple[Column, ...]:
    """The columns without which the recipe cannot make features of these rows. A label is not among them."""
    from pandas.api.types import is_numeric_dtype

    sample = frame.head(_SAMPLE)
    wanted = [name for name in frame.columns if not _works(features, sample.drop(columns=name))]
    return tuple(Column(name=name, kind="number" if is_numeric_dtype(frame[name].dtype) else "other") for name in wanted)


def _works(features: Callable[[pd.DataFrame], object], rows: pd.DataFrame) -> bool:
    try:
        features(rows)
    except Exception:       # of the recipe's code
        return False
    return True


def _sealed(coordinator: Coordinator, manifest: Manifest, files: Mapping[str, bytes], evidence: ModelEvidence,
            certificate: Certificate) -> bytes:
    facts = read_facts(coordinator.folder)
    whole = {**files, bundle.MEASURED: _readable(evidence), bundle.CERTIFICATE: _readable(certificate),
             bundle.CARD: render_card(manifest, evidence, certificate, facts).encode()}
    return bundle.sealed(manifest.model_copy(update={"parts": bundle.described(whole)}), whole, coordinator.identity)


def read_facts(folder: Path) -> Facts:
    """What people say of the model: card.toml in the coordinator's folder; what it leaves out is "not stated"."""
    path = folder / "card.toml"
    return load_toml(Facts, path) if path.exists() else Facts()


def _readable(value: ModelEvidence | Certificate) -> bytes:
    return (value.model_dump_json(indent=1) + "\n").encode()


def _rows(coordinator: Coordinator) -> Path:
    if coordinator.settings.test_set is None:
        raise ContractError("this federation has no public test set: name a file of rows that may be seen with --rows; it "
                            "tells which columns the model needs")
    return coordinator.folder / coordinator.settings.test_set


def _recipe_bytes(coordinator: Coordinator) -> bytes:
    return (coordinator.folder / coordinator.settings.recipe).read_bytes()


def _read(coordinator: Coordinator, run: str, number: int) -> _Model:
    store, key, source = coordinator.store, coordinator.key, f"round {number} of run '{run}'"
    try:
        head = read_commit(store, run, number, key)
    except NotFoundError:
        raise ContractError(f"{source} is not committed: 'fedround models list' shows what is") from None
    checkpoint = read_checkpoint(store, head.commit, key)
    if checkpoint.recipe_digest != coordinator.recipe.digest:
        raise ContractError(f"{source} was trained with recipe {checkpoint.recipe_digest[:16]}, and the coordinator's is "
                            f"{coordinator.recipe.digest[:16]}: put back the recipe of that run")
    if checkpoint.parts.private:
        raise ContractError(f"{source}: a part of its model is private, so the whole model is only at the sites: there "
                            "'fedround site model' writes it")
    if checkpoint.clusters > 1:
        raise ContractError(f"{source}: it is {checkpoint.clusters} models that sites choose among, and a bundle is of one: "
                            "at a site 'fedround site model' writes the one that is best there")
    tensors = read_tensors(store, head.commit.model, checkpoint.tensors, f"model of {source}", by="commit")
    frozen = read_rest(store, coordinator.recipe, checkpoint.parts, checkpoint.rest, run).frozen
    return _Model(head.commit, head.digest, checkpoint, {**tensors, **frozen})


def _measured(coordinator: Coordinator, model: _Model, files: Mapping[str, bytes], inputs: Arrays,
              tested: Examples | None, certificate: Certificate) -> ModelEvidence:
    recipe, served = coordinator.recipe, Served(files[bundle.ONNX])
    checked = rows_to_check(inputs)
    own = exported.answers(recipe, model.tensors, checked)
    check_numbers(Scored({"score": own}))
    difference = float((np.abs(served.answers(checked) - own) / np.maximum(1, np.abs(own))).max())      # dollars are large
    if not difference <= TOLERANCE:
        raise ContractError(f"recipe '{recipe.name}': its ONNX form differs from the model by {difference:.3g} on "
                            f"{rows_in(checked)} rows, more than {TOLERANCE:g}: no bundle was made")
    small = Served(files[bundle.INT8])
    record = next((one for one in records(coordinator, model.commit.run) if one.round == model.commit.round), None)
    privacy = model.checkpoint.privacy
    return ModelEvidence(
        privacy=privacy, epsilon=None if isinstance(privacy, NoPrivacy) else certificate.epsilon,
        worth="" if record is None else record.worth,
        float32=_performance(files[bundle.ONNX], served, recipe, inputs, tested),
        int8=_performance(files[bundle.INT8], small, recipe, inputs, tested),
        difference=difference, checked_rows=rows_in(checked), at_sites=None if record is None else record.at_sites,
        fairness=compared(coordinator, model.commit), drift=None if record is None else drift_evidence(record.drift))


def rows_to_check(inputs: Arrays) -> Arrays:
    """At least `CHECKED_ROWS` rows: the given ones, and others. Numbers of these are drawn between the smallest and the
    largest of their place; everything else is that of given ones again.
    """
    rows, generator = rows_in(inputs), np.random.default_rng(0)
    if (missing := CHECKED_ROWS - rows) <= 0:
        return inputs
    again_M = generator.integers(0, rows, missing)
    return {name: np.concatenate([array, _more(array, again_M, generator)]) for name, array in inputs.items()}


def _more(array: Array, again_M: npt.NDArray[np.int64], generator: np.random.Generator) -> Array:
    if array.dtype != np.float32:
        return array[again_M]
    low, high = array.min(axis=0), array.max(axis=0)
    return (low + generator.random((len(again_M), *low.shape), np.float32) * (high - low)).astype(np.float32)


def _performance(onnx: bytes, served: Served, recipe: Recipe, inputs: Arrays, tested: Examples | None) -> Performance:
    took = []
    for call in range(_CALLS):
        place = call % rows_in(inputs)
        row = {name: array[place:place + 1] for name, array in inputs.items()}
        began = time.perf_counter()
        served.answers(row)
        took.append(time.perf_counter() - began)
    public = None if tested is None else judged(recipe, served.answers(tested.inputs), tested)
    return Performance(size_bytes=len(onnx), p95_ms=float(f"{1000 * np.quantile(took, 0.95):.3g}"), public=public)


def judged(recipe: Recipe, answers: Float32, tested: Examples) -> Metrics:
    """How good these answers are, by the measures of `fedround.learning.evaluate`, whichever program computed them."""
    return recipe.task.metrics(recipe.task.scored_answers(answers, tested.targets))
