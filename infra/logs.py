"""Log lines of our own processes: one line for each message, even if it contains text from somebody else."""

from __future__ import annotations

import copy
import logging
import textwrap
from typing import Any

from fedround.spoken import one_line, visible


class OneLine(logging.Formatter):
    """A message is one line, so foreign text cannot add a second line to our log.

    A traceback keeps its lines, and each is moved to the right, so that none looks like a message. Every control character is
    replaced by a sign.
    """

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter`."""
        plain = copy.copy(record)
        plain.msg, plain.args = one_line(record.getMessage()), None
        return visible(super().format(plain))

    def formatException(self, ei: Any) -> str:
        """As `logging.Formatter`. An error may quote what somebody else has written."""
        return textwrap.indent(super().formatException(ei), "    ", lambda line: True)


def log_lines(form: str, handler: logging.Handler | None = None, level: int = logging.INFO) -> None:
    """Log our own messages from `level` on, and those of libraries from warnings on. Without a handler: to standard error."""
    handler = logging.StreamHandler() if handler is None else handler
    handler.setFormatter(OneLine(form, datefmt=None if "asctime" in form else "[%X]"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fedround").setLevel(level)
