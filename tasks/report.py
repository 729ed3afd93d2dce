"""What people read about a round: a record, a page that opens offline, a version in the model store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fedround import codec, layout
from fedround.aggregation.engine import estimates_distances
from fedround.aggregation.gate import chance
from fedround.aggregation.spec import Gate
from fedround.aggregation.verdict import Verdict
from fedround.contribution.payout import Account
from fedround.contribution.said import Contribution
from fedround.fairness_of_groups import GroupFairness
from fedround.learning.spec import Training
from fedround.learning.tasks import Metrics, Task
from fedround.learning.trees.spec import Trees
from fedround.privacy.profile import upward
from fedround.privacy.spec import NoPrivacy, PersonPrivacy, Privacy, SitePrivacy
from fedround.records import Commit, Plan
from fedround.rounds.clusters import scores_in
from fedround.rounds.tickets import ended, share
from fedround.spoken import how_many
from fedround.standing import Reputation
from fedround.statistics import Release
from fedround.statistics.partitions import Partition
from fedround.terms import Terms
from fedround.values import Value
from infra.documents import read_blob, read_named
from infra.history import Committed, read_checkpoint
from infra.model_registry import ModelRegistry
from tasks import pages, worth
from tasks.afterwards import afterwards
from tasks.cohort import why_unasked
from tasks.collect import is_enough
from tasks.collected import Collected
from tasks.coordinator import Coordinator
from tasks.drift import drift_after
from tasks.memory import flat_schema
from tasks.plan import Planned
from tasks.reporting import RoundRecord, SiteRow
from tasks.reporting.heatmap import MOST_SITES
from tasks.reporting.record import NOT_TIMED, Beside, Contributed, Lineage, Timing
from validation.contract import Contract
from validation.reliability import Explained


def report(coordinator: Coordinator, planned: Planned, collected: Collected, committed: Committed,
           metrics: Metrics | None, seconds: float, ended: datetime | None = None,
           timing: Timing = NOT_TIMED) -> RoundRecord:
    """Record the round, tag its model, write its page; returns the record. ended: when it was committed, if that is known.

    The sites' own evaluation of this round's model arrives with the next round's answers: see `record_evaluation`.
    """
    record = _record(coordinator, planned, collected, committed, metrics, seconds, ended)
    record = record.model_copy(update={"steps": timing.steps, "sites": tuple(_timed(row, timing) for row in record.sites)})
    with afterwards(f"the judgement of drift for round {record.round}"):
        record = record.model_copy(update={"drift": drift_after(coordinator, record.run, record.round)})
    if (base := _evaluated(coordinator, planned, collected, committed.commit.totals)) is not None:
        pages.keep(coordinator.reports, base)           # its page is written with the next one's, which it links
    _register(coordinator, committed.commit, record)
    pages.write(coordinator.reports, record)
    return record


def record_evaluation(coordinator: Coordinator, planned: Planned, collected: Collected,
                      totals: Sequence[Release] = ()) -> None:
    """Add what the sites found about the plan's base model to the record of the round that made it.

    totals: what all say together, where nobody knows what one of them says.
    """
    if (record := _evaluated(coordinator, planned, collected, totals)) is not None:
        pages.write(coordinator.reports, record)


def _evaluated(coordinator: Coordinator, planned: Planned, collected: Collected,
               totals: Sequence[Release]) -> RoundRecord | None:
    """The record of the round that made the plan's base model, with what the sites found about it; None: it has none."""
    base = planned.parent.commit.round
    if base == 0 or (record := _known(coordinator, planned.plan.run, base)) is None:
        return None
    task, told = planned.plan.task, _told(planned, collected)
    together = [*told.values(), *totals]
    if (over_all := task.metrics_of(together)) is not None:
        record = record.model_copy(update={"at_sites": over_all, "at_sites_margin": task.margin_of(together)})
    return record.model_copy(update={"sites": tuple(_judged(row, told.get(row.site), task) for row in record.sites)})


def record_groups(coordinator: Coordinator, found: GroupFairness, run: str) -> None:
    """Add how a round's model decides about groups to its record, and to its page."""
    if (record := _known(coordinator, run, found.round)) is not None:
        pages.write(coordinator.reports, record.model_copy(update={"fairness": found}))


