"""Log lines of our own processes: one line for each message, even if it contains text from somebody else."""

from __future__ import annotations

import copy
import json
import logging
import logging.handlers
import os
import textwrap
from datetime import UTC, datetime
from typing import Any

from fedround.errors import SetupError
from fedround.spoken import one_line, visible

LOG_FORM, LOG_FILE = "FEDROUND_LOG", "FEDROUND_LOG_FILE"
"""The variables with which an operator chooses: `json` instead of text, and a file instead of standard error."""

_ROTATE_BYTES, _KEPT_FILES = 10 << 20, 5


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


class JsonLines(OneLine):
    """One JSON object a line: time (UTC), level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter`."""
        said = {"time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname, "logger": record.name, "message": one_line(record.getMessage())}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def chosen_handler(otherwise: logging.Handler) -> logging.Handler:
    """Where the operator wants log lines. FEDROUND_LOG_FILE names a file: at 10 MB a new one is begun, and five are kept.

    Raises SetupError if it cannot be written.
    """
    if not (path := os.environ.get(LOG_FILE)):
        return logging.StreamHandler() if _as_json() else otherwise
    try:
        return logging.handlers.RotatingFileHandler(path, maxBytes=_ROTATE_BYTES, backupCount=_KEPT_FILES)
    except OSError as error:
        raise SetupError(f"cannot write the log {path} ({error.strerror}): mend {LOG_FILE}") from None


def _as_json() -> bool:
    return os.environ.get(LOG_FORM) == "json"


def log_lines(form: str, handler: logging.Handler | None = None, level: int = logging.INFO) -> None:
    """Log our own messages from `level` on, and those of libraries from warnings on. Without a handler: to standard error."""
    handler = logging.StreamHandler() if handler is None else handler
    handler.setFormatter(JsonLines() if _as_json() else OneLine(form, datefmt=None if "asctime" in form else "[%X]"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fedround").setLevel(level)
