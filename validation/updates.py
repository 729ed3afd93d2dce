"""Admission: judgements on what a site sent. They touch no store and no network, and believe nothing.

`read_answer` judges the signed document, `payloads.Intake` the tensors beside it. What passes both is an update that the
member made for this plan; whether it is an honest one is the aggregation rule's question.
"""

from __future__ import annotations

import json

from fedround import codec
from fedround.agreement import SiteEntry
from fedround.errors import ChainError, ContractError, SignatureError, TrustError
from fedround.privacy.spec import AdaptiveDpSgd, DpFtrl, DpSgd, NoPrivacy, Privacy, RecordPrivacy, SitePrivacy
from fedround.sightings import is_sighting
from fedround.signing import MAX_DOCUMENT_BYTES, unseal
from fedround.records import EvaluationAnswer, Purpose, Refusal, Plan, ScoreCounts, SiteAnswer, Update
from fedround.values import Digest, PublicKey
from validation.payloads import form_of

_ANSWERS: dict[str, type[Update] | type[EvaluationAnswer] | type[Refusal]] = {
    "update": Update, "evaluation": EvaluationAnswer, "refusal": Refusal}
_EXPECTED = {Purpose.TRAIN: "update", Purpose.EVALUATE: "evaluation"}


def read_answer(document: bytes, plan: Plan, plan_digest: Digest, member: SiteEntry,
                revoked: tuple[PublicKey, ...] = ()) -> SiteAnswer:
    """The answer of `member` to `plan`, if `document` is one.

    revoked: keys that the federation has struck; only the reason is another than for any other wrong key.
    Raises SignatureError if the member's key did not sign it, TrustError or ChainError if it speaks for another site or
    answers another plan, ContractError if it is not what the plan asks for. Every message names the site.
    """
    source = f"site '{member.name}' round {plan.round}"
    kind, key = _kind_and_key(document, source)
    if key in revoked:
        raise SignatureError(f"{source}: signed by a key that was revoked; somebody else may have it")
    answer = unseal(kind, document, _ANSWERS[kind], member.key, source)
    _check_addressee(answer, plan, plan_digest, member, source)
    if isinstance(answer, Refusal):
        return answer
    if answer.kind != _EXPECTED[plan.purpose]:
        raise ContractError(f"{source}: answered a plan to {plan.purpose} with kind '{answer.kind}'")
    if answer.evaluation is not None:
        _check_evaluation(answer.evaluation, plan, source)
    if isinstance(answer, Update):
        _check_update(answer, plan, source)
    return answer