def record_contribution(coordinator: Coordinator, said: Contribution, accounts: tuple[Account, ...]) -> None:
    """Add what each site's update did for a round's model to its record, and to its page. accounts: of the run so far."""
    if (record := _known(coordinator, said.run, said.round)) is not None:
        told = Contributed(said=said, accounts=accounts, incentive=coordinator.federation.incentive)
        pages.write(coordinator.reports, record.model_copy(update={"contribution": told}))


def register_contribution(coordinator: Coordinator, run: str, number: int, accounts: Sequence[Account]) -> None:
    """Keep what every site added to a run until this round in the model store, as the tag `<run>/contribution-<round>`."""
    known = {f"{name}_{one.site}": value for one in accounts for name, value in (
        ("contribution", one.value), ("contribution_low", one.low), ("contribution_high", one.high), ("points", one.points))}
    ModelRegistry.open(coordinator.folder / "models").note(f"{run}/contribution-{number:05d}", {
        name: value for name, value in known.items() if value is not None})


def record_explained(coordinator: Coordinator, run: str, found: Explained) -> None:
    """Add how a round's model decides to its record, and to its page."""
    if (record := _known(coordinator, run, found.round)) is not None:
        pages.write(coordinator.reports, record.model_copy(update={"explained": found}))


def record_beside(coordinator: Coordinator, run: str, number: int, others: Sequence[Beside]) -> None:
    """Add what a round's model was compared with to its record, and to its page."""
    if (record := _known(coordinator, run, number)) is not None:
        pages.write(coordinator.reports, record.model_copy(update={"beside": tuple(others)}))


def records(coordinator: Coordinator, run: str) -> list[RoundRecord]:
    """The run's records so far, by round; without those that are damaged, which are written again."""
    return pages.records(coordinator.reports, run)


def is_reported(coordinator: Coordinator, run: str, number: int) -> bool:
    """Whether the round has its page, and a record that can be read."""
    return page(coordinator, run, number).exists() and _known(coordinator, run, number) is not None


def page(coordinator: Coordinator, run: str, number: int) -> Path:
    """Where the round's page is."""
    return pages.path_of(coordinator.reports, run, number).with_suffix(".html")


def _known(coordinator: Coordinator, run: str, number: int) -> RoundRecord | None:
    return pages.if_whole(pages.path_of(coordinator.reports, run, number))


def _told(planned: Planned, collected: Collected) -> dict[str, Release]:
    """What each site said of the plan's base model on the rows that it holds out. Who answered an earlier plan said it of an
    earlier model.
    """
    return {site: told for site, answer in collected.answers.items()
            if (told := scores_in(planned.plan, answer)) is not None and site not in planned.earlier}


def _timed(row: SiteRow, timing: Timing) -> SiteRow:
    fetched_s, fetches = timing.fetched.get(row.site, (None, None))
    return row.model_copy(update={"answered_s": timing.answered.get(row.site), "fetched_s": fetched_s, "fetches": fetches})


def _judged(row: SiteRow, told: Release | None, task: Task) -> SiteRow:
    """With the model's metrics at the site, if it told them and the noise does not hide them."""
    if told is None or (found := task.metrics_of([told])) is None:
        return row
    return row.model_copy(update={"local": found, "local_margin": task.margin_of([told])})


