"""Log lines of our own processes: one line for each, whatever somebody else's words in it hold."""

from __future__ import annotations

import copy
import logging

from fedround.spoken import one_line, visible


class OneLine(logging.Formatter):
    """A message is one line, so that nobody writes a second one into our log; a traceback is what it is, with a sign for
    every letter that a screen obeys.
    """

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter`."""
        plain = copy.copy(record)
        plain.msg, plain.args = one_line(record.getMessage()), None
        return visible(super().format(plain))


def log_lines(form: str, handler: logging.Handler | None = None, level: int = logging.INFO) -> None:
    """Log what we say from `level` on, and what libraries say from warnings on; to standard error without a handler."""
    handler = logging.StreamHandler() if handler is None else handler
    handler.setFormatter(OneLine(form, datefmt=None if "asctime" in form else "[%X]"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fedround").setLevel(level)
