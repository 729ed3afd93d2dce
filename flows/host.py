"""The coordinator's process without the command line, for a federation on one machine.

::

    python -m flows.host FOLDER
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from fedround.errors import FedroundError
from flows.service import serve_coordinator
from infra.logs import log_lines


def main(folder: Path) -> int:
    """Serve until SIGTERM or SIGINT; a problem is one sentence in the log and exit code 1."""
    log_lines("%(asctime)s %(name)s %(message)s")
    try:
        serve_coordinator(folder)
    except FedroundError as error:
        logging.getLogger("fedround.coordinator").error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
