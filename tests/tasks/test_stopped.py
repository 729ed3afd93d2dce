"""What a round that somebody cancelled says of its cost."""

from __future__ import annotations

from tasks.progress import Progress, stopped

COHORT = {"north", "east", "south"}


def said(waiting: tuple[str, ...], stage: str = "train") -> str:
    return stopped(Progress(run="spring", round=3, stage=stage, waiting=waiting), COHORT)


def test_it_names_who_was_charged_and_who_may_have_been():
    words = said(("north",))
    assert "round 3, which is not committed: east, south answered, and whoever trained was charged" in words
    assert "north did not, and may have been charged" in words
    assert "nobody is charged twice" in words
    assert "nobody had answered; east, north, south did not" in said(("north", "east", "south"))


def test_before_anybody_was_asked_and_after_the_commit():
    assert "nothing was charged" in stopped(Progress(run="spring", round=0, stage="plan"), ())
    assert said((), stage="evaluate") == "stopped by request after round 3 was committed"


def test_a_thousand_sites_are_no_state_message():
    many = tuple(f"site-{n}" for n in range(1000))
    assert len(stopped(Progress(run="spring", round=3, stage="train", waiting=many), many)) < 600
