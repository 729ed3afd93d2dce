"""Admission: judgements on what a site sent. They touch no store and no network, and believe nothing.

`read_answer` judges the signed document, `check_payload` the tensors beside it. What passes both is an update that the
member made for this plan; whether it is an honest one is the aggregation rule's question.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from fedround import codec
from fedround.errors import ChainError, CodecError, ContractError, SignatureError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, unseal
from fedround.types import (
    Digest,
    DpSgd,
    EvaluationAnswer,
    NoMechanism,
    Purpose,
    RecordPrivacy,
    Refusal,
    RoundPlan,
    ScoreCounts,
    SiteAnswer,
    SiteEntry,
    Update,
)

_BLOCK_BYTES = 1 << 20      # a multiple of 4: no number is split

_ANSWERS: dict[str, type[Update] | type[EvaluationAnswer] | type[Refusal]] = {
    "update": Update, "evaluation": EvaluationAnswer, "refusal": Refusal}
_EXPECTED = {Purpose.TRAIN: "update", Purpose.EVALUATE: "evaluation"}


def read_answer(document: bytes, plan: RoundPlan, plan_digest: Digest, member: SiteEntry) -> SiteAnswer:
    """The answer of `member` to `plan`, if `document` is one.

    Raises SignatureError if the member's key did not sign it, TrustError or ChainError if it speaks for another site or
    answers another plan, ContractError if it is not what the plan asks for. Every message names the site.
    """
    source = f"site '{member.name}' round {plan.round}"
    kind = _kind(document, source)
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


def check_payload(path: Path, update: Update, plan: RoundPlan) -> int:
    """Whether the file holds the tensors that `update` signed for; returns the offset of its data section.

    Reads in blocks: memory does not depend on any size that the site declared.
    Raises TrustError if the bytes are not the signed ones, CodecError if they are not the plan's tensors or not finite.
    """
    source = f"site '{update.site}' round {update.round}"
    size = path.stat().st_size
    if size != update.payload.size_bytes:
        raise TrustError(f"{source}: the payload has {size} bytes, the signed answer says {update.payload.size_bytes}")
    hasher, finite = hashlib.sha256(), True
    with path.open("rb") as file:
        start = file.read(len(codec.header(plan.tensors)))
        hasher.update(start)
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
            finite = finite and _finite(block)
    if hasher.hexdigest() != update.payload.sha256:
        raise TrustError(f"{source}: the payload's SHA-256 is not the one in the signed answer; the bytes were altered")
    offset = codec.check_header(start, size, plan.tensors, source)
    if not finite:
        raise CodecError(f"{source}: has numbers that are not finite")
    return offset


def _kind(document: bytes, source: str) -> str:
    """What the envelope says it is; nothing is believed before `unseal` has checked the signature."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ContractError(f"{source}: {len(document)} bytes; a signed answer has at most {MAX_DOCUMENT_BYTES}")
    try:
        envelope = json.loads(document)
    except (ValueError, RecursionError):
        raise SignatureError(f"{source}: not a signed document") from None
    kind = envelope.get("kind") if isinstance(envelope, dict) else None
    if not isinstance(kind, str) or kind not in _ANSWERS:
        raise SignatureError(f"{source}: expected a signed {', '.join(_ANSWERS)}; got another kind of document")
    return kind


def _check_addressee(answer: SiteAnswer, plan: RoundPlan, plan_digest: Digest, member: SiteEntry, source: str) -> None:
    if answer.site != member.name:
        raise TrustError(f"{source}: its answer is made out in the name of '{answer.site}'")
    if member.name not in plan.cohort:
        raise TrustError(f"{source}: the plan did not invite it")
    for name in ("federation", "run", "round"):
        if getattr(answer, name) != getattr(plan, name):
            raise ChainError(f"{source}: its answer is for {name} '{getattr(answer, name)}', expected "
                             f"'{getattr(plan, name)}'")
    if answer.plan != plan_digest:
        raise ChainError(f"{source}: its answer is to another plan than the one of this round")


def _check_update(update: Update, plan: RoundPlan, source: str) -> None:
    if update.base_model != plan.base_model:
        raise ChainError(f"{source}: trained from another base model than the plan's")
    expected = codec.size_bytes(plan.tensors)
    if update.payload.size_bytes != expected:
        raise ContractError(f"{source}: a payload of {update.payload.size_bytes} bytes, expected {expected}")
    match plan.privacy, update.mechanism:
        case RecordPrivacy() as privacy, DpSgd() as mechanism:
            if mechanism.clip_norm != privacy.clip_norm:
                raise ContractError(f"{source}: clipped to {mechanism.clip_norm}, the plan asks for "
                                    f"{privacy.clip_norm}")
            if mechanism.steps != plan.training.local_steps:
                raise ContractError(f"{source}: took {mechanism.steps} steps, the plan asks for "
                                    f"{plan.training.local_steps}")
        case RecordPrivacy(), other:
            raise ContractError(f"{source}: the plan asks for the mechanism dp_sgd, got {other.kind}")
        case _, other:
            if not isinstance(other, NoMechanism):
                raise ContractError(f"{source}: the plan asks for no noise, got {other.kind}")


def _check_evaluation(counts: ScoreCounts, plan: RoundPlan, source: str) -> None:
    if len(counts.positives) != plan.evaluation.bins:
        raise ContractError(f"{source}: score counts in {len(counts.positives)} bins, the plan asks for "
                            f"{plan.evaluation.bins}")
    if counts.noise_std < plan.evaluation.noise_std:
        raise ContractError(f"{source}: score counts with noise {counts.noise_std}, the plan asks for at least "
                            f"{plan.evaluation.noise_std}")


def _finite(block: bytes) -> bool:
    whole = len(block) - len(block) % 4
    return bool(np.isfinite(np.frombuffer(block[:whole], dtype="<f4")).all())
