"""What the next round asks, signed and published once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fedround import __version__, codec, layout
from fedround.choices import Choice
from fedround.errors import ChainError, ContractError
from fedround.federation import Federation
from fedround.records import Commit, Evaluate, Exclusion, LogHead, Measure, Plan, Question, Ticket, Train
from fedround.regions.spec import lapsed
from fedround.rounds import summed
from fedround.rounds.campaign import counts_leave
from fedround.rounds.clipping import privacy_after
from fedround.rounds.earlier import training_after
from fedround.rounds.offer import offer
from fedround.rounds.tickets import tickets_after
from fedround.sightings import needed
from fedround.signing import seal
from fedround.statistics import Importance, Judging, Scores, Statistic
from fedround.statistics.partitions import Partition, of_one_kind
from fedround.terms import Agreed
from fedround.values import MAX_ATTEMPTS, Name, parse
from infra.history import Committed, read_checkpoint, read_commit, read_plan, read_plan_at
from infra.stores import ObjectStore, put_first
from tasks.begin import Committing, head_of
from tasks.choice import choice_asked
from tasks.cohort import Cohort, Place, cohort_of, now_for
from tasks.coordinator import Coordinator
from tasks.epochs import is_given_up, slot_for
from tasks.evaluate import score_statistic
from tasks.partition import partition_asked, partition_of
from tasks.past import said_before
from tasks.requests import NextRoundRequest, RoundRequest
from tasks.root import require_root_set
from tasks.trees import require_trees_left


@dataclass(frozen=True)
class Planned:
    """A published plan, its digest, and the round that it continues."""

    plan: Plan
    digest: str
    parent: Committed
    earlier: Mapping[str, Planned] = field(default_factory=dict)
    """What the members with a ticket of an earlier round were asked, by site."""

    def of(self, site: str) -> Planned:
        """What this member answers."""
        return self.earlier.get(site, self)

    @property
    def in_words(self) -> str:
        """For messages: "round 3 of run 'spring'"."""
        return in_words(self.plan)


def in_words(plan: Plan) -> str:
    """What a plan is about, for messages: "round 3 of run 'spring'"."""
    return f"{plan.asks.about}round {plan.round} of run '{plan.run}'"


def plan_round(coordinator: Coordinator, request: NextRoundRequest, how: Committing | None = None) -> Planned:
    """The plan of the next round of the run; begins the run if it is new.

    A round that was planned before and not committed keeps its plan, so a coordinator that was killed continues where it
    stopped. If the round would be asked differently now (the federation file or the request has changed), it is a new
    attempt. Raises ContractError also if the run trains on another partition than the request names.
    how: as in `tasks.begin.head_of`.
    """
    head = head_of(coordinator, request.run, partition_asked(coordinator, request), request.after,
                   choice_asked(coordinator, request), how)
    require_trees_left(coordinator, head.commit)
    plan = compose(coordinator, head, request, _training(coordinator, head.commit))
    require_root_set(coordinator, plan.agreed.aggregation)
    return publish_plan(coordinator, head, plan)


def asked_to_train(agreed: Agreed, parent: Commit, scores: Judging, partition: Partition | None = None) -> Train:
    """What a round that continues `parent` asks for, under these terms.

    It follows from what is signed, except for the edges between which scores are counted.
    scores: what the task asks about a model; about each, where sites choose among several. partition: of the run.
    """
    blobs = {blob.name: blob for blob in parent.state}
    return Train(statistics=(scores,) * agreed.clusters if counts_leave(agreed.privacy) else (),
                 state=tuple(blobs[name] for name in agreed.training.algorithm.serves if name in blobs), partition=partition)


def _training(coordinator: Coordinator, parent: Commit) -> Train:
    return asked_to_train(coordinator.federation.agreed(), parent, score_statistic(coordinator, parent),
                          partition_of(coordinator, parent))


# -- for every kind of question ----------------------------------------------------------------------------------------


def compose(coordinator: Coordinator, head: Committed, request: RoundRequest, asks: Question) -> Plan:
    """The first attempt to ask this of the run's last model, under what the federation file and the request say."""
    checkpoint = read_checkpoint(coordinator.store, head.commit, coordinator.key)
    federation = asked_with(coordinator.federation, request, checkpoint.choice)
    if checkpoint.parts != federation.parts:
        raise ContractError(f"run '{request.run}' began with other 'parts' than the federation file has now: what travels "
                            "cannot change within a run; begin a new one")
    if isinstance(asks, Measure) and checkpoint.clusters > 1 and any(one.reads_model for one in asks.statistics):
        raise ContractError(f"run '{request.run}' has {checkpoint.clusters} models that sites choose among, and the question "
                            "is about one: evaluate the run, or ask about columns")
    if checkpoint.clusters != federation.evaluation.clusters:
        raise ContractError(f"run '{request.run}' began with other 'clusters' than the federation file has now: how many "
                            "models a run has cannot change; begin a new one")
    if not isinstance(asks, Measure) and not of_one_kind(checkpoint.partition, federation.partitions):
        raise ContractError(f"run '{request.run}' began with other 'partitions' than the federation file has now: on which "
                            "rows a run trains cannot change; begin a new one")
    if not asks.makes_model and not coordinator.is_founder:
        raise ContractError(f"federation '{federation.name}': several coordinators share its rounds; what makes no model is "
                            "asked, and signed for, by its founder")
    if asks.makes_model and (why_not := lapsed(federation.regions, head.commit.round + 1)) is not None:
        raise ContractError(why_not)
    whom = whom_to_ask(coordinator, federation, head, asks, request.sites)
    holds = coordinator.publish_federation()
    tickets = _tickets(coordinator, federation, head, holds.head, whom.excluded) if asks.makes_model else ()
    working = {ticket.site for ticket in tickets}
    agreed = federation.agreed().model_copy(update={
        "privacy": privacy_after(federation.privacy, head.commit), "choice": checkpoint.choice,
        "training": training_after(federation.training, head.commit.round + 1, said_before(coordinator, head))})
    if federation.combine is not None and isinstance(asks, Train | Evaluate | Measure):
        summed.layout(asks, agreed, codec.coordinates(agreed.sent(checkpoint.tensors)),        # there is room for the sum
                      offer(asks, agreed, 1, lambda _: True).mechanisms)
        asks = asks.model_copy(update={"slot": slot_for(coordinator, request.run)})
    return Plan(
        federation=federation.name, federation_digest=holds.entry.federation_digest, log=holds.head,
        run=request.run, round=head.commit.round + asks.makes_model, parent=head.digest, base_model=head.commit.model,
        tensors=checkpoint.tensors, rest=head.commit.blob("rest"),
        cohort=tuple(site for site in whom.asked if site not in working), excluded=whom.excluded,
        unasked=whom.unasked, at=whom.at, quorum=federation.quorum, deadline_s=federation.deadline_s,
        enough=federation.enough if asks.makes_model else None, task=coordinator.recipe.task, asks=asks, agreed=agreed,
        tickets=tickets, tool_version=__version__)


