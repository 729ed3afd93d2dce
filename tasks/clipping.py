"""The privacy that the next plan asks for, from what the last round's sites reported (`fedround.privacy.clipping`)."""

from __future__ import annotations

from collections.abc import Mapping

from fedround.aggregation.verdict import Verdict
from fedround.privacy.clipping import next_privacy
from fedround.privacy.spec import Privacy, RecordPrivacy
from fedround.records import Answer, Commit
from infra.history import read_answer, read_plan
from tasks.coordinator import Coordinator


def privacy_after(coordinator: Coordinator, commit: Commit) -> Privacy:
    """The privacy that a plan asks for if it continues this commit. The same commit gives the same privacy."""
    agreed = coordinator.federation.privacy
    if commit.agreed is None or not follows_answers(agreed):
        return agreed
    plan = read_plan(coordinator.store, commit, coordinator.identity.key)
    answers = {said.site: read_answer(coordinator.store, plan, said) for said in commit.updates}
    return next_privacy(agreed, commit.agreed.privacy, shares_of(commit, answers))


def follows_answers(privacy: Privacy) -> bool:
    """Whether what the next plan asks for depends on what sites count in this one."""
    return isinstance(privacy, RecordPrivacy) and privacy.count_noise_std is not None


def shares_of(commit: Commit, answers: Mapping[str, Answer]) -> list[float]:
    """What the sites whose updates were used reported of their gradients."""
    told = [answers[said.site].update for said in commit.updates if said.verdict is Verdict.USED]
    return [update.within_clip for update in told if update is not None and update.within_clip is not None]