def _record(coordinator: Coordinator, planned: Planned, collected: Collected, committed: Committed,
            metrics: Metrics | None, seconds: float, ended: datetime | None = None) -> RoundRecord:
    plan, commit, terms = planned.plan, committed.commit, planned.plan.agreed
    near, distances = _distances(coordinator, commit)
    contract = coordinator.contract if coordinator.contract.digest == terms.contract_digest else None     # or agreed on since
    warnings = () if contract is None else contract.warnings
    return RoundRecord(
        federation=plan.federation, run=plan.run, round=plan.round, model=commit.model, parent=commit.base_model,
        aggregation=terms.aggregation_in_words, optimizer=_step_in_words(terms),
        training=f"{terms.training.in_words} a round" if isinstance(terms.training, Trees) else _in_words(terms.training),
        compression="none" if terms.compression is None else _in_words(terms.compression),
        uploaded_bytes=sum(update.size_bytes for update in commit.updates),
        privacy=_privacy_in_words(terms, plan.asks.partition) + _both_prices(terms, collected),
        chosen="" if terms.choice is None else terms.choice.in_words,
        worth=worth.in_words(terms, {site: admitted.answer.update for site, admitted in collected.admitted.items()
                                     if admitted.answer.update is not None}),
        quorum=plan.quorum, seconds=seconds, ended=ended, public=metrics,
        lineage=Lineage(coordinator=coordinator.key, commit=committed.digest, plan=commit.plan,
                        federation_file=commit.federation_digest, log=commit.log.number, recipe=terms.recipe,
                        recipe_digest=terms.recipe_digest, contract_digest=terms.contract_digest),
        epsilon_limit=None if isinstance(terms.privacy, NoPrivacy) else terms.privacy.epsilon,
        rounds_agreed=None if isinstance(terms.privacy, NoPrivacy) else terms.privacy.rounds,
        contract="" if contract is None else _contract_in_words(contract),
        reputation=_reputation_in_words(coordinator.federation.reputation, terms.aggregation.gate, len(plan.cohort)),
        note=commit.note, near=near, distances=distances,
        estimated=estimates_distances(terms.aggregation, codec.coordinates(plan.sent)),
        sites=(*(_row(coordinator, site, planned, collected, commit, warnings) for site in plan.answering),
               *_not_asked(coordinator, plan)))


def _distances(coordinator: Coordinator, commit: Commit) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    """The sites that were compared, and their pairwise distances, from the blob that the commit names.

    Nothing for a cohort that is too large for a page.
    """
    near = tuple(update.site for update in commit.updates if update.verdict not in (Verdict.NOT_FINITE, Verdict.NORM))
    sha256 = commit.blob("distances")
    if sha256 is None or len(near) > MOST_SITES:
        return (), ()
    distances_NN = read_blob(coordinator.store, layout.memory(sha256), sha256, flat_schema("distances", len(near), len(near)),
                             f"distances of round {commit.round}")["distances"]
    return near, tuple(tuple(float(f"{distance:.4g}") for distance in row_N) for row_N in distances_NN)


def _row(coordinator: Coordinator, site: str, planned: Planned, collected: Collected, commit: Commit,
         warnings: Sequence[str]) -> SiteRow:
    weight = coordinator.federation.site(site).weight
    said = next((update for update in commit.updates if update.site == site), None)
    if site in collected.admitted and said is not None:     # or else it came after another process had committed the round
        note = said.reason or ("" if said.ticket is None else f"its answer to the plan of round {said.ticket}, which counts "
                               f"{share(planned.plan, site):.0%} of its weight")
        if said.cluster is not None:
            note = f"chose model {said.cluster} of {planned.plan.agreed.clusters}" + (f"; {note}" if note else "")
        return SiteRow(
            site=site, outcome="updated" if said.verdict is Verdict.USED else "left_out", note=note, weight=weight,
            cluster=said.cluster, verdict=said.verdict, norm=said.norm, distance=said.distance, influence=said.influence,
            uploaded_bytes=said.size_bytes, epsilon=(answer := collected.admitted[site].answer).epsilon,
            epsilon_alone=answer.epsilon_alone, checks=tuple(check for check in answer.checks if check in warnings))
    if site in collected.refused:
        refusal = collected.refused[site].refusal
        return SiteRow(site=site, outcome="refused", note=f"{refusal.reason}: {refusal.detail}", weight=weight,
                       checks=refusal.checks)
    if site in collected.rejected:
        return SiteRow(site=site, outcome="rejected", note=collected.rejected[site].reason, weight=weight)
    note = ("not waited for: enough others had answered; it may have been charged" if is_enough(planned.plan, collected)
            else "given up before the deadline: it gave no sign that its work moves" if site in collected.idle
            else "no answer before the deadline")
    if planned.plan.agreed.pace is not None:
        over = site in {ticket.site for ticket in ended(planned.plan, commit.missing)}
        asked = planned.of(site).plan.round
        note = (f"no answer to the plan of round {asked}: too old now, and asked anew; it may have been charged" if over
                else f"still at work on the plan of round {asked}")
    return SiteRow(site=site, outcome="missing", note=note, weight=weight)


def _not_asked(coordinator: Coordinator, plan: Plan) -> list[SiteRow]:
    return [SiteRow(site=out.site, outcome="excluded", note=f"{out.reason}; asked again in round {out.until}",
                    weight=coordinator.federation.site(out.site).weight) for out in plan.excluded] + [
            SiteRow(site=site, outcome="excluded", note=why_unasked(coordinator.federation, plan, site),
                    weight=coordinator.federation.site(site).weight) for site in plan.unasked]


