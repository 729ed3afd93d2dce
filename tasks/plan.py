"""What the next round asks, signed and published once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fedround import __version__, codec, layout
from fedround.agreement import Federation
from fedround.errors import ContractError
from fedround.learning.recipe import initial
from fedround.learning.spec import Scaffold
from fedround.learning.start import read as read_start
from fedround.privacy.campaign import counts_leave
from fedround.privacy.spec import RecordPrivacy
from fedround.sightings import needed
from fedround.signing import MAX_DOCUMENT_BYTES, canonical, digest, seal, unseal
from fedround.types import Checkpoint, Commit, LogHead, Purpose, RoundPlan
from fedround.values import Name, parse
from infra.stores import publish
from tasks.clipping import next_privacy
from tasks.coordinator import Coordinator
from tasks.evaluate import score_edges
from tasks.history import Committed, last_round, read_checkpoint, read_commit
from tasks.reputation import exclusions, past_rounds
from tasks.root import require_root_set

MAX_ATTEMPTS = 99


class RoundRequest(BaseModel):
    """Ask the federation for one more round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[Name, Field(
        title="Run", description="The training campaign to continue; a new name begins a new one from a new model.",
        examples=["spring"])]
    quorum: Annotated[int | None, Field(
        default=None, ge=1, le=1000, title="Quorum",
        description="Updates that must be admitted, or the round fails. Empty: as the federation file says.")] = None
    deadline_s: Annotated[int | None, Field(
        default=None, ge=1, le=604_800, title="Deadline (seconds)",
        description="How long sites have to answer. Empty: as the federation file says.")] = None


class TrainingRequest(RoundRequest):
    """Ask the federation for a training campaign."""

    rounds: Annotated[int, Field(
        default=10, ge=1, le=10_000, title="Rounds",
        description="Train until this many rounds of the run are committed; rounds that exist already count.")] = 10
    one_run_per_site: Annotated[bool, Field(
        default=False, title="One flow run per site",
        description="For campaigns of many short rounds: every site has one flow run for the whole campaign, with a task run "
                    "for each round, instead of a flow run for each round.")] = False


@dataclass(frozen=True)
class Planned:
    """A published plan, its digest, and the round that it continues."""

    plan: RoundPlan
    digest: str
    parent: Committed


def plan_round(coordinator: Coordinator, request: RoundRequest) -> Planned:
    """The plan of the next round of the run; begins the run if it is new.

    A round that was planned before and not committed keeps its plan, so a coordinator that was killed goes on where it
    stopped. If it would be asked differently now (the federation file or the request has changed) it is a new attempt.
    """
    return _publish(coordinator, _head(coordinator, request.run), request, Purpose.TRAIN)


def plan_evaluation(coordinator: Coordinator, request: RoundRequest) -> Planned:
    """The plan that asks every site to evaluate the run's last model.

    Raises ContractError if there is none, or if no counts leave sites under the federation's unit of privacy.
    """
    if not counts_leave(coordinator.federation.privacy):
        raise ContractError("under the unit 'site' no score counts leave the sites: evaluate on the coordinator's public "
                            "test set")
    number = last_round(coordinator.store, request.run)
    if number is None or number == 0:
        raise ContractError(f"run '{request.run}' has no committed round to evaluate; train one first")
    head = read_commit(coordinator.store, request.run, number, coordinator.identity.key)
    return _publish(coordinator, head, request, Purpose.EVALUATE)


def _publish(coordinator: Coordinator, head: Committed, request: RoundRequest, purpose: Purpose) -> Planned:
    log = coordinator.publish_federation()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        plan = _compose(coordinator, log, head, request, purpose, attempt)
        key = layout.plan(plan.run, plan.round, attempt, purpose)
        document = seal("plan", plan, coordinator.identity)
        if coordinator.store.put_once(key, document):
            return Planned(plan, digest(document), head)
        document = coordinator.store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
        standing = unseal("plan", document, RoundPlan, coordinator.identity.key, key)
        if canonical(standing) == canonical(plan.model_copy(update={"tool_version": standing.tool_version})):
            return Planned(standing, digest(document), head)       # an upgrade meanwhile is no reason to ask anew
    raise ContractError(f"round {head.commit.round + 1} of run '{request.run}' was planned {MAX_ATTEMPTS} times "
                        "and never committed; begin a new run")


