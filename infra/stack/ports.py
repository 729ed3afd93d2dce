"""Which ports the servers use."""

from __future__ import annotations

import random
import socket
import time
from itertools import chain

from fedround.errors import SetupError

HOST = "127.0.0.1"
GRPC_OFFSET = 10_000         # SeaweedFS: a part's second port, which some of its parts insist on
_PATIENCE_S = 1.0
_HIGHEST = 65_535 - GRPC_OFFSET

# Below the range from which Linux takes ports for outgoing connections (32768 and up), second ports included: a port
# from there may be taken when the stack starts again.
_RANGE = range(12_000, 32_768 - GRPC_OFFSET)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)     # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(names: tuple[str, ...], wanted: dict[str, int | None], before: dict[str, int]) -> dict[str, int]:
    """A port for every name, each free together with the one `GRPC_OFFSET` above it.

    wanted: ports that the operator asked for. Only these are an error if they are in use.
    before: ports of the last start. They are kept if they are free, so that addresses written down elsewhere stay right.
    Raises SetupError naming the port that is in use, or if there are no free ports at all.
    """
    chosen = {name: _wanted(name, port) for name, port in wanted.items() if port is not None}
    taken = {number for port in chosen.values() for number in (port, port + GRPC_OFFSET)}
    candidates = iter(random.SystemRandom().sample(_RANGE, 2000))
    for name in names:
        if name in chosen:
            continue
        for port in chain([_last(name, before)], candidates):
            pair = {port, port + GRPC_OFFSET}
            if port and not pair & taken and all(map(is_free, pair)):
                chosen[name] = port
                taken |= pair
                break
        else:
            raise SetupError(f"no free port for {name} between {_RANGE.start} and {_RANGE.stop} on this machine")
    return chosen


def _last(name: str, before: dict[str, int]) -> int:
    """The port of the last start, or 0. A server that was killed a moment ago may hold its port a moment longer."""
    port, deadline = before.get(name, 0), time.monotonic() + _PATIENCE_S
    while port and not is_free(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    return port


def _wanted(name: str, port: int) -> int:
    if not 1 <= port <= _HIGHEST:
        raise SetupError(f"port {port} for {name}: choose one from 1 to {_HIGHEST} (the one {GRPC_OFFSET} above may be "
                         "needed too)")
    if not is_free(port):
        raise SetupError(f"port {port} for {name} is in use on this machine: stop what listens there, or choose "
                         "another port")
    return port