def _register(coordinator: Coordinator, commit: Commit, record: RoundRecord) -> None:
    checkpoint = read_checkpoint(coordinator.store, commit, coordinator.key)
    model = read_named(coordinator.store, layout.model(commit.model), commit.model, f"model of round {commit.round}",
                       by="commit", max_bytes=checkpoint.model.size_bytes)
    ModelRegistry.open(coordinator.folder / "models").register(checkpoint, model, record.numbers)


def _in_words(value: Value) -> str:
    """`fedprox (mu=0.1)`: a value that has a name is shown by its name. What is not agreed is left out."""
    said = ", ".join(f"{key}={_item(getattr(value, key))}" for key in type(value).model_fields
                     if key != "name" and getattr(value, key) is not None)
    name = getattr(value, "name", "").replace("_", " ")
    return f"{name} ({said})" if name and said else name or said


def _item(item: object) -> str:
    return _in_words(item) if isinstance(item, Value) else f"{item:g}" if isinstance(item, float) else str(item)


def _step_in_words(terms: Terms) -> str:
    if isinstance(trees := terms.training, Trees):
        return f"sets each leaf from sums of gradients g and curvatures h: -{trees.learning_rate:g} g / (h + {trees.l2:g})"
    return _in_words(terms.optimizer)


def _contract_in_words(contract: Contract) -> str:
    """Which checks only warn depends on no record, and everybody may read it."""
    warnings = contract.warnings
    return f"'{contract.name}', {how_many(len(contract.checks), 'check')}" + (
        f", of which {len(warnings)} only warn{'s' * (len(warnings) == 1)}: {', '.join(warnings)}" if warnings else "")


def _reputation_in_words(policy: Reputation | None, gate: Gate | None, rows: int) -> str:
    by_chance = ("" if gate is None else
                 f"; chance alone has the gate leave an honest site out of at most {chance(gate, rows):.1%} of rounds")
    if policy is None:
        return f"off: every member is asked in every round{by_chance}"
    return (f"who is left out of {policy.exclude_after} of {policy.window} rounds sits out {policy.exclude_for}, and is then "
            f"asked again with a clean record{by_chance}")


def _privacy_in_words(terms: Terms, part: Partition | None) -> str:
    only = "" if part is None else f"; trained on the rows of {part.name} alone ({part.in_words}), and no other row pays"
    return _promise_in_words(terms.privacy, terms.training) + only


def _both_prices(terms: Terms, collected: Collected) -> str:
    """What sites have spent, where the noise is shared: if as many add theirs as was agreed, and if nobody else does."""
    spent, alone = ([found for answer in collected.answers.values() if (found := getattr(answer, name)) is not None]
                    for name in ("epsilon", "epsilon_alone"))
    if terms.combine is None or not spent or not alone:
        return ""
    return (f"; spent so far: at most {upward(max(spent), 4)} while {terms.shared_by} honest members add their noise, at "
            f"most {upward(max(alone), 4)} if nobody else does")


def _promise_in_words(privacy: Privacy, training: Training) -> str:
    if isinstance(privacy, NoPrivacy):
        return "none: updates leave without noise"
    budget = f"epsilon <= {privacy.epsilon:g} at delta {privacy.delta_dp:g} over {how_many(privacy.rounds, 'round')}"
    if isinstance(privacy, SitePrivacy):
        return f"site level (all that a site contributes, or nothing), {budget}; update clipped and noised, PLD accountant"
    if isinstance(training, Trees):
        return f"record level (one record of a site, or nothing), {budget}; sums by leaf noised once a round, PLD accountant"
    how = "DP-FTRL, fixed order" if privacy.mechanism == "dp_ftrl" else "DP-SGD, Poisson sampling"
    adaptive = "" if privacy.adaptive is None else f", clip norm at quantile {privacy.adaptive.quantile:g}"
    whom = "record level (one record of a site, or nothing)"
    if isinstance(privacy, PersonPrivacy):
        whom = f"person level (all rows of one person at a site, as '{privacy.person}' says, or nothing)"
    return f"{whom}, {budget}; {how}{adaptive}, PLD accountant"