def _compose(coordinator: Coordinator, log: LogHead, head: Committed, request: RoundRequest, purpose: Purpose,
             attempt: int) -> RoundPlan:
    federation = _asked_with(coordinator.federation, request)
    require_root_set(coordinator, federation.how_to_aggregate())
    checkpoint = read_checkpoint(coordinator.store, head.commit, coordinator.identity.key)
    if checkpoint.parts != federation.parts:
        raise ContractError(f"run '{request.run}' began with other 'parts' than the federation file has now: what travels "
                            "cannot change within a run; begin a new one")
    excluded = exclusions(federation, head.commit.round + 1, past_rounds(coordinator, head))
    return RoundPlan(
        federation=federation.name, federation_digest=coordinator.federation_digest, log=log,
        run=request.run, round=head.commit.round + (1 if purpose is Purpose.TRAIN else 0), attempt=attempt,
        purpose=purpose, parent=head.digest, base_model=head.commit.model, tensors=checkpoint.tensors,
        recipe=federation.recipe, recipe_digest=federation.recipe_digest,
        contract_digest=federation.contract_digest, excluded=excluded,
        cohort=tuple(site.name for site in federation.sites if site.name not in {out.site for out in excluded}),
        quorum=federation.quorum, deadline_s=federation.deadline_s, tool_version=__version__,
        training=federation.training, privacy=next_privacy(coordinator, head), evaluation=federation.evaluation,
        score_edges=score_edges(coordinator, head.commit),
        classes=coordinator.recipe.classes, aggregation=federation.how_to_aggregate(), optimizer=federation.optimizer,
        compression=federation.compression, parts=federation.parts, personal=federation.personal, rest=head.commit.rest,
        control=head.commit.control if isinstance(federation.training.algorithm, Scaffold) else None)


def _asked_with(federation: Federation, request: RoundRequest) -> Federation:
    """The federation file with what the request says instead: a form cannot talk a round out of the file's own rules."""
    said = request.model_dump(include={"quorum", "deadline_s"}, exclude_none=True)
    asked = parse(Federation, {**federation.model_dump(mode="json"), **said}, f"a round of federation '{federation.name}'")
    if asked.quorum < needed(federation):
        raise ContractError(f"a round of federation '{federation.name}': quorum {asked.quorum} is no majority of its "
                            f"{len(federation.sites)} members, and sites accept no history that a majority has not seen; ask "
                            f"for at least {needed(federation)}")
    return asked


def _head(coordinator: Coordinator, run: str) -> Committed:
    number = last_round(coordinator.store, run)
    if number is None:
        _begin(coordinator, run)
        number = 0
    return read_commit(coordinator.store, run, number, coordinator.identity.key)


def _begin(coordinator: Coordinator, run: str) -> None:
    """Commit round 0: the checkpoint that the federation file names, and where it says nothing or there is none the recipe's
    initial model, the same for everybody who builds it from the run's name.

    What travels is the model; what does not is a file of its own.
    """
    federation = coordinator.federation
    seed = int(digest(f"{federation.name}/{run}".encode())[:8], 16)
    start = _start(coordinator)
    tensors, rest = initial(coordinator.recipe, seed, federation.parts,
                            per_record=isinstance(federation.privacy, RecordPrivacy),
                            start=None if start is None else read_start(start))
    body, beside = codec.encode(tensors), codec.encode(rest.whole) if rest.whole else None
    log = coordinator.publish_federation()
    checkpoint = seal("checkpoint", Checkpoint(
        federation=federation.name, run=run, round=0, log=log, model=codec.payload_of(body),
        tensors=codec.schema_of(tensors), parts=federation.parts, rest=None if beside is None else digest(beside),
        recipe=federation.recipe, recipe_digest=federation.recipe_digest,
        privacy=federation.privacy, tool_version=__version__), coordinator.identity)
    commit = Commit(
        federation=federation.name, federation_digest=coordinator.federation_digest, log=log, run=run, round=0,
        parent=None, plan=None, base_model=None, model=digest(body), optimizer_state=None, checkpoint=digest(checkpoint),
        aggregation=None, optimizer=None, rest=None if beside is None else digest(beside), tool_version=__version__)
    for blob in (start, body, beside):
        if blob is not None:
            publish(coordinator.store, layout.model(digest(blob)), blob)
    publish(coordinator.store, layout.checkpoint(run, 0, commit.checkpoint), checkpoint)
    coordinator.store.put_once(layout.commit(run, 0), seal("commit", commit, coordinator.identity))


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
