"""A bundle, its archive, and what is read of its parts."""

from __future__ import annotations

from collections.abc import Mapping

from fedround import archive, bundle
from fedround.bundle import Bundle, Input, Manifest
from fedround.learning.tasks import Classify
from fedround.signing import digest
from tasks.bundle import certificate_of, evidence_of
from tests.fuzz.parser import KEY, Parser

_EVIDENCE = (b'{"privacy":{"unit":"none"},"epsilon":null,"float32":{"size_bytes":10,"p95_ms":0.1,"public":null},'
             b'"int8":{"size_bytes":5,"p95_ms":0.1,"public":null},"difference":1e-7,"checked_rows":100}')
_CERTIFICATE = (b'{"run":"spring","round":2,"model":"%b","commit":"%b","coordinator":"%b","log":1,"signatures":7,"hashes":9,'
                b'"sites":["lund"],"rules":["mean"],"epsilon":2.5,"unseen":[],"tool_version":"0.1.0"}'
                % (b"2" * 64, b"3" * 64, KEY.key.encode()))
_FILES = {"recipe.py": b"NAME = 'r'\n", bundle.MEASURED: _EVIDENCE, bundle.CERTIFICATE: _CERTIFICATE}
_MANIFEST = Manifest(
    federation="banks", run="spring", round=2, commit="3" * 64, model="2" * 64, recipe="r", recipe_digest=digest(b"r"),
    task=Classify(classes=2), inputs=(Input(name="features", dtype="float32", shape=(4,)),), columns=(),
    parts=bundle.described(_FILES), tool_version="0.1.0")


def _with(name: str, data: bytes) -> Bundle:
    return Bundle(_MANIFEST, {**_FILES, name: data})


BUNDLES: Mapping[str, Parser] = {
    "archive": Parser(lambda data: archive.unpack(data, "it"), archive.pack(_FILES)),
    "bundle": Parser(lambda data: bundle.read_bundle(data, KEY.key, "it"), bundle.sealed(_MANIFEST, _FILES, KEY)),
    "measured": Parser(lambda data: evidence_of(_with(bundle.MEASURED, data)), _EVIDENCE),
    "certificate": Parser(lambda data: certificate_of(_with(bundle.CERTIFICATE, data)), _CERTIFICATE),
}
