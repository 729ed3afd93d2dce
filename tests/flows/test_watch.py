"""What the coordinator's log says when a round fails."""

from __future__ import annotations

import logging

import pytest

from fedround.errors import QuorumError
from flows.watch import a_sentence_is_enough


@pytest.mark.parametrize(("error", "traceback"), [(QuorumError("2 of 3 sites gave an update"), False), (KeyError("x"), True)])
def test_only_surprises_keep_their_traceback(error: Exception, traceback: bool, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tests.watch")
    log.addFilter(a_sentence_is_enough)
    with caplog.at_level("ERROR"):
        try:
            raise error
        except Exception:
            log.exception("the round failed")
    assert "the round failed" in caplog.text
    assert ("Traceback" in caplog.text) is traceback
