"""What it costs to put an object in the S3 store and to fetch it: wall time, this process's CPU time and its largest memory.

    python -m benchmarks.object_store [MEGABYTES]

The server is the one of `fedround up`, on this machine; every step is a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.settings import S3Credential
from infra.stack.ports import choose
from infra.stack.seaweedfs import BUCKET, PORTS, SeaweedFS, endpoint
from infra.stores import S3Store, parts, publish, s3_upload

CHUNK = 8 << 20


def _cost(work: Callable[[], object]) -> dict[str, float]:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    at_rest = before.ru_maxrss
    work()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "at_rest_mb": at_rest >> 10,
            "largest_mb": after.ru_maxrss >> 10}


def _send_half(store: S3Store, path: Path, sha256: str) -> None:
    """Until the line is cut."""
    sent = itertools.count(1)

    def cut(**_: object) -> None:
        if next(sent) > path.stat().st_size // parts.PART_BYTES // 2:
            raise KeyboardInterrupt

    client = store._clients.patient(3600.0, s3_upload.TRIES)[0]
    client.meta.events.register("before-send.s3.UploadPart", cut)
    try:
        store.put_once("large/two", path, sha256=sha256, journal=path.with_suffix(".upload"))
    except KeyboardInterrupt:
        return
    raise SystemExit("the line was not cut")


def _in_chunks(store: S3Store, size: int) -> None:
    for start in range(0, size, CHUNK):
        hashlib.sha256(store.get_range("large/one", start, CHUNK)).digest()


def _step(what: str, address: str, access_key: str, secret_key: str, path: str, sha256: str) -> None:
    store, file = S3Store(address, BUCKET, access_key, secret_key), Path(path)
    store.head("warm")
    print(json.dumps(_cost({
        "publish a file": lambda: publish(store, "large/one", file, sha256=sha256),
        "publish it again": lambda: publish(store, "large/one", file, sha256=sha256),
        "send half, and be cut": lambda: _send_half(store, file, sha256),
        "send what is missing": lambda: publish(store, "large/two", file, sha256=sha256, journal=file.with_suffix(".upload")),
        "get": lambda: store.get("large/one"),
        "get in chunks of 8 MiB": lambda: _in_chunks(store, file.stat().st_size)}[what])))


def main(megabytes: int) -> None:
    """Print one line for each step."""
    with tempfile.TemporaryDirectory() as folder:
        path, hasher = Path(folder) / "body", hashlib.sha256()
        with path.open("wb") as file:
            for number in range(megabytes):
                block = hashlib.sha256(b"%d" % number).digest() * (1_000_000 // 32)
                hasher.update(block)
                file.write(block)
        server, ports = SeaweedFS(Path(folder) / "home"), choose(PORTS, {}, {})
        server.spawn(ports)
        try:
            server.wait_ready(ports["s3"])
            _measure(endpoint(ports["s3"]), server.coordinator_credential(), str(path), hasher.hexdigest())
        finally:
            server.ask_to_stop()
            server.wait_stopped(ports)


def _measure(address: str, credential: S3Credential, path: str, sha256: str) -> None:
    for what in ("publish a file", "publish it again", "send half, and be cut", "send what is missing", "get",
                 "get in chunks of 8 MiB"):
        done = subprocess.run([sys.executable, "-m", "benchmarks.object_store", what, address, credential.access_key,
                               credential.secret_key, path, sha256], check=True, stdout=subprocess.PIPE)
        said: dict[str, Any] = json.loads(done.stdout)
        print(f"{what:24}", "  ".join(f"{name} {value}" for name, value in said.items()))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _step(*sys.argv[1:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 1000)