def _kind_and_key(document: bytes, source: str) -> tuple[str, object]:
    """What the envelope says it is, and whose; nothing is believed before `unseal` has checked the signature."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ContractError(f"{source}: {len(document)} bytes; a signed answer has at most {MAX_DOCUMENT_BYTES}")
    try:
        envelope = json.loads(document)
    except (ValueError, RecursionError):
        raise SignatureError(f"{source}: not a signed document") from None
    kind = envelope.get("kind") if isinstance(envelope, dict) else None
    if not isinstance(kind, str) or kind not in _ANSWERS:
        raise SignatureError(f"{source}: expected a signed {', '.join(_ANSWERS)}; got another kind of document")
    return kind, envelope.get("key")


def _check_addressee(answer: SiteAnswer, plan: Plan, plan_digest: Digest, member: SiteEntry, source: str) -> None:
    if answer.site != member.name:
        raise TrustError(f"{source}: its answer is made out in the name of '{answer.site}'")
    if member.name not in plan.cohort:
        raise TrustError(f"{source}: the plan did not invite it")
    for name in ("federation", "run", "round", "attempt"):
        if getattr(answer, name) != getattr(plan, name):
            raise ChainError(f"{source}: its answer is for {name} '{getattr(answer, name)}', expected "
                             f"'{getattr(plan, name)}'")
    if answer.plan != plan_digest:
        raise ChainError(f"{source}: its answer is to another plan than the one of this round")
    if answer.log != plan.log:
        raise ChainError(f"{source}: its answer names another head of the federation log than the plan")
    if isinstance(answer, Update) and not is_sighting(plan, plan_digest, member.name, member.key, answer.sighting):
        raise SignatureError(f"{source}: its sighting of the plan is not signed by it")


def _check_update(update: Update, plan: Plan, source: str) -> None:
    if update.base_model != plan.base_model:
        raise ChainError(f"{source}: trained from another base model than the plan's")
    if update.schema_digest != codec.schema_digest(plan.tensors):
        raise ContractError(f"{source}: its schema is another than the plan's (names, shapes or order of the tensors)")
    expected = form_of(plan).size_bytes
    if update.payload.size_bytes != expected:
        raise ContractError(f"{source}: a payload of {update.payload.size_bytes} bytes, expected {expected}")
    if len(update.payload.chunks) != (count := -(-expected // codec.CHUNK_BYTES)):
        raise ContractError(f"{source}: digests of {len(update.payload.chunks)} chunks, expected {count}")
    _check_mechanism(update, plan, source)


def _check_mechanism(update: Update, plan: Plan, source: str) -> None:
    privacy, mechanism = plan.privacy, update.mechanism
    if mechanism.kind != (asked := _kind(privacy)):
        raise ContractError(f"{source}: the plan asks for {'no noise' if asked == 'none' else f'the mechanism {asked}'}, got "
                            f"{mechanism.kind}")
    if not isinstance(privacy, NoPrivacy) and mechanism.clip_norm != privacy.clip_norm:
        raise ContractError(f"{source}: clipped to {mechanism.clip_norm}, the plan asks for {privacy.clip_norm}")
    if isinstance(privacy, RecordPrivacy) and mechanism.steps != plan.training.local_steps:
        raise ContractError(f"{source}: took {mechanism.steps} steps, the plan asks for {plan.training.local_steps}")
    if isinstance(mechanism, DpFtrl) and mechanism.batch_size > plan.training.batch_size:
        raise ContractError(f"{source}: batches of {mechanism.batch_size} rows, the plan asks for {plan.training.batch_size}")
    all_of_few = isinstance(mechanism, DpSgd | AdaptiveDpSgd) and mechanism.sampling_rate == 1
    if update.rows is not None and not (all_of_few and update.rows <= plan.training.batch_size):
        raise ContractError(f"{source}: declares {update.rows} rows, which only a site that has fewer than a batch does")
    if update.steps is not None and not (plan.training.partial != "refuse" and update.steps < plan.training.local_steps):
        raise ContractError(f"{source}: declares {update.steps} steps, the plan asks for {plan.training.local_steps} and "
                            f"{'no fewer' if plan.training.partial == 'refuse' else 'for fewer only if time is up'}")
    if (update.within_clip is not None) != isinstance(mechanism, AdaptiveDpSgd):
        raise ContractError(f"{source}: the share of gradients within the clip norm is told with adaptive clipping, and only "
                            "then")
    if isinstance(mechanism, AdaptiveDpSgd) and mechanism.count_noise_std != privacy.adaptive.noise_std:
        raise ContractError(f"{source}: counted with noise {mechanism.count_noise_std}, the plan asks for "
                            f"{privacy.adaptive.noise_std}")
    if isinstance(privacy, SitePrivacy) and update.evaluation is not None:
        raise ContractError(f"{source}: under the unit 'site' no score counts may leave")


def _kind(privacy: Privacy) -> str:
    """The kind of mechanism that a plan asks for."""
    match privacy:
        case NoPrivacy():
            return "none"
        case SitePrivacy():
            return "gaussian_update"
        case RecordPrivacy(mechanism="dp_ftrl"):
            return "dp_ftrl"
        case RecordPrivacy(adaptive=None):
            return "dp_sgd"
        case RecordPrivacy():
            return "adaptive_dp_sgd"


def _check_evaluation(counts: ScoreCounts, plan: Plan, source: str) -> None:
    if len(counts.positives) != plan.evaluation.bins:
        raise ContractError(f"{source}: score counts in {len(counts.positives)} bins, the plan asks for "
                            f"{plan.evaluation.bins}")
    if counts.noise_std < plan.evaluation.noise_std:
        raise ContractError(f"{source}: score counts with noise {counts.noise_std}, the plan asks for at least "
                            f"{plan.evaluation.noise_std}")
