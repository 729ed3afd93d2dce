"""What follows a commit or a finding: reports, versions, pages, cleaning up the disk.

The round is made without them. So a step that fails here is reported (in the log, and to whoever watches), and stops nothing.
What is left undone is done by the next round before it begins (`tasks.catch_up`), or by 'fedround models rebuild'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedround.errors import FedroundError

_logger = logging.getLogger("fedround.coordinator")


def _log(problem: str) -> None:
    _logger.warning("%s", problem)


@contextmanager
def afterwards(what: str, tell: Callable[[str], None] = _log) -> Iterator[None]:
    """Report whatever is raised inside in one sentence, and stop it here. A cancellation is no failure, and is passed on."""
    try:
        yield
    except Exception as error:
        said = str(error) if isinstance(error, FedroundError) else f"{type(error).__name__}: {str(error)[:200]}"
        _logger.debug("%s", what, exc_info=error)
        tell(f"{what} could not be made, and the round counts without it: {said}. The next round of the run tries again, or "
             "'fedround models rebuild'")
