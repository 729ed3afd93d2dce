"""The beginning of a run: round 0, whose model nobody has trained in this run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedround import __version__, codec, layout
from fedround.choices import Choice
from fedround.codec import Schema
from fedround.errors import ContractError
from fedround.learning.clusters import seeds, together
from fedround.learning.learn import check_learner
from fedround.learning.parts import Rest
from fedround.learning.recipe import initial
from fedround.learning.start import read as read_start
from fedround.privacy.spec import GradientPrivacy
from fedround.records import Begun, Blob, Checkpoint, Commit
from fedround.signing import digest, seal
from fedround.statistics.partitions import Partition
from fedround.values import Digest, Payload
from infra.history import Committed, read_checkpoint, read_commit
from infra.stores import publish, put_first
from tasks.coordinator import Coordinator
from tasks.trees import require_same_trees

Committing = Callable[[Coordinator, Commit], None]
"""Makes a commit count, or finds that one of the round does, and returns then."""


def head_of(coordinator: Coordinator, run: str, partition: Partition | None = None, after: str | None = None,
            choice: Choice | None = None, how: Committing | None = None) -> Committed:
    """The run's last committed round; begins the run if it is new.

    partition: on which rows a new run trains; None: all. after: the run with whose last model a new one begins. choice: what
    was chosen for a new run. how: round 0 is committed; None: by this coordinator alone.
    """
    if (head := coordinator.head(run)) is not None:
        return head
    _begin(coordinator, run, partition, after, choice, how or put_alone)
    return read_commit(coordinator.store, run, 0, coordinator.key)


@dataclass(frozen=True)
class Beginning:
    """Where a run begins. What travels is the model; what does not travel is a file of its own."""

    model: Payload
    rest: Digest | None
    after: Begun | None = None
    new: tuple[bytes, ...] = ()
    """The files that the store may lack."""


def _begin(coordinator: Coordinator, run: str, partition: Partition | None, after: str | None, choice: Choice | None,
           how: Committing) -> None:
    """Commit round 0: the last model of another run; or the checkpoint that the federation file names, completed by the
    recipe's initial model, which is the same for everybody who builds it from the run's name.
    """
    federation = coordinator.federation.chosen(choice)
    begins, schema = beginning(coordinator, run, after, choice)
    holds = coordinator.publish_federation()
    checkpoint = seal(Checkpoint(
        federation=federation.name, run=run, round=0, log=holds.head, model=begins.model, tensors=schema,
        clusters=federation.evaluation.clusters, parts=federation.parts, rest=begins.rest, partition=partition,
        choice=choice, after=begins.after, recipe=federation.recipe, recipe_digest=federation.recipe_digest,
        privacy=federation.privacy,
        tool_version=__version__), coordinator.identity)
    commit = Commit(
        federation=federation.name, federation_digest=holds.entry.federation_digest, log=holds.head, run=run, round=0,
        parent=None, plan=None, agreed=None, base_model=None, model=begins.model.sha256, checkpoint=digest(checkpoint),
        state=() if begins.rest is None else (Blob(name="rest", digest=begins.rest),), tool_version=__version__)
    for blob in begins.new:
        publish(coordinator.store, layout.model(digest(blob)), blob)
    publish(coordinator.store, layout.checkpoint(run, 0, commit.checkpoint), checkpoint)
    how(coordinator, commit)


def put_alone(coordinator: Coordinator, commit: Commit) -> None:
    """Commit, unless the round is committed already. Raises ContractError where several coordinators must sign."""
    if coordinator.federation.coordinators:
        raise ContractError(f"round {commit.round} of run '{commit.run}': several coordinators must sign its commit; begin "
                            "runs, and go on with them, by 'fedround train run' and 'fedround round run'")
    put_first(coordinator.store, layout.commit(commit.run, commit.round), seal(commit, coordinator.identity))


def beginning(coordinator: Coordinator, run: str, after: str | None, choice: Choice | None) -> tuple[Beginning, Schema]:
    """Where a new run begins, and the tensors of its model: the same for everybody who has the agreed files."""
    federation = coordinator.federation.chosen(choice)
    seed = int(digest(f"{federation.name}/{run}".encode())[:8], 16)
    check_learner(coordinator.recipe, federation.training)
    start = None if after is not None else _start(coordinator)
    clusters = federation.evaluation.clusters
    found = [initial(coordinator.recipe, one, federation.parts, per_record=isinstance(federation.privacy, GradientPrivacy),
                     start=None if start is None else read_start(start)) for one in seeds(seed, clusters)]
    tensors, rest = together([model for model, _ in found]), found[0][1]
    schema = codec.schema_of(tensors)
    begins = (_anew(codec.encode(tensors), rest, start) if after is None
              else _after(coordinator, run, after, schema, has_rest=bool(rest.whole)))
    return begins, schema


def _anew(body: bytes, rest: Rest, start: bytes | None) -> Beginning:
    beside = codec.encode(rest.whole) if rest.whole else None
    return Beginning(codec.payload_of(body), None if beside is None else digest(beside),
                      new=tuple(blob for blob in (start, body, beside) if blob is not None))


def _after(coordinator: Coordinator, run: str, after: str, schema: Schema, *, has_rest: bool) -> Beginning:
    """The last model of another run. Raises ContractError if there is none, or if it is a model of another kind."""
    head = coordinator.head(after)
    if head is None or head.commit.round == 0:
        raise ContractError(f"run '{after}' has no committed round, so run '{run}' cannot begin with its model: check the "
                            "name, or begin without it")
    found = read_checkpoint(coordinator.store, head.commit, coordinator.key)
    asked = coordinator.federation
    if (found.tensors, found.clusters, found.parts, found.rest is not None) != (
            schema, asked.evaluation.clusters, asked.parts, has_rest):
        raise ContractError(f"the model of run '{after}' has other tensors or parts than the recipe and the federation file "
                            f"have now, so run '{run}' cannot begin with it: begin without it")
    require_same_trees(coordinator.recipe, found, after)
    return Beginning(found.model, found.rest, Begun(run=after, round=head.commit.round, commit=head.digest))


def _start(coordinator: Coordinator) -> bytes | None:
    """The checkpoint that the federation file names."""
    named, path = coordinator.federation.start, coordinator.settings.start
    if named is None:
        return None
    if path is None or not (coordinator.folder / path).is_file():
        raise ContractError(f"the federation file begins every run with checkpoint {named[:16]}…, and coordinator.toml names "
                            "no such file: put it back, and 'start = \"approved/start.safetensors\"'")
    body = (coordinator.folder / path).read_bytes()
    if digest(body) != named:
        raise ContractError(f"{path}: its digest is {digest(body)[:16]}…, the federation file names {named[:16]}…")
    return body
