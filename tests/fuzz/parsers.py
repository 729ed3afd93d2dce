"""Everything that reads bytes which somebody else may have written, each with an honest input.

A parser takes bytes; what it returns is of no interest, unless it is a reader of signed documents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fedround import codec, locked
from fedround.compression import wire
from fedround.compression.spec import CountSketch, Quantised, TopK
from fedround.errors import SetupError
from fedround.federation import Federation
from fedround.federation_log import Rotation
from fedround.learning import start
from fedround.privacy import ledger
from fedround.privacy.ledger import Charge
from fedround.privacy.spec import GaussianCounts
from fedround.signing import Identity, unseal
from fedround.values import parse
from infra.settings import load_toml
from site_workers import seen
from site_workers.policy import SitePolicy
from site_workers.round import SiteRequest
from tests.fuzz.of_bundles import BUNDLES
from tests.fuzz.of_sites import SITES
from tests.fuzz.of_stores import STORES
from tests.fuzz.of_sums import SUMS
from tests.fuzz.parser import FEDERATION, KEY, ROTATION, Parser, as_file
from validation.contract import load_contract

_WORDS = b"four quite long words"
_RNG = np.random.default_rng(7)
_TENSORS = {"layer.bias": _RNG.normal(size=3).astype(np.float32), "layer.weight": _RNG.normal(size=(3, 4)).astype(np.float32)}
_SCHEMA = codec.schema_of(_TENSORS)
_VECTOR = _RNG.normal(size=700).astype(np.float32)
_COMPRESSIONS = {"quantised": Quantised(), "top_k": TopK(share=0.05), "count_sketch": CountSketch(size=0.3, share=0.05)}
_CONTRACT = (b'{"name":"tiny","checks":[{"id":"label","type":"expect_column_values_to_be_in_set",'
             b'"kwargs":{"column":"y","value_set":[0,1]}}]}')
_POLICY = b'recipes = []\ncontracts = []\nmax_epsilon = 8.0\ndelta_dp = 1e-5\nmin_rows = 50\n[limits]\nthreads = 1\n'


def _ledger() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        book = ledger.create(path, "people")
        for number in (1, 2):
            book = ledger.charge(book, Charge(
                federation="banks", run="spring", round=number, purpose="train", plan=f"{number}" * 64, delta_dp=1e-5,
                mechanisms=(GaussianCounts(noise_std=5.0),), utc="2026-01-01T00:00:00Z"), 8.0)
        return path.read_bytes()


def _seen() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        seen.write(Path(folder), seen.Seen(runs={"spring": seen.SeenCommit(round=1, digest="a" * 64)}))
        return (Path(folder) / "seen.json").read_bytes()


def _expand(how: Quantised | TopK | CountSketch, data: bytes) -> list[object]:
    form = wire.form(how, len(_VECTOR))
    offset = codec.check_header(data, len(data), form, "it")

    def read(begin: int, count: int) -> bytes:
        return data[offset + begin:offset + begin + count]

    return list(wire.expand(read, how, len(_VECTOR), b"s" * 32, "it"))


def _key() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        KEY.save(Path(folder) / "identity.pem")
        return (Path(folder) / "identity.pem").read_bytes()


def _unlock(data: bytes) -> object:
    try:
        return locked.unlock(data, _WORDS)
    except ValueError:              # its one error, which `Identity.load` puts into words
        raise SetupError("no key") from None


PARSERS: Mapping[str, Parser] = {
    "signed": Parser(lambda data: unseal(data, Rotation, KEY.key, "it"), ROTATION),
    "federation.toml": Parser(partial(as_file, partial(load_toml, Federation), "federation.toml"), FEDERATION),
    "policy.toml": Parser(partial(as_file, partial(load_toml, SitePolicy), "policy.toml"), _POLICY),
    "request": Parser(lambda data: parse(SiteRequest, data, "it"),
                      b'{"run":"spring","round":1,"attempt":1,"purpose":"train"}'),
    "contract": Parser(partial(as_file, load_contract, "contract.json"), _CONTRACT),
    "ledger": Parser(partial(as_file, ledger.read, "ledger.jsonl"), _ledger()),
    "seen": Parser(partial(as_file, lambda path: seen.read(path.parent), "seen.json"), _seen()),
    "tensors": Parser(lambda data: codec.decode(data, _SCHEMA, "it"), codec.encode(_TENSORS)),
    "start": Parser(partial(as_file, start.canonical, "start.safetensors"), codec.encode(_TENSORS)),
    "key": Parser(partial(as_file, Identity.load, "identity.pem"), _key()),
    "locked key": Parser(_unlock, locked.lock(bytes(32), _WORDS)),
    **{name: Parser(partial(_expand, how), wire.compress(_VECTOR, how, _RNG.random, b"s" * 32))
       for name, how in _COMPRESSIONS.items()},
    **BUNDLES, **SITES, **STORES, **SUMS,
}
