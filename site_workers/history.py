"""Does what the coordinator shows this site continue what the site has seen?

That is the federation log, the run's commits, and the site's own answers. Everything here is raised (ChainError, TrustError):
a history that does not hold gets no answer at all.
"""

from __future__ import annotations

from fedround import layout, sightings
from fedround.errors import ChainError, ContractError, NotFoundError, TrustError
from fedround.federation import Federation
from fedround.federation_log import Logged
from fedround.records import Commit, Plan, Train
from fedround.signing import digest
from infra.documents import NOT_OURS
from infra.federation_log import read_up_to
from infra.history import Committed, last_round, read_commit, read_finding, read_plan_at
from site_workers import outbox
from site_workers.seen import Seen, SeenCommit
from site_workers.site import Site

_COMPARE = "compare 'fedround verify' with other members"
_COMPARE_LOGS = "compare 'fedround federation log' with other members"


def agreement(site: Site, plan: Plan, seen: Seen, source: str) -> tuple[Federation, tuple[Logged, ...]]:
    """The federation file that holds for the plan, and the log up to it. The log must contain what this site has seen."""
    if seen.log is not None and plan.log.number < seen.log.number:
        raise ChainError(f"{source}: names entry {plan.log.number} as the end of the federation log, and this site has seen "
                         f"entry {seen.log.number}: the log was rolled back. Stop, and {_COMPARE_LOGS}")
    log = read_up_to(site.store, site.settings.coordinator, plan.log, source)
    if seen.log is not None and log[seen.log.number - 1].digest != seen.log.digest:
        raise ChainError(f"{source}: its federation log has another entry {seen.log.number} than this site has seen: there "
                         f"are two logs. Stop, and {_COMPARE_LOGS}")
    if log[-1].entry.federation_digest != plan.federation_digest:
        raise TrustError(f"{source}: names another federation file than the end of its federation log does")
    return log[-1].federation, log


def parent(site: Site, plan: Plan, named: str, log: tuple[Logged, ...], seen: Seen, source: str) -> Commit:
    """The signed commit that the plan continues. Four things are checked.

    The plan starts from the commit's model. The commit continues what this site has seen of the run. It is signed. A majority
    of the members was shown its plan. named: the plan's digest.
    """
    number = plan.continues
    head = _commit(site, plan.run, number, source)
    commit = head.commit
    if head.digest != plan.parent:
        raise ChainError(f"{source}: does not continue the committed round {number}")
    if (commit.model, commit.blob("rest")) != (plan.base_model, plan.rest):
        raise ChainError(f"{source}: starts from another model than the one that round {number} committed")
    if isinstance(plan.asks, Train) and not set(plan.asks.state) <= set(commit.state):
        raise ChainError(f"{source}: names state of the server that round {number} did not leave")
    known = seen.runs.get(plan.run)
    if plan.agreed.pace is not None and plan.asks.makes_model and known is not None and number < known.round:
        _check_led_here(site, plan, named, known, source)
    else:
        _check_continues(site, commit, plan.parent, known, source)
    if number > 0:
        _check_sighted(site, commit, log, f"commit of round {number} of run '{plan.run}'")
    return commit


def _check_led_here(site: Site, plan: Plan, named: str, seen: SeenCommit, source: str) -> None:
    """Check that what this site has seen last rests on this very plan, of an earlier round: then it is of the one history."""
    wanted, number = seen.digest, seen.round
    while True:
        head = _commit(site, plan.run, number, source)
        if head.digest != wanted:
            raise ChainError(f"{source}: this site has seen another commit of round {number}: there are two histories. Stop, "
                             f"and {_COMPARE}")
        if number == plan.round:
            break
        wanted, number = head.commit.parent or "", number - 1
    if (head.commit.plan, head.commit.parent) != (named, plan.parent):
        raise ChainError(f"{source}: is not the plan that round {plan.round} was committed with; what answers it would not "
                         "count")


def check_ticket(site: Site, plan: Plan, named: str, source: str) -> None:
    """Check that an answer to this plan, of a round that may be over, still counts, as far as the store shows. Nothing is
    charged for work that cannot.
    """
    pace, number = plan.agreed.pace, plan.round
    while pace is not None and site.store.head(layout.commit(plan.run, number)) is not None:
        commit = _commit(site, plan.run, number, source).commit
        if number == plan.round and commit.plan != named:
            raise ChainError(f"{source}: round {number} was committed with another plan, and an answer to this one does not "
                             "count")
        if commit.log != plan.log or site.name not in commit.missing or number + 1 - plan.round > pace.max_age:
            raise ChainError(f"{source}: the rounds since then have ended this site's ticket: an answer does not count any "
                             "more")
        number += 1


