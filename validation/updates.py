"""Admission: checks of what a site sent. They use no store and no network, and trust nothing in it.

`read_answer` judges the signed document, `payloads.Intake` the tensors beside it. What passes both is an answer that the
member made for this plan; whether an update is an honest one is the aggregation rule's question.
"""

from __future__ import annotations

from fedround import codec
from fedround.errors import ChainError, ContractError, SignatureError, TrustError
from fedround.federation import MORE_ROWS, SiteEntry
from fedround.learning.spec import Training
from fedround.privacy.calibration import LARGEST_NOISE_MULTIPLIER
from fedround.privacy.spec import (
    DpFtrl,
    DpSgd,
    GaussianCounts,
    GaussianUpdate,
    GradientPrivacy,
    Mechanism,
    NoMechanism,
    NoPrivacy,
    Privacy,
    RandomisedLabels,
    RowSum,
    cap,
)
from fedround.records import ANSWERS, Answer, Join, Masked, Plan, SiteAnswer, Update
from fedround.rounds import summed
from fedround.rounds.campaign import mechanism_kind, misfit
from fedround.rounds.offer import offer
from fedround.sightings import is_sighting
from fedround.signing import envelope, unseal
from fedround.spoken import how_many
from fedround.statistics import LARGEST, LOUDEST, Release, Statistic
from fedround.values import Digest, PublicKey
from validation.payloads import form_of


def read_answer(document: bytes, plan: Plan, plan_digest: Digest, member: SiteEntry,
                revoked: tuple[PublicKey, ...] = ()) -> SiteAnswer:
    """The answer of `member` to `plan`, if `document` is one.

    revoked: the federation's revoked keys; only the error message differs from that for any other wrong key.
    Raises SignatureError if the member's key did not sign it, TrustError or ChainError if it speaks for another site or
    answers another plan, ContractError if it is not what the plan asks for. Every message names the site.
    """
    source = f"site '{member.name}' round {plan.round}"
    said = envelope(document, source)
    if said.kind not in ANSWERS:
        raise SignatureError(f"{source}: expected a signed {' or '.join(ANSWERS)}; got another kind of document")
    if said.key in revoked:
        raise SignatureError(f"{source}: signed by a key that was revoked; somebody else may have it")
    answer = unseal(document, ANSWERS[said.kind], member.key, source)
    _check_addressee(answer, plan, plan_digest, member, source)
    if isinstance(answer, Answer):
        _check_what_it_carries(answer, plan, source)
        if not is_sighting(plan, plan_digest, member.name, member.key, answer.sighting):
            raise SignatureError(f"{source}: its sighting of the plan is not signed by it")
        if plan.asks.slot is None and plan.asks.is_of_rows:
            _check_releases(answer.releases, plan, source)
            _check_update(answer.update, plan, source)
        if answer.update is not None and member.rows is not None:
            _check_size(answer.update, plan.agreed.training, member.rows, source)
        if answer.epsilon is not None and isinstance(plan.agreed.privacy, NoPrivacy):
            raise ContractError(f"{source}: says what it spent, and the plan has no privacy to spend")
    return answer


def _check_addressee(answer: SiteAnswer, plan: Plan, plan_digest: Digest, member: SiteEntry, source: str) -> None:
    if answer.site != member.name:
        raise TrustError(f"{source}: its answer is made out in the name of '{answer.site}'")
    if member.name not in plan.cohort:
        raise TrustError(f"{source}: the plan did not invite it")
    for name in ("federation", "run", "round", "attempt"):
        if getattr(answer, name) != getattr(plan, name):
            raise ChainError(f"{source}: its answer is for {name} '{getattr(answer, name)}', expected "
                             f"'{getattr(plan, name)}'")
    if answer.asked != plan.asks.kind:
        raise ChainError(f"{source}: its answer is to a plan to {answer.asked}, expected one to {plan.asks.kind}")
    if answer.plan != plan_digest:
        raise ChainError(f"{source}: its answer is to another plan than the one of this round")
    if answer.log != plan.log:
        raise ChainError(f"{source}: its answer names another head of the federation log than the plan")


# -- for secure sums ---------------------------------------------------------------------------------------------------


def _check_what_it_carries(answer: Answer, plan: Plan, source: str) -> None:
    """A plan about keys is answered with a file about keys, one with a slot with a masked vector, others with neither."""
    has_material, is_masked = answer.material is not None, answer.masked is not None
    if (has_material, is_masked) != (plan.asks.sends_file, plan.asks.slot is not None):
        raise ContractError(f"{source}: answered a plan to {plan.asks.kind} with a masked vector or a file about keys where "
                            "it asks for none, or without one where it does")
    if answer.noised != (plan.asks.noised if isinstance(plan.asks, Join) else ()):
        raise ContractError(f"{source}: noised what it sends otherwise than the plan asks")
    if (is_masked or not plan.asks.is_of_rows) and (answer.releases or answer.update is not None):
        raise ContractError(f"{source}: sent numbers in the open where the plan lets none be seen")
    if answer.masked is not None:
        _check_masked(answer.masked, plan, source)


