"""What each site's update did for a committed round: computed from the stored updates, signed, put beside the commit, proven.

Nothing that plans, weighs or asks reads it (`make check` proves that).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fedround import __version__, layout
from fedround.contribution.payout import Account, accounts
from fedround.contribution.said import Contribution, apart, check, shares_of
from fedround.contribution.split import DRAWS, split
from fedround.errors import ChainError, ContractError, DivergedError, NotFoundError, SignatureError, TooLargeError, TrustError
from fedround.learning.examples import Examples
from fedround.learning.many import Judge
from fedround.learning.recipe import Recipe
from fedround.learning.threads import one_thread
from fedround.records import Plan
from fedround.signing import seal, unseal
from infra.documents import read_document, read_federation
from infra.history import Committed, read_commit, read_plan, read_rest
from infra.stores import ObjectStore, put_first
from tasks import evidence
from tasks.aggregate import Aggregated
from tasks.coordinator import Coordinator
from tasks.evaluate import public_rows
from tasks.plan import Planned, planned_of
from tasks.recompute import Bench, again, clear
from tasks.report import record_contribution, register_contribution
from tasks.reporting.contribution import render_accounts
from tasks.root import root_update
from tasks.step import begins_with
from tasks.weights import weights_of

log = logging.getLogger("fedround.coordinator")

_GRAINS = 4
"""Pairs of rows whose order the last bits of scores may change, between the coordinator's processor and an auditor's."""
_ROUNDING = 1e-6
_AUDITORS_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Public:
    """Where models are judged: public rows, as the recipe sees them."""

    recipe: Recipe
    rows: Examples


def public_of(coordinator: Coordinator) -> Public:
    """The coordinator's test set. Raises ContractError if there is none."""
    if coordinator.settings.test_set is None:
        raise ContractError("contributions are judged on public rows, and the coordinator has none: name a file, "
                            "'test_set = \"test.parquet\"', in coordinator.toml")
    return Public(coordinator.recipe, public_rows(coordinator))


# -- computed ----------------------------------------------------------------------------------------------------------


def contributed(coordinator: Coordinator, run: str, number: int) -> Contribution:
    """What the sites added in this round: what stands beside its commit; if nothing does, it is computed and put there.

    Raises ContractError for round 0, which nobody was asked for, and where models cannot be judged; DivergedError if a model
    says no numbers; NotFoundError if there is no such round; LostError if a site's update is altered or gone; TrustError if
    something of a stranger's takes its place.
    """
    store, key = coordinator.store, coordinator.key
    if number == 0:
        raise ContractError("round 0 is the initial model: no site had a part in it")
    head = read_commit(store, run, number, key)
    if head.commit.regions:
        raise ContractError(f"round {number} of run '{run}': its updates were added up by regions, and what a site added is "
                            "judged where all updates are at one place")
    if head.commit.sum is not None:
        raise ContractError(f"round {number} of run '{run}': its updates were added up under masks, and nobody knows one of "
                            "them, so nobody knows what a site added")
    if (found := standing(store, head, key)) is not None:
        return found
    said = _computed(coordinator, head)
    put_first(store, place := layout.contribution(run, number), seal(said, coordinator.identity))
    if (found := standing(store, head, key)) is None:
        raise TrustError(f"what lies at '{place}' is not the coordinator's word, and keeps it from being put there: ask "
                         "whoever may write there to remove it, and run the command again")
    return found


def standing(store: ObjectStore, head: Committed, coordinator: str) -> Contribution | None:
    """What the coordinator said of this commit; None: nothing. What a stranger puts in its place is nothing, too: it stops
    neither a proof nor a page. Raises ChainError if the coordinator's own word does not follow from the commit.
    """
    source = f"contribution of round {head.commit.round} of run '{head.commit.run}'"

    def judged(document: bytes) -> Contribution:
        said = unseal(document, Contribution, coordinator, source)
        check(said, head.commit, head.digest, source)
        return said

    with suppress(NotFoundError, SignatureError, TooLargeError):
        return read_document(store, layout.contribution(head.commit.run, head.commit.round), judged)
    return None


def _computed(coordinator: Coordinator, head: Committed) -> Contribution:
    store, key, commit, public = coordinator.store, coordinator.key, head.commit, public_of(coordinator)
    plan = read_plan(store, commit, key)
    planned = planned_of(store, key, plan, commit.plan or "", read_commit(store, commit.run, commit.round - 1, key))
    members = read_federation(store, plan.federation_digest, key, f"federation file of round {commit.round}")
    answers = {told.site: evidence.update(store, members, planned.of(told.site), told) for told in commit.updates}
    with TemporaryDirectory(prefix="fedround-contribution-") as folder:
        bench = Bench(Path(folder), store, coordinator.settings.memory_budget_mb << 20)
        done = again(bench, planned, answers, weights_of(planned, members, answers),
                     root_update(coordinator, plan, planned.digest))
        said = _said(bench, planned, head, done, public, DRAWS)
        clear(bench)
    return said


