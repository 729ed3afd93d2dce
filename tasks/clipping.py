"""The privacy that the next plan asks for: the federation's, with the clip norm that the last round's sites call for."""

from __future__ import annotations

import json

from fedround import layout
from fedround.aggregation.verdict import Verdict
from fedround.errors import TrustError
from fedround.privacy.clipping import next_clip_norm
from fedround.privacy.spec import Privacy, RecordPrivacy
from fedround.signing import MAX_DOCUMENT_BYTES, digest
from fedround.types import Purpose, RoundPlan, Update
from fedround.values import parse
from tasks.coordinator import Coordinator
from tasks.history import Committed, read_plan


def next_privacy(coordinator: Coordinator, head: Committed) -> Privacy:
    """What the round after `head` asks for. Follows from signed documents only: composed again, it is the same.

    A federation file with other privacy than the last plan's begins anew, with its own clip norm.
    """
    agreed = coordinator.federation.privacy
    if not isinstance(agreed, RecordPrivacy) or agreed.adaptive is None or head.commit.round == 0:
        return agreed
    plan, _ = read_plan(coordinator.store, head.commit, coordinator.identity.key)
    last = plan.privacy
    if not isinstance(last, RecordPrivacy) or last.model_copy(update={"clip_norm": agreed.clip_norm}) != agreed:
        return agreed
    shares = _shares(coordinator, plan, head)
    return agreed.model_copy(update={"clip_norm": next_clip_norm(last.clip_norm, shares, agreed.adaptive)})


def _shares(coordinator: Coordinator, plan: RoundPlan, head: Committed) -> list[float]:
    """What the sites whose updates were used said, from the answers that our own commit names by digest."""
    shares = []
    for update in head.commit.updates:
        if update.verdict is not Verdict.USED:
            continue
        source = f"answer of site '{update.site}' in round {plan.round}"
        key = layout.answer(update.site, plan.run, plan.round, plan.attempt, Purpose.TRAIN)
        document = coordinator.store.get(key, max_bytes=MAX_DOCUMENT_BYTES)
        if digest(document) != update.answer:
            raise TrustError(f"{source}: is not the one that the commit names")
        said = parse(Update, json.loads(document)["body"], source).within_clip
        if said is not None:
            shares.append(said)
    return shares
