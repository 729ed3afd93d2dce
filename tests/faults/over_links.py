"""The table's rows of bad links: one S3 server, one round over each of them."""

from __future__ import annotations

import faulthandler
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.stack.ports import choose
from infra.stack.seaweedfs import PORTS, SeaweedFS, endpoint
from tests import small_federation
from tests.faults.links import LINKS, Link, always, play
from tests.faults.tried import Tried
from tests.faulty.proxy import UNDISTURBED, in_front_of

_HANGS_S = 600


def tried_links(seed: int) -> Iterator[Tried]:
    """Each link once. A step that hangs ends all of it, with the stack of whoever waits."""
    with tempfile.TemporaryDirectory(prefix="fedround-links-") as folder:
        root = Path(folder)
        made = small_federation.make(root / "made")
        server, ports = SeaweedFS(root / "s3"), choose(PORTS, {}, {})
        server.spawn(ports)
        try:
            server.wait_ready(ports["s3"])
            with in_front_of(endpoint(ports["s3"])) as proxy:
                key = server.coordinator_credential()
                good = play(made, root / "good", proxy, key, Link("good", always(UNDISTURBED)), seed)
                for number, link in enumerate(LINKS):
                    faulthandler.dump_traceback_later(_HANGS_S, exit=True)
                    try:
                        found = play(made, root / str(number), proxy, key, link, seed)
                    except AssertionError as error:
                        wrong = str(error)
                    else:
                        wrong = found.wrong or ("" if found.models == good.models else "another model")
                    yield Tried(link.name, 1, 1, (wrong,) if wrong else ())
        finally:
            faulthandler.cancel_dump_traceback_later()
            server.ask_to_stop()
            server.wait_stopped(ports)
