"""The privacy that the next plan asks for, from what the last round's sites reported (`fedround.privacy.clipping`)."""

from __future__ import annotations

from fedround.aggregation.verdict import Verdict
from fedround.privacy.clipping import next_privacy
from fedround.privacy.spec import Privacy
from fedround.records import Commit


def privacy_after(agreed: Privacy, commit: Commit) -> Privacy:
    """The privacy that a plan asks for if it continues this commit. The same commit gives the same privacy: no site can
    change it, or prevent it, after it has answered.
    """
    if commit.agreed is None:
        return agreed
    shares = [said.within_clip for said in commit.updates if said.verdict is Verdict.USED and said.within_clip is not None]
    return next_privacy(agreed, commit.agreed.privacy, shares)