def is_over(site: Site, plan: Plan, named: str, seen: Seen) -> bool:
    """Whether the plan was answered long ago and only its invitation is sent again, by whoever may start flow runs.

    The newest commit of the run that the site has seen must lie where it was, and the store must have what became of this
    very plan, or of a later try at the same round.
    """
    known, coordinator = seen.runs.get(plan.run), site.settings.coordinator
    try:
        if known is None or read_commit(site.store, plan.run, known.round, coordinator).digest != known.digest:
            return False
        if not plan.asks.makes_model:
            return read_finding(site.store, plan.run, plan.round, plan.attempt, plan.asks.kind, coordinator).plan == named
        done = read_commit(site.store, plan.run, plan.round, coordinator).commit.plan
        return done == named or any(
            read_plan_at(site.store, plan.run, plan.round, attempt, plan.asks.kind, coordinator)[1] == done
            for attempt in _later_tries(site, plan))
    except NOT_OURS:
        return False


def _later_tries(site: Site, plan: Plan) -> list[int]:
    tries = (layout.parse_plan(key) for key in site.store.list(layout.plans(plan.run)))
    return [found[2] for found in tries if found is not None and found[2] > plan.attempt
            and (found[1], found[3]) == (plan.round, plan.asks.kind)]


def newest(site: Site, run: str, seen: Seen) -> Commit:
    """The run's last commit, signed by our coordinator, which continues what this site has seen of the run.

    Raises ContractError if there is none.
    """
    last = last_round(site.store, run, site.settings.coordinator)
    if last is None:
        raise ContractError(f"the store has no run '{run}' with a committed round")
    source = f"last commit of run '{run}'"
    head = _commit(site, run, last, source)
    _check_continues(site, head.commit, head.digest, seen.runs.get(run), source)
    return head.commit


def _commit(site: Site, run: str, number: int, source: str) -> Committed:
    try:
        return read_commit(site.store, run, number, site.settings.coordinator)
    except NotFoundError:
        raise ChainError(f"{source}: round {number}, which it continues, is not committed") from None


def _check_continues(site: Site, commit: Commit, named: str | None, seen: SeenCommit | None, source: str) -> None:
    """Check that the chain from `commit`, whose digest is `named`, leads back to the newest commit seen here."""
    if seen is None:
        return
    if commit.round < seen.round:
        raise ChainError(f"{source}: continues round {commit.round}, and this site has seen round {seen.round}: the history "
                         f"was rolled back. Stop, and {_COMPARE}")
    while commit.round > seen.round + 1:
        before = _commit(site, commit.run, commit.round - 1, source)
        if before.digest != commit.parent:
            raise ChainError(f"{source}: round {commit.round} does not continue the committed round {commit.round - 1}")
        commit = before.commit
    if commit.round > seen.round:
        named = commit.parent              # the digest is enough: what that commit says, this site has seen
    if named != seen.digest:
        raise ChainError(f"{source}: this site has seen another commit of round {seen.round}: there are two histories. Stop, "
                         f"and {_COMPARE}")


def _check_sighted(site: Site, commit: Commit, log: tuple[Logged, ...], source: str) -> None:
    """Check that every site in the commit was shown the plan that it answers, that enough members were shown what leads to
    it, and that it repeats our own answers.
    """
    commits = [commit]
    members = _members(commit, log, source)
    first = commit.round + 1 - sightings.window(members)
    while (number := commits[0].round) > max(1, first):
        before = _commit(site, commit.run, number - 1, source)
        if before.digest != commits[0].parent:
            raise ChainError(f"{source}: round {number} does not continue the committed round {number - 1}")
        commits.insert(0, before.commit)
    plans = {one.round: one.plan or "" for one in commits}
    for one in commits:
        sightings.check(one, _members(one, log, source), source, plans)
        _check_ours(site, one, source)
    sightings.check_majority(commits, members, source)


def _members(commit: Commit, log: tuple[Logged, ...], source: str) -> Federation:
    """The federation file under which a commit was made."""
    if commit.log.number > len(log) or log[commit.log.number - 1].digest != commit.log.digest:
        raise ChainError(f"{source}: names another federation log than its successor's plan")
    logged = log[commit.log.number - 1]
    if logged.entry.federation_digest != commit.federation_digest:
        raise ChainError(f"{source}: names another federation file than the log")
    return logged.federation


def _check_ours(site: Site, commit: Commit, source: str) -> None:
    for update in commit.updates:
        if update.site == site.name:
            answered = sightings.answers_to(commit, update)
            kept = [digest(entry.answer) for entry in outbox.answers(site.safe, commit.run, "train", answered)]
            if kept and update.answer not in kept:
                raise ChainError(f"{source}: holds another update of this site than the one it sent; ask the coordinator "
                                 "where it comes from, and whether somebody else has this site's key")
