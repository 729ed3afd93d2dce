"""Foreign words in our own log: they never begin a line."""

from __future__ import annotations

import logging
import subprocess
import sys

from infra.logs import OneLine

FORGED = "spring\n2026-01-01 00:00:00,000 fedround.site forged\x1b[2J"


def test_neither_a_flow_runs_name_nor_an_error_that_quotes_it_begins_a_line():
    try:
        raise ValueError(FORGED)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "run %s", (FORGED,), sys.exc_info())
    lines = OneLine("%(name)s %(message)s").format(record).splitlines()
    assert lines[0].startswith("x run spring 2026-01-01")
    assert all(line.startswith("    ") for line in lines[1:])
    assert "\x1b" not in "".join(lines)


def test_gto_leaves_the_logging_of_the_process_alone():
    """At its import it closed every handler, and one of a library closed standard error with it."""
    said = subprocess.run([sys.executable, "-c", """
import logging
from infra.stages import _load_gto

class Handler(logging.StreamHandler):
    def close(self):
        print("closed")

kept = Handler()
logging.getLogger().addHandler(kept)
_load_gto()
import gto.api, gto.registry, logging.config
print(kept in [one() for one in logging._handlerList], logging.getLogger("gto").handlers)
print(logging.config.dictConfig.__module__, flush=True)
__import__("os")._exit(0)
"""], capture_output=True, text=True, check=True).stdout
    assert said == "True []\nlogging.config\n"
