"""The least that a round of a large model can cost: what no round can leave out, in the same processes (`large_model`)."""

from __future__ import annotations

import base64
import hashlib
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fedround import codec, optimizers
from fedround.aggregation.engine import ArrayNumbers, Row, aggregate
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.codec import Schema
from fedround.learning.recipe import load_recipe
from fedround.learning.spec import FedAvg
from infra.settings import CoordinatorSettings, S3Credential, load_toml

INPUTS = 1000
CHUNK_BYTES = 8 << 20


def used() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class Parts:
    """CPU seconds of the parts of one piece of work."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._at = used()

    def done(self, name: str) -> None:
        """What was used since the last call belongs to `name`."""
        now = used()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._at
        self._at = now


class Site(Protocol):
    """A site's process, seen from the one that measures."""

    def tell(self, order: dict[str, Any]) -> None:
        """Begin; `hear` waits for the end."""

    def hear(self) -> dict[str, Any]:
        """What the process says."""


class Floors:
    """The least that a round can do, again and again."""

    def __init__(self, folder: Path, sites: Sequence[Site], unit: str):
        settings = load_toml(CoordinatorSettings, folder / "coordinator.toml")
        self._client, self._bucket = raw_client(settings.store, load_toml(S3Credential, folder / "keys" / "s3.toml"))
        self._sites, self._unit, self._turn, self.parts = sites, unit, 0, dict[str, float]()
        recipe = load_recipe(folder / settings.recipe, hashlib.sha256((folder / settings.recipe).read_bytes()).hexdigest())
        self._model = {name: tensor.detach().numpy().copy() for name, tensor in recipe.build_model().named_parameters()}
        self._base = "models/floor-0"
        self._send(self._base, codec.encode(self._model))

    def __call__(self) -> float:
        """Returns the sites' CPU seconds."""
        self._turn += 1
        parts, schema = Parts(), codec.schema_of(self._model)
        for site in self._sites:
            site.tell({"do": "floor", "base": self._base, "unit": self._unit, "turn": self._turn})
        heard = [site.hear() for site in self._sites]
        parts.done("wait")
        size, rows = codec.coordinates(schema), []
        for number, said in enumerate(heard):
            update_D = np.empty(size, np.float32)
            file = memoryview(update_D).cast("B")
            head, hasher, at = len(codec.header(schema)), hashlib.sha256(), 0
            for start in range(0, codec.size_bytes(schema), CHUNK_BYTES):
                chunk = self._client.get_object(Bucket=self._bucket, Key=said["key"],
                                                Range=f"bytes={start}-{start + CHUNK_BYTES - 1}")["Body"].read()
                hasher.update(chunk)
                data = memoryview(chunk)[head if start == 0 else 0:]
                file[at:at + len(data)] = data
                at += len(data)
            if hasher.hexdigest() != said["sha256"]:
                raise SystemExit("other bytes came back")
            rows.append(Row(f"site-{number:02d}", 1.0, ArrayNumbers(update_D)))
        parts.done("collect")
        done = aggregate(rows, Aggregation(rule=WeightedMean()), size, seed=bytes(32))
        parts.done("aggregate")
        self._model, _ = optimizers.step(self._model, None, done.delta_D, FedAvg(learning_rate=1.0, momentum=0.0))
        self._base = f"models/floor-{self._turn}"
        self._send(self._base, b"".join([codec.header(schema), *(memoryview(np.ascontiguousarray(self._model[spec.name]))
                                                                 .cast("B") for spec in schema)]))
        parts.done("publish")
        self.parts = parts.spent
        return sum(float(said["cpu_s"]) for said in heard)

    def _send(self, key: str, body: bytes) -> None:
        send(self._client, self._bucket, key, body, hashlib.sha256(body).digest())


def raw_client(store: Any, credential: S3Credential) -> tuple[Any, str]:
    """The S3 client with nothing switched on that hashes a body twice."""
    from botocore.config import Config
    from botocore.session import Session

    client = Session().create_client(
        "s3", region_name=store.region, endpoint_url=store.endpoint, aws_access_key_id=credential.access_key,
        aws_secret_access_key=credential.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path", "payload_signing_enabled": False}))
    return client, store.bucket


def send(client: Any, bucket: str, key: str, body: Any, sha256: bytes) -> None:
    """One request; the server checks the hash."""
    client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumSHA256=base64.b64encode(sha256).decode())


class FloorOfASite:
    """The least that a site can do for a round."""

    def __init__(self, folder: Path, client: Any, bucket: str, name: str, recipe: Any):
        self._path, self._client, self._bucket, self._name = folder / "floor", client, bucket, name
        self._recipe, self._model, self._schema = recipe, recipe.build_model(), Schema()

    def __call__(self, base: str, unit: str, turn: int) -> dict[str, Any]:
        """Read the model, take a step, send an update."""
        import torch

        from fedround.privacy.noise import GRID, stream

        parts = Parts()
        body = self._client.get_object(Bucket=self._bucket, Key=base)["Body"].read()
        hashlib.sha256(body).hexdigest()
        schema = tuple(sorted(codec.schema_of({name: tensor.detach().numpy() for name, tensor in
                                               self._model.named_parameters()}), key=lambda spec: spec.name))
        base_D = np.frombuffer(body, "<f4", offset=len(codec.header(schema)))
        parts.done("read")
        found = codec.unflatten(base_D.copy(), schema)
        parameters = {name: torch.from_numpy(array).requires_grad_() for name, array in found.items()}
        features = torch.zeros(8, INPUTS)
        features[:, 0] = torch.linspace(-1, 1, 8)
        loss = torch.func.functional_call(self._model, parameters, (features,)).square().sum()
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        delta_D = np.concatenate([gradients[spec.name].numpy().ravel() for spec in schema])
        delta_D *= np.float32(-0.1 / 8)
        parts.done("train")
        if unit == "site":
            norm = float(np.sqrt(np.vdot(delta_D, delta_D)))
            cells_D = stream(bytes(range(32)), str(turn).encode()).normal(GRID, len(delta_D))
            for start in range(0, len(delta_D), 1 << 16):
                block = slice(start, start + (1 << 16))
                cells_D[block] += np.trunc(delta_D[block] * (GRID * min(1.0, 1.0 / max(norm, 1e-12))))
                delta_D[block] = cells_D[block] * (0.1 / GRID)
        parts.done("clip and noise")
        if not np.isfinite(delta_D).all():
            raise SystemExit("not finite")
        payload = b"".join([codec.header(schema), memoryview(delta_D).cast("B")])
        digest = hashlib.sha256(payload).digest()
        parts.done("encode and hash")
        self._path.write_bytes(payload)
        key = f"sites/{self._name}/floor-{turn}"
        with self._path.open("rb") as file:
            send(self._client, self._bucket, key, file, digest)
        parts.done("write and send")
        return {"key": key, "sha256": digest.hex(), "parts": parts.spent}
