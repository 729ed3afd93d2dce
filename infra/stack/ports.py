"""Which ports the servers use."""

from __future__ import annotations

import random
import socket

from fedround.errors import SetupError

HOST = "127.0.0.1"
GRPC_OFFSET = 10_000         # SeaweedFS: a part's second port, which some of its parts insist on

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

    wanted: ports that the operator asked for; only these are an error when taken.
    before: ports of the last start, kept where they are free, so that addresses written down elsewhere stay right.
    Raises SetupError naming the port that is in use, or if there are no free ports at all.
    """
    chosen: dict[str, int] = {}
    candidates = iter(random.SystemRandom().sample(_RANGE, 2000))
    for name in names:
        port = wanted.get(name)
        if port is not None:
            if not 1 <= port <= 65_535:
                raise SetupError(f"port {port} for {name}: a port is a number from 1 to 65535")
            if not is_free(port):
                raise SetupError(f"port {port} for {name} is in use on this machine: stop what listens there, or "
                                 "choose another port")
        else:
            last = before.get(name)
            port = last if last is not None and _pair_is_free(last) else next(filter(_pair_is_free, candidates), None)
        if port is None:
            raise SetupError(f"no free port for {name} between {_RANGE.start} and {_RANGE.stop} on this machine")
        chosen[name] = port
    return chosen


def _pair_is_free(port: int) -> bool:
    return is_free(port) and port + GRPC_OFFSET <= 65_535 and is_free(port + GRPC_OFFSET)