def _tickets(coordinator: Coordinator, federation: Federation, head: Committed, log: LogHead,
             excluded: Collection[Exclusion]) -> tuple[Ticket, ...]:
    """Who still works on an earlier round's plan."""
    if federation.pace is None or head.commit.plan is None:
        return ()
    return tickets_after(federation.pace, read_plan(coordinator.store, head.commit, coordinator.key),
                         head.commit.plan, head.commit, log, {exclusion.site for exclusion in excluded})


def whom_to_ask(coordinator: Coordinator, federation: Federation, head: Committed, asks: Question,
                chosen: Collection[Name] | None) -> Cohort:
    """Whom the first attempt to ask this about the model of `head` asks now.

    federation: with the quorum of the request. chosen: the sites that the request names; None: all.
    Raises ContractError if these may not be chosen.
    """
    place = Place(head.commit.run, head.commit.round + asks.makes_model, 1, asks.makes_model)
    return cohort_of(federation, place, said_before(coordinator, head), now_for(federation, coordinator.clock()), chosen)


def publish_plan(coordinator: Coordinator, head: Committed, plan: Plan) -> Planned:
    """Sign the plan and publish it as the first attempt whose place is free; or find that it stands already.

    A plan whose answers are masked stands if its keys do, and if the sum of the answers was not given up. Where a selection
    says who is asked, each attempt has a draw of its own. A plan that says when it was made stands as long as all whom it
    asks can be asked.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        asked = _as_of(coordinator, head, plan.model_copy(update={"attempt": attempt}), plan.at)
        put_first(coordinator.store, layout.plan(asked.run, asked.round, attempt, asked.asks.kind),
                  seal(asked, coordinator.identity))
        standing, named = read_plan_at(coordinator.store, asked.run, asked.round, attempt, asked.asks.kind,
                                       coordinator.key)
        if standing.at != asked.at and not coordinator.federation.away(asked.planned_at) & set(standing.cohort):
            asked = _as_of(coordinator, head, asked, standing.at)
        if same_question(standing, asked) and _still_stands(coordinator, standing, named, asked):
            return planned_of(coordinator.store, coordinator.key, standing, named, head)
    raise ContractError(f"{in_words(plan)} was planned {MAX_ATTEMPTS} times; begin a new run")


def planned_of(store: ObjectStore, key: str, plan: Plan, named: str, parent: Committed) -> Planned:
    """The plan, with the earlier ones that it names.

    key: the coordinator's. Raises ChainError if a ticket is of another plan than its round was committed with.
    """
    return Planned(plan, named, parent, {
        ticket.site: _earlier(store, key, plan, ticket) for ticket in plan.tickets})


def _earlier(store: ObjectStore, key: str, plan: Plan, ticket: Ticket) -> Planned:
    commit = read_commit(store, plan.run, ticket.round, key).commit
    if commit.plan != ticket.plan:
        raise ChainError(f"{in_words(plan)}: the ticket of '{ticket.site}' is of another plan than round {ticket.round} was "
                         "committed with")
    return Planned(read_plan(store, commit, key), ticket.plan, read_commit(store, plan.run, ticket.round - 1, key))


def _still_stands(coordinator: Coordinator, standing: Plan, named: str, asked: Plan) -> bool:
    slot, wanted = standing.asks.slot, asked.asks.slot
    return slot == wanted or (slot is not None and wanted is not None and slot.dealt == wanted.dealt
                              and not is_given_up(coordinator, standing, named))


def _as_of(coordinator: Coordinator, head: Committed, plan: Plan, at: int | None) -> Plan:
    """The plan as it would be if it had been made at another time: who is drawn, if a selection draws, and who is away."""
    federation = coordinator.federation.model_copy(update={"quorum": plan.quorum})
    if federation.selection is not None and plan.asks.makes_model:
        place = Place(plan.run, plan.round, plan.attempt, trains=True)
        return cohort_of(federation, place, said_before(coordinator, head), at).of(plan)
    if at == plan.at or at is None:
        return plan
    away = federation.away(datetime.fromtimestamp(at, UTC))
    return plan.model_copy(update={
        "cohort": tuple(name for name in plan.cohort if name not in away), "at": at,
        "unasked": tuple(site.name for site in federation.sites
                         if site.name in plan.unasked or site.name in away & set(plan.cohort))})


def same_question(one: Plan, other: Plan) -> bool:
    """Whether both plans ask the sites for the same.

    Two plans may differ in the version of fedround that composed them (an upgrade is no reason to ask anew), and in the edges
    between which scores are counted. The edges are computed from a model, and another processor may give another last bit. No
    privacy should be spent twice for that.
    """
    return _bare(one) == _bare(other)


def _bare(plan: Plan) -> Plan:
    """The plan without what may differ."""
    return plan.model_copy(update={"tool_version": __version__, "asks": bare(plan.asks)})


def bare(asks: Question) -> Question:
    """The question without the edges that were computed, without who asks, and without the keys that mask the answers. Edges
    of a measurement are a part of what was asked, if whoever asked chose them.
    """
    if not isinstance(asks, Train | Evaluate | Measure):
        return asks
    asks = asks.model_copy(update={"slot": None})
    if isinstance(asks, Measure):
        return asks.model_copy(update={"asker": None, "statistics": tuple(
            one.model_copy(update={"judged": _without_edges(one.judged)}) if isinstance(one, Importance) else one
            for one in asks.statistics)})
    return asks.model_copy(update={"statistics": tuple(map(_without_edges, asks.statistics))})


def _without_edges(statistic: Statistic) -> Statistic:
    return statistic.model_copy(update={"edges": ()}) if isinstance(statistic, Scores) else statistic


def asked_with(federation: Federation, request: RoundRequest, choice: Choice | None = None) -> Federation:
    """The federation file with the choice of the request's run, and with the quorum and deadline of the request. A request
    cannot break the file's own rules.
    """
    try:
        federation = federation.chosen(choice)
    except ContractError as error:
        raise ContractError(f"run '{request.run}' began with what the federation file does not offer any more: {error}; "
                            "begin a new run, or agree on it again") from None
    said = request.model_dump(include={"quorum", "deadline_s"}, exclude_none=True)
    asked = parse(Federation, {**federation.model_dump(mode="json"), **said}, f"a round of federation '{federation.name}'")
    if asked.pace is None and asked.quorum < needed(federation):
        raise ContractError(f"a round of federation '{federation.name}': quorum {asked.quorum} is no majority of its "
                            f"{len(federation.sites)} members, and sites accept no history that a majority has not seen; ask "
                            f"for at least {needed(federation)}")
    return asked
