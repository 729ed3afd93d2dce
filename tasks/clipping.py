"""The privacy that the next plan asks for: the federation's, with the clip norm that the last round's sites call for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from fedround import layout
from fedround.aggregation.verdict import Verdict
from fedround.privacy.clipping import next_clip_norm
from fedround.privacy.spec import Privacy, RecordPrivacy
from fedround.types import Purpose, RoundPlan, Update
from fedround.values import parse
from infra.history import Committed, read_named, read_plan
from tasks.coordinator import Coordinator


def next_privacy(coordinator: Coordinator, head: Committed) -> Privacy:
    """What the round after `head` asks for. Composed again, it is the same."""
    agreed = coordinator.federation.privacy
    if head.commit.round == 0 or not _is_adaptive(agreed):
        return agreed
    plan = read_plan(coordinator.store, head.commit, coordinator.identity.key)
    return following(agreed, plan.privacy, _answers(coordinator, plan, head))


def following(agreed: Privacy, last: Privacy, used: Iterable[Update]) -> Privacy:
    """What `agreed` asks for after a round that asked for `last` and used these updates: with its next clip norm.

    A function of signed documents, which an auditor computes again. A federation file with other privacy than the last
    plan's begins anew, with its own clip norm.
    """
    if not isinstance(agreed, RecordPrivacy) or agreed.adaptive is None or not isinstance(last, RecordPrivacy):
        return agreed
    if last.model_copy(update={"clip_norm": agreed.clip_norm}) != agreed:
        return agreed
    shares = [update.within_clip for update in used if update.within_clip is not None]
    return agreed.model_copy(update={"clip_norm": next_clip_norm(last.clip_norm, shares, agreed.adaptive)})


def _is_adaptive(privacy: Privacy) -> bool:
    return isinstance(privacy, RecordPrivacy) and privacy.adaptive is not None


def _answers(coordinator: Coordinator, plan: RoundPlan, head: Committed) -> Iterator[Update]:
    """What the sites whose updates were used said: the answers that our own commit names by digest."""
    for update in head.commit.updates:
        if update.verdict is not Verdict.USED:
            continue
        source = f"answer of site '{update.site}' in round {plan.round}"
        key = layout.answer(update.site, plan.run, plan.round, plan.attempt, Purpose.TRAIN)
        document = read_named(coordinator.store, key, update.answer, source, by="commit")
        yield parse(Update, json.loads(document)["body"], source)