def _check_masked(masked: Masked, plan: Plan, source: str) -> None:
    """Everybody's numbers are as many, under the same noise: the plan's terms say which."""
    asked = offer(plan.asks, plan.agreed, 1, lambda _: True).mechanisms
    if masked.mechanisms != asked:
        raise ContractError(f"{source}: noised otherwise than the terms of the sum say")
    length = sum(part.length for part in summed.layout(plan.asks, plan.agreed, codec.coordinates(plan.sent), asked))
    if (masked.length, masked.payload.size_bytes) != (length, 4 * length):
        raise ContractError(f"{source}: a vector of {masked.length} numbers in {masked.payload.size_bytes} bytes, expected "
                            f"{length} in {4 * length}")
    if len(masked.payload.chunks) != (count := -(-4 * length // codec.CHUNK_BYTES)):
        raise ContractError(f"{source}: digests of {how_many(len(masked.payload.chunks), 'chunk')}, expected {count}")


# -- what it released --------------------------------------------------------------------------------------------------


def _check_releases(releases: tuple[Release, ...], plan: Plan, source: str) -> None:
    """All that the plan asks for, in its order; of a question that does not need all, some of it."""
    asked, told = plan.asks.statistics, tuple(release.statistic for release in releases)
    if plan.needs_all and len(told) < len(asked):
        raise ContractError(f"{source}: released {len(told)} statistics, the plan asks for {len(asked)} and needs all")
    if not _in_order(told, asked):
        raise ContractError(f"{source}: released a statistic that the plan does not ask for, or one twice or out of order")
    for number, release in enumerate(releases, start=1):
        _check_noise(release, cap(plan.agreed.privacy), f"{source}: statistic {number} of its answer")


def _in_order(told: tuple[Statistic, ...], asked: tuple[Statistic, ...]) -> bool:
    """Whether `told` is `asked`, or what is left of it when some are left out."""
    left = iter(asked)
    return all(statistic in left for statistic in told)


def _check_noise(release: Release, rows_per_person: int | None, source: str) -> None:
    """Check that the mechanism is of the requested kind, and its noise at least the requested one."""
    asked, applied = release.statistic.mechanism, release.mechanism
    if applied.kind != asked.kind:
        raise ContractError(f"{source} was released with the mechanism {applied.kind}, the plan asks for {asked.kind}")
    if not release.is_of_one_site:
        raise ContractError(f"{source} has numbers beyond {LARGEST:g}, or noise beyond {LOUDEST:g}: no site's records "
                            "make these, and no plan asks for it")
    if isinstance(applied, GaussianCounts):
        _check_cap(applied, rows_per_person, source)
    if isinstance(asked, GaussianCounts) and release.noise_std < asked.noise_std:
        raise ContractError(f"{source} has noise {release.noise_std}, the plan asks for at least {asked.noise_std}")
    if not release.is_possible:
        raise ContractError(f"{source} has numbers that no records make, whatever the noise: counts far below 0, or sums "
                            "larger than the records are many")


def _check_cap(applied: DpSgd | RowSum | GaussianCounts, asked: int | None, source: str) -> None:
    if applied.rows_per_person != asked:
        raise ContractError(f"{source}: at most {applied.rows_per_person} rows of a person, the plan asks for {asked} (None: "
                            "persons are not told apart)")


# -- what it trained ---------------------------------------------------------------------------------------------------


def _check_update(update: Update | None, plan: Plan, source: str) -> None:
    if (update is not None) != plan.asks.makes_model:
        said = "without" if update is None else "with"
        raise ContractError(f"{source}: answered a plan to {plan.asks.kind} {said} an update")
    if update is None:
        return
    if update.base_model != plan.base_model:
        raise ChainError(f"{source}: trained from another base model than the plan's")
    if update.schema_digest != codec.schema_digest(plan.sent):
        raise ContractError(f"{source}: its schema is another than the plan's (names, shapes or order of the tensors)")
    expected = form_of(plan).size_bytes
    if update.payload.size_bytes != expected:
        raise ContractError(f"{source}: a payload of {update.payload.size_bytes} bytes, expected {expected}")
    if len(update.payload.chunks) != (count := -(-expected // codec.CHUNK_BYTES)):
        raise ContractError(f"{source}: digests of {how_many(len(update.payload.chunks), 'chunk')}, expected {count}")
    _check_mechanism(update, plan, source)


def _check_mechanism(update: Update, plan: Plan, source: str) -> None:
    privacy, training, mechanism = plan.agreed.privacy, plan.agreed.training, update.mechanism
    if mechanism.kind != (asked := mechanism_kind(plan.agreed)):
        raise ContractError(f"{source}: the plan asks for {'no noise' if asked == 'none' else f'the mechanism {asked}'}, got "
                            f"{mechanism.kind}")
    if (isinstance(mechanism, DpSgd | DpFtrl | GaussianUpdate) and not isinstance(privacy, NoPrivacy)
            and mechanism.clip_norm != privacy.clip_norm):
        raise ContractError(f"{source}: clipped to {mechanism.clip_norm}, the plan asks for {privacy.clip_norm}")
    if isinstance(mechanism, DpSgd | DpFtrl):
        _check_steps(mechanism.steps, training, source)
    if isinstance(mechanism, DpSgd | RowSum):
        _check_cap(mechanism, cap(privacy), source)
    if isinstance(mechanism, DpFtrl) and mechanism.batch_size > (training.batch_size or LARGEST):
        raise ContractError(f"{source}: batches of {how_many(mechanism.batch_size, 'row')}, the plan asks for "
                            f"{training.batch_size}")
    _check_possible(mechanism, training, source)
    all_of_few = isinstance(mechanism, RowSum) or (isinstance(mechanism, DpSgd) and mechanism.sampling_rate == 1)
    if update.rows is not None and not (all_of_few and update.rows <= (training.batch_size or LARGEST)):
        raise ContractError(f"{source}: declares {how_many(update.rows, 'row')}, which only a site that has fewer than a "
                            "batch does")
    if all_of_few and update.rows is None:
        raise ContractError(f"{source}: draws all its rows and does not say how many they are, so its noise is not known")
    if update.steps is not None and not (training.partial != "refuse" and update.steps < training.local_steps):
        raise ContractError(f"{source}: declares {how_many(update.steps, 'step')}, the plan asks for {training.local_steps} "
                            f"and {'no fewer' if training.partial == 'refuse' else 'for fewer only if time is up'}")
    _check_count(update, privacy, source)
    if (why_not := misfit(plan.agreed, mechanism)) is not None:
        raise ContractError(f"{source}: {why_not}")


def _check_steps(covered: int, training: Training, source: str) -> None:
    """Check that a mechanism covers the steps that were agreed, or as few as a slow site may do."""
    fewest, most = training.fewest_paid, training.paid
    if not fewest <= covered <= most:
        raise ContractError(f"{source}: took {how_many(covered, 'step')}, the plan asks for {most}"
                            + (f", and for {fewest} at least" if fewest < most else ""))


def _check_possible(mechanism: Mechanism, training: Training, source: str) -> None:
    """Check that some number of rows and some promise can lead to this noise and this sampling rate."""
    if (not isinstance(mechanism, NoMechanism | GaussianCounts | RandomisedLabels)
            and mechanism.noise_multiplier > LARGEST_NOISE_MULTIPLIER):
        raise ContractError(f"{source}: a noise multiplier of {mechanism.noise_multiplier:g}; no promise calls for more than "
                            f"{LARGEST_NOISE_MULTIPLIER:g}")
    if isinstance(mechanism, DpFtrl) and (mechanism.rows or 0) > LARGEST:
        raise ContractError(f"{source}: takes its rows in their order, as if of more than {LARGEST:g}")
    if isinstance(mechanism, DpSgd) and mechanism.sampling_rate < min(1.0, (training.batch_size or LARGEST) / LARGEST):
        raise ContractError(f"{source}: draws a row with chance {mechanism.sampling_rate:g}, as if of more than {LARGEST:g}")


def _check_size(update: Update, training: Training, agreed: int, source: str) -> None:
    """Check that the update was not made as if of many more rows than were agreed on: those call for less noise."""
    mechanism = update.mechanism
    if isinstance(mechanism, DpSgd):
        found = (training.batch_size or LARGEST) / mechanism.sampling_rate if update.rows is None else float(update.rows)
    elif isinstance(mechanism, RowSum):
        found = float(update.rows or 0)
    elif isinstance(mechanism, DpFtrl):
        found = float(mechanism.rows or mechanism.batch_size * mechanism.steps)
    else:
        return
    if found > MORE_ROWS * agreed:
        raise ContractError(f"{source}: made as if of {found:.0f} rows, agreed are {agreed}, and {MORE_ROWS:g} times as many "
                            "at most: if its rows have grown, agree on the new number ('rows' in the federation file)")


def _check_count(update: Update, privacy: Privacy, source: str) -> None:
    """Gradients within the clip norm are counted where the plan asks for it, with the noise that it asks for."""
    asked = privacy.count_noise_std if isinstance(privacy, GradientPrivacy) else None
    applied = update.mechanism.count_noise_std if isinstance(update.mechanism, DpSgd) else None
    if applied != asked:
        raise ContractError(f"{source}: counted gradients with noise {applied}, the plan asks for {asked} (None: no count)")
    if (update.within_clip is not None) != (asked is not None):
        raise ContractError(f"{source}: the share of gradients within the clip norm is told where the plan has them counted, "
                            "and only there")
