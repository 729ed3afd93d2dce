"""Does a plan ask what was agreed, and does a commit give every site what it must?

Both are compared with the federation file and the round before. For proofs: nothing is believed, and everything that does not
fit is a ChainError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from fedround.aggregation.verdict import Verdict
from fedround.choices import Choice
from fedround.errors import ChainError, ContractError
from fedround.federation import Federation
from fedround.federation_log import Logged
from fedround.learning.tasks import Task
from fedround.records import Answer, Commit, Evaluate, Finding, Join, Plan, Question, Ticket
from fedround.rounds.asking import first_that_counts
from fedround.rounds.clipping import privacy_after
from fedround.rounds.earlier import training_after
from fedround.rounds.reputation import exclusions
from fedround.rounds.tickets import ticket_of, tickets_after
from fedround.spoken import how_many
from fedround.statistics.partitions import Partition
from fedround.terms import Agreed
from infra.history import Committed
from tasks.cohort import Place, cohort_of
from tasks.decay import score_of
from tasks.ledgers import keys_of
from tasks.past import Past
from tasks.plan import Planned, asked_to_train, bare
from tasks.weights import loss_of


@dataclass(frozen=True)
class Proven:
    """A round that holds, for the proof of what continues it."""

    committed: Committed
    task: Task | None = None
    """What its plan says is learnt; None for round 0, which has no plan."""
    partition: Partition | None = None
    """On whose rows its run trains, by its checkpoint; None: all."""
    choice: Choice | None = None
    """What was chosen for its run, by its checkpoint; None: nothing."""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """Only those that this credential may read."""


# -- what a plan asks --------------------------------------------------------------------------------------------------


def check_agreed(plan: Plan, members: Federation, before: Proven, past: Sequence[Past], source: str) -> None:
    """The plan asks what the federation file says, with the quorum and the deadline that were asked for, about the model that
    the round before made.

    past: as for `check_cohort`.
    """
    commit = before.committed.commit
    if (plan.federation, plan.run, plan.continues) != (members.name, commit.run, commit.round):
        raise ChainError(f"plan of {source}: is of another federation, run or round")
    if (plan.parent, plan.base_model) != (before.committed.digest, commit.model):
        raise ChainError(f"plan of {source}: does not continue the round before it")
    if plan.rest != commit.blob("rest"):
        raise ChainError(f"plan of {source}: has other parts that do not travel than the round before")
    _check_terms(plan, members, before, past, source)
    _check_question(plan, before, source)


def _check_terms(plan: Plan, members: Federation, before: Proven, past: Sequence[Past], source: str) -> None:
    if plan.agreed.choice != before.choice:
        raise ChainError(f"plan of {source}: says that something else was chosen for the run than its checkpoint does")
    quorum = None if isinstance(plan.asks, Join) else plan.quorum       # a step asks one member, or two
    try:
        agreed = members.agreed(quorum, before.choice)
    except ContractError as error:
        raise ChainError(f"plan of {source}: {error}") from None
    number = plan.continues + 1
    seen = [one.said for one in past if one.plan.round >= first_that_counts(members, number)]
    expected = agreed.model_copy(update={"privacy": privacy_after(agreed.privacy, before.committed.commit),
                                         "training": training_after(agreed.training, number, seen)})
    if plan.enough != (members.enough if plan.asks.makes_model else None):
        raise ChainError(f"plan of {source}: closes with {plan.enough or 'all'} updates, and the federation file says "
                         f"{members.enough or 'all'}")
    if plan.agreed != expected:
        raise ChainError(f"plan of {source}: asks for something else than the federation file, and the commit of the round "
                         f"before, say: {', '.join(_differing(plan.agreed, expected))}")


def _differing(one: Agreed, other: Agreed) -> list[str]:
    return [name for name in type(one).model_fields if getattr(one, name) != getattr(other, name)]


def _check_question(plan: Plan, before: Proven, source: str) -> None:
    """Check that what is asked follows from the terms, the task and the round before.

    One thing is left out: the edges between which scores are counted. The coordinator computes them from rows that nobody
    else has. A measurement may ask anything.
    """
    last = before.committed.commit.agreed
    if last is not None and last.recipe_digest == plan.agreed.recipe_digest and before.task != plan.task:
        raise ChainError(f"plan of {source}: says that something else is learnt than the round before did")
    scores = plan.task.statistic(plan.agreed.evaluation)
    expected: dict[str, Question] = {"train": asked_to_train(plan.agreed, before.committed.commit, scores, before.partition),
                                     "evaluate": Evaluate(statistics=(scores,) * plan.agreed.clusters,
                                                          partition=before.partition)}
    if bare(plan.asks) != bare(expected.get(plan.asks.kind, plan.asks)):
        raise ChainError(f"plan of {source}: asks for other statistics, or about other rows, or names another state of the "
                         "server, than the terms and the round before give")


def check_cohort(plan: Plan, federation: Federation, past: Sequence[Past], source: str) -> tuple[str, ...]:
    """Check that every member was asked, except those that the agreed policy excludes, those that were not there by their
    entries, and those that were not selected, or not chosen if all have agreed that sites may be chosen; returns who was not
    asked.

    past: the run's rounds up to the one that the plan continues, as many as can count. A selection is drawn again.
    """
    asked_with = federation.model_copy(update={"quorum": plan.quorum})
    number, trains = plan.continues + 1, plan.asks.makes_model
    since = first_that_counts(federation, number)
    seen = [one.said for one in past if one.plan.round >= since]
    due = exclusions(asked_with, [site.name for site in federation.sites], number, seen)
    if plan.excluded != due:
        raise ChainError(f"plan of {source}: excludes others than the agreed policy does")
    excluded = {exclusion.site for exclusion in due}
    if isinstance(plan.asks, Join):
        if sorted(plan.cohort) != sorted(plan.asks.senders) or plan.quorum != len(plan.cohort):
            raise ChainError(f"plan of {source}: asks others than those who have something to send in this step")
        return tuple(sorted(excluded))
    if plan.tickets != _due(plan, past, excluded):
        raise ChainError(f"plan of {source}: counts the answers of others, or to other plans, than those that the rounds "
                         "before left at work")
    if sorted((*plan.answering, *plan.unasked)) != sorted({site.name for site in federation.sites} - excluded):
        raise ChainError(f"plan of {source}: does not ask every member that the agreed policy leaves in")
    if plan.unasked:
        try:
            asked_with.check_asked(plan.cohort, plan.unasked, plan.planned_at, trains=trains)
        except ContractError as error:
            raise ChainError(f"plan of {source}: does not ask {', '.join(plan.unasked)}: {error}") from None
    if trains and federation.selection is not None:
        drawn = cohort_of(asked_with, Place(plan.run, plan.round, plan.attempt, trains=True), seen, plan.at).asked
        if plan.cohort != drawn:
            raise ChainError(f"plan of {source}: asks {', '.join(plan.cohort)}, and the agreed selection is of "
                             f"{', '.join(drawn)}")
    return tuple(sorted((*excluded, *plan.unasked)))


def _due(plan: Plan, past: Sequence[Past], excluded: Collection[str]) -> tuple[Ticket, ...]:
    """Who must have a ticket of an earlier round."""
    if not plan.asks.makes_model or not past:
        return ()
    before = past[-1]
    return tickets_after(plan.agreed.pace, before.plan, before.commit.plan or "", before.commit, plan.log, excluded)


# -- what is said of everybody -----------------------------------------------------------------------------------------


def check_everybody(said: Commit | Finding, plan: Plan, source: str) -> None:
    """Check that no site is left out or counted twice, that the quorum answered, and that enough of it was used."""
    if isinstance(said, Commit):
        what, answered = "commit", [update.site for update in said.updates]
        used = sum(update.verdict is Verdict.USED for update in said.updates)
        if used < (fewest := plan.agreed.aggregation.fewest_used(plan.quorum)):
            raise ChainError(f"{what} of {source}: {how_many(used, 'update', 'is', 'are')} used, and of a quorum of "
                             f"{plan.quorum} at least {fewest} must be")
    else:
        what, answered = "finding", [told.site for told in said.answers]
    named = [*answered, *(no.site for no in said.refusals), *(no.site for no in said.rejected), *said.missing]
    if sorted(named) != sorted(plan.answering):
        raise ChainError(f"{what} of {source}: does not name every site of the cohort once")
    if len(answered) < plan.quorum:
        raise ChainError(f"{what} of {source}: {len(answered)} answers, its plan asks for a quorum of {plan.quorum}")


def check_commit(commit: Commit, plan: Plan, federation: Federation, source: str) -> None:
    """Check that every site has the agreed weight, answered the plan of its ticket, and that what does not travel is
    unchanged.

    `infra.history.read_plan` checks that the commit is of this plan.
    """
    if commit.blob("rest") != plan.rest:
        raise ChainError(f"commit of {source}: has other parts that do not travel than its plan")
    for update in commit.updates:
        if update.ticket != ticket_of(plan, update.site):
            raise ChainError(f"commit of {source}: says that '{update.site}' answered another round's plan than its ticket "
                             "is of")
        if update.weight != federation.site(update.site).weight:
            raise ChainError(f"commit of {source}: gives '{update.site}' another weight than the federation file")


def check_told(planned: Planned, commit: Commit, members: Federation, answers: Mapping[str, Answer], source: str) -> None:
    """Check that the commit repeats what the sites' counts told, where the next plan follows from it: each one's loss, and
    the score of all. answers: as far as they can be read; of all together nothing is checked if one cannot.
    """
    if len(answers) == len(commit.updates) and commit.score != score_of(planned.plan, answers):
        raise ChainError(f"commit of {source}: says another score of the base model than the sites' counts add up to")
    for update in commit.updates:
        if (answer := answers.get(update.site)) is not None and update.loss != loss_of(planned, members, answer):
            raise ChainError(f"commit of {source}: says that the loss at '{update.site}' is {update.loss}, and the site's "
                             "counts say otherwise")


def check_ledgers(commit: Commit, before: Commit, members: Federation, log: Sequence[Logged], answers: Mapping[str, Answer],
                  source: str) -> None:
    """Check that every ledger grows, and that the commit repeats what the site said of it."""
    known = {ledger.site: ledger for ledger in before.ledgers}
    for ledger in commit.ledgers:
        earlier = known.pop(ledger.site, None)
        if ledger.site not in {update.site for update in commit.updates}:
            if ledger != earlier:
                raise ChainError(f"commit of {source}: changes the ledger of '{ledger.site}', which sent no update")
            continue
        answer = answers.get(ledger.site)
        if ledger.key != members.site(ledger.site).key or (
                answer is not None and (answer.charges, answer.ledger_head) != (ledger.charges, ledger.head)):
            raise ChainError(f"commit of {source}: says of the ledger of '{ledger.site}' what the site did not say")
        if (earlier is not None and earlier.key in keys_of(members.site(ledger.site), log)
                and ledger.charges <= earlier.charges):
            raise ChainError(f"commit of {source}: the ledger of '{ledger.site}' has not grown: it was rolled back")
    if known or {update.site for update in commit.updates} - {ledger.site for ledger in commit.ledgers}:
        raise ChainError(f"commit of {source}: leaves out the ledger of a site")