def _said(bench: Bench, planned: Planned, head: Committed, done: Aggregated, public: Public, draws: int) -> Contribution:
    plan, commit = planned.plan, head.commit
    judge = _judge(bench.store, plan, public)
    with one_thread():
        found = split(plan.agreed, begins_with(bench.store, planned), done.combined, judge,
                      seed=bytes.fromhex(planned.digest), draws=draws, budget_bytes=bench.memory_budget_bytes)
    draws = 0 if found.noise_NN is None else draws
    return Contribution(
        federation=commit.federation, run=commit.run, round=commit.round, commit=head.digest, metric=plan.task.headline,
        test_set=public.rows.digest, nobody=found.nobody, everybody=found.everybody, coalitions=found.coalitions,
        method="exact" if found.exact else "sampled", draws=draws, sites=shares_of(found, commit, draws),
        apart=apart(found, draws), pairs=len(found.sites) * (len(found.sites) - 1) // 2, tool_version=__version__)


def _judge(store: ObjectStore, plan: Plan, public: Public) -> Judge:
    if plan.agreed.parts.private or plan.agreed.clusters > 1:
        raise ContractError("contributions are judged by one whole model, and "
                            + ("a part of this one stays at the sites" if plan.agreed.parts.private else
                               f"sites choose among {plan.agreed.clusters}"))
    frozen = read_rest(store, public.recipe, plan.agreed.parts, plan.rest, plan.run).frozen
    return Judge(public.recipe, plan.tensors, frozen, public.rows)


# -- proven ------------------------------------------------------------------------------------------------------------


def why_not(said: Contribution, plan: Plan, public: Public | None) -> str:
    """Why this cannot be computed again here; empty if it can."""
    if public is None:
        return "there are no public rows here"
    if public.recipe.digest != plan.agreed.recipe_digest:
        return "the recipe here is another one"
    return "" if public.rows.digest == said.test_set else "the public rows here are not those of the coordinator"


def check_again(said: Contribution, bench: Bench, planned: Planned, head: Committed, public: Public) -> Callable[
        [Aggregated], None]:
    """For `recompute`: compute what was said again, from the same updates. It raises ChainError if it is something else.

    Scores may differ in last bits between processors. So numbers may differ as if few rows had changed their order.
    """
    def compare(done: Aggregated) -> None:
        found = _said(replace(bench, memory_budget_bytes=_AUDITORS_BYTES), planned, head, done, public, said.draws or DRAWS)
        near = _ROUNDING + _GRAINS * _judge(bench.store, planned.plan, public).grain
        if _skeleton(said) != _skeleton(found):
            raise ChainError(f"contribution of round {said.round} of run '{said.run}': was computed otherwise than is said")
        for one, other in zip(_numbers(said), _numbers(found), strict=True):
            if (one is None) != (other is None) or abs((one or 0.0) - (other or 0.0)) > near:
                raise ChainError(f"contribution of round {said.round} of run '{said.run}': says {one}, and computed again "
                                 f"from the stored updates it is {other}")

    return compare


def _skeleton(said: Contribution) -> tuple[object, ...]:
    return said.metric, said.coalitions, said.method, said.draws, said.pairs, said.apart is None


def _numbers(said: Contribution) -> list[float | None]:
    return [said.nobody, said.everybody, *(number for one in said.sites for number in (
        one.value, one.noise_std, one.sampling_std, one.low, one.high))]


# -- told --------------------------------------------------------------------------------------------------------------


def add(coordinator: Coordinator, run: str, number: int) -> bool:
    """`contributed`, put into the round's record and page. False for a round whose model has diverged, which is logged: what
    its updates are worth has no answer, and no other round waits for it.
    """
    try:
        contributed(coordinator, run, number)
    except DivergedError as error:
        log.warning("round %d of run '%s': what its sites added cannot be said: %s", number, run, error)
        return False
    tell(coordinator, run, number)
    return True


def account(coordinator: Coordinator, run: str, until: int) -> tuple[tuple[Contribution, ...], tuple[Account, ...]]:
    """What stands of the rounds up to this one, and what every site added in them and gets for it."""
    store, key = coordinator.store, coordinator.key
    heads = [read_commit(store, run, number, key) for number in range(1, until + 1)]
    told = tuple(said for head in heads if (said := standing(store, head, key)) is not None)
    rounds = [(read_plan(store, head.commit, key), head.commit) for head in heads]
    return told, accounts(rounds, told, coordinator.federation.incentive)


def tell(coordinator: Coordinator, run: str, number: int) -> None:
    """Put what stands beside this commit into the round's record and page; nothing if nothing does."""
    head = read_commit(coordinator.store, run, number, coordinator.key)
    if (said := standing(coordinator.store, head, coordinator.key)) is not None:
        record_contribution(coordinator, said, account(coordinator, run, number)[1])


def settle(coordinator: Coordinator, run: str) -> str:
    """All rounds of a run, where the federation gives points for contributions: computed, told and kept for `dvc metrics`;
    returns Markdown. Empty where no points are agreed, or models cannot be judged here.
    """
    incentive = coordinator.federation.incentive
    if incentive is None or coordinator.settings.test_set is None or coordinator.federation.parts.private:
        return ""
    rounds = rounds_of(coordinator, run)
    said = [number for number in rounds if add(coordinator, run, number)]
    if not said:
        return ""
    told, found = account(coordinator, run, rounds[-1])
    register_contribution(coordinator, run, rounds[-1], found)
    return render_accounts(found, told[-1])


def rounds_of(coordinator: Coordinator, run: str) -> range:
    """The rounds of a run that sites had a part in. Raises ContractError if there is none."""
    last = coordinator.last_round(run)
    if not last:
        raise ContractError(f"run '{run}' has no committed round: 'fedround models list' shows the runs")
    return range(1, last + 1)
