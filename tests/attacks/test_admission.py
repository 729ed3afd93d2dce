"""What a hostile site, or whoever stands between it and the bucket, may send; each is refused with its own reason."""

import json
import pickle
import struct
import sys
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
import rfc8785

from fedround import codec
from fedround.aggregation.rules import WeightedMean
from fedround.aggregation.spec import Aggregation
from fedround.errors import ChainError, CodecError, ContractError, SignatureError, TrustError
from fedround.federation import SiteEntry
from fedround.learning.spec import FedAvg, LocalTraining, Parts
from fedround.learning.tasks import Classify
from fedround.privacy.spec import (
    AdaptiveClipping,
    DpFtrl,
    DpSgd,
    GaussianUpdate,
    NoMechanism,
    RecordPrivacy,
    SitePrivacy,
)
from fedround.records import Answer, LogHead, Plan, Train, Update
from fedround.sightings import sign_sighting
from fedround.signing import MAX_DOCUMENT_BYTES, Identity, digest, seal
from fedround.statistics import LocalEvaluation, Release, Scores
from fedround.terms import Agreed
from fedround.values import Payload, canonical
from infra.stores import MemoryStore
from tasks import spool
from tests.small_federation import changed
from validation.payloads import intake_of
from validation.updates import read_answer

LUND_KEY, OSLO_KEY = Identity.generate(), Identity.generate()
LUND = SiteEntry(name="lund", key=LUND_KEY.key, weight=1.0)
OSLO = SiteEntry(name="oslo", key=OSLO_KEY.key, weight=1.0)
TENSORS = {"w1": np.arange(6, dtype=np.float32).reshape(2, 3), "w2": np.ones((3, 2), dtype=np.float32)}
SCHEMA = codec.schema_of(TENSORS)
BODY = codec.encode(TENSORS)
HEADER = codec.header(SCHEMA)


def a_plan(number: int, base_model: str = "3" * 64) -> Plan:
    return Plan(
        federation="banks", federation_digest="1" * 64, log=LogHead(number=1, digest="8" * 64), run="spring", round=number,
        parent="2" * 64, base_model=base_model, tensors=SCHEMA, cohort=("lund", "oslo"), quorum=1, deadline_s=60,
        tool_version="0.1.0", task=Classify(), asks=Train(statistics=(SCORES,)), agreed=Agreed(
            recipe="credit", recipe_digest="4" * 64, contract_digest="5" * 64, training=LocalTraining(local_steps=10),
            privacy=RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20), evaluation=LocalEvaluation(bins=3),
            aggregation=Aggregation(rule=WeightedMean()), optimizer=FedAvg(), compression=None, parts=Parts(), personal=None))


SCORES = Scores(noise_std=10.0, bins=3)
PLAN = a_plan(3)
PLAN_DIGEST = digest(canonical(PLAN))


def signed_for(body: bytes, site: str = "lund", plan: Plan = PLAN, **changes) -> Answer:
    """What a site says of `body`: a liar signs as well as anybody."""
    of_update = {key: changes.pop(key) for key in Update.model_fields.keys() & changes.keys()}
    update = Update(**({
        "base_model": plan.base_model, "schema_digest": codec.schema_digest(SCHEMA), "payload": codec.payload_of(body),
        "mechanism": DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.3, steps=10)} | of_update))
    return Answer(**({
        "federation": "banks", "run": "spring", "round": plan.round, "attempt": plan.attempt, "site": site,
        "asked": plan.asks.kind, "plan": digest(canonical(plan)), "log": plan.log, "tool_version": "0.1.0",
        "sighting": sign_sighting(plan, digest(canonical(plan)), site, LUND_KEY), "update": update,
        "charges": 1, "ledger_head": "6" * 64} | changes))


@contextmanager
def under_a_megabyte():
    """Whatever is declared, less than a megabyte is allocated."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# -- the signed answer -------------------------------------------------------------------------------------------------


def read(document: bytes, plan: Plan = PLAN, member: SiteEntry = LUND):
    return read_answer(document, plan, digest(canonical(plan)), member)


HONEST = seal(signed_for(BODY), LUND_KEY)


def test_the_honest_answer_passes():
    """Without this, everything below could be refused for a reason of the test's own."""
    assert read(HONEST) == signed_for(BODY)


@pytest.mark.parametrize("where", range(0, len(HONEST), 7))
def test_a_flipped_byte_in_the_answer(where):
    altered = bytearray(HONEST)
    altered[where] ^= 1
    with pytest.raises(SignatureError, match=r"altered|not a signed document|another kind|another key|not match"):
        read(bytes(altered))


def test_a_wrong_key():
    with pytest.raises(SignatureError, match="signed by another key"):
        read(seal(signed_for(BODY), Identity.generate()))


def test_the_coordinator_is_not_a_site_either():
    """The key is the enrolled one, whoever else is trusted for other things."""
    document = json.loads(HONEST)
    document["key"] = OSLO_KEY.key
    with pytest.raises(SignatureError, match="signed by another key"):
        read(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())


def test_the_answer_of_one_site_put_under_the_name_of_another():
    with pytest.raises(SignatureError, match=r"site 'oslo'.*signed by another key"):
        read(HONEST, member=OSLO)


def test_a_member_who_speaks_for_another():
    with pytest.raises(TrustError, match=r"site 'oslo'.*in the name of 'lund'"):
        read(seal(signed_for(BODY, site="lund"), OSLO_KEY), member=OSLO)


def test_the_answer_to_round_3_replayed_in_round_4():
    with pytest.raises(ChainError, match="for round '3', expected '4'"):
        read(HONEST, plan=a_plan(4))


def test_the_answer_to_a_withdrawn_plan_of_the_same_round():
    with pytest.raises(ChainError, match="another plan"):
        read(HONEST, plan=a_plan(3, base_model="7" * 64))


def test_a_delta_against_another_base_model():
    with pytest.raises(ChainError, match="another base model"):
        read(seal(signed_for(BODY, base_model="7" * 64), LUND_KEY))


@pytest.mark.parametrize("document", [
    b"", b"{}", b"[]", b"null", b"\xff\xfe", pickle.dumps({"kind": "answer"}), b'{"kind":["answer"]}', b"[" * 100_000,
    b'{"kind":"plan"}', b'{"kind":"__reduce__"}'], ids=lambda document: repr(document[:20]))
def test_a_document_that_is_no_answer(document):
    with pytest.raises(SignatureError, match=r"not a signed document|another kind of document"):
        read(document)


@pytest.mark.parametrize("kind", ["plan", "commit", "refusal", "finding", "update"])
def test_an_update_sealed_as_another_kind(kind):
    """Even its own member's key makes no answer of it, and no refusal of an answer's words."""
    body = canonical(signed_for(BODY))
    signature = LUND_KEY.sign(b"fedround/1/%b\n%b" % (kind.encode(), body)).hex()
    with pytest.raises((SignatureError, ContractError), match=r"another kind|'kind'|missing"):
        read(b'{"body":%b,"key":"%b","kind":"%b","signature":"%b"}' % (
            body, LUND_KEY.key.encode(), kind.encode(), signature.encode()))


def test_a_signature_moved_from_one_kind_to_another():
    document = seal(signed_for(BODY), LUND_KEY).replace(b'"kind":"answer","signature"', b'"kind":"refusal","signature"')
    with pytest.raises(SignatureError, match="signature does not match"):
        read(document)


def test_a_document_as_large_as_a_disk_is_not_parsed():
    with pytest.raises(ContractError, match="at most"):
        read(b"[" * (MAX_DOCUMENT_BYTES + 1))


@pytest.mark.parametrize("size", [10 ** 12, 2 ** 52])
def test_a_declared_terabyte_is_refused_on_paper(size):
    document = seal(signed_for(BODY, payload=Payload(sha256="0" * 64, size_bytes=size, chunks=())), LUND_KEY)
    with under_a_megabyte(), pytest.raises(ContractError, match=f"{size} bytes, expected {len(BODY)}"):
        read(document)


def test_chunks_of_another_number_than_the_payload_has():
    chunks = codec.payload_of(BODY).model_copy(update={"chunks": ("0" * 64,) * 1000})
    with pytest.raises(ContractError, match="digests of 1,000 chunks, expected 1"):
        read(seal(signed_for(BODY, payload=chunks), LUND_KEY))


def test_a_schema_that_differs():
    with pytest.raises(ContractError, match="its schema is another than the plan's"):
        read(seal(signed_for(BODY, schema_digest=codec.schema_digest(SCHEMA[:1])), LUND_KEY))


def test_a_sighting_that_another_member_signed():
    mine = sign_sighting(PLAN, PLAN_DIGEST, "lund", OSLO_KEY)
    with pytest.raises(SignatureError, match="its sighting of the plan is not signed by it"):
        read(seal(signed_for(BODY, sighting=mine), LUND_KEY))


@pytest.mark.parametrize("field", ["sighting", "update.payload", "update.mechanism", "tool_version", "log", "asked",
                                   "charges", "ledger_head"])
def test_a_manifest_that_leaves_something_out(field):
    document = json.loads(HONEST)
    *within, last = field.split(".")
    del (document["body"][within[0]] if within else document["body"])[last]
    document["signature"] = LUND_KEY.sign(b"fedround/1/answer\n" + rfc8785.dumps(document["body"])).hex()
    with pytest.raises(ContractError, match=f"'{field}' is missing"):
        read(rfc8785.dumps(document))


def test_a_number_that_no_json_reader_agrees_on():
    with pytest.raises(SignatureError, match="signature does not match"):
        read(HONEST.replace(b'"round":3', b'"round":9223372036854775808'))


# -- what a site says of its noise -------------------------------------------------------------------------------------

DP = {"noise_multiplier": 4.4, "clip_norm": 1.0}
ADAPTIVE = RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20, adaptive=AdaptiveClipping(noise_std=10.0))
FTRL = RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20, mechanism="dp_ftrl")
SITE = SitePrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20)
AGREED = PLAN.agreed.privacy
TREE = DpFtrl(noise_multiplier=8.8, clip_norm=1.0, batch_size=128, steps=10)
ALL_ROWS = DpSgd(noise_multiplier=13.9, clip_norm=1.0, sampling_rate=1.0, steps=10)
COUNTED = DpSgd(**DP, count_noise_std=10.0, sampling_rate=0.3, steps=10)


def under(privacy) -> Plan:
    """The plan under this promise. Under the unit `site` it asks for no statistic."""
    return changed(PLAN, privacy=privacy, **({"asks": Train()} if isinstance(privacy, SitePrivacy) else {}))


TOLD = Release(statistic=SCORES, numbers=(1.0,) * 6, mechanism=SCORES.mechanism)


@pytest.mark.parametrize(("privacy", "claims", "says"), [
    (AGREED, {"mechanism": NoMechanism()}, "asks for the mechanism dp_sgd, got none"),
    (AGREED, {"mechanism": COUNTED, "within_clip": 0.5}, "counted gradients with noise 10.0, the plan asks for None"),
    (AGREED, {"mechanism": DpSgd(noise_multiplier=4.4, clip_norm=2.0, sampling_rate=0.3, steps=10)}, "clipped to 2"),
    (AGREED, {"mechanism": DpSgd(**DP, sampling_rate=0.3, steps=9)}, "took 9 steps"),
    (AGREED, {"rows": 5}, "declares 5 rows"),
    (AGREED, {"rows": 129, "mechanism": DpSgd(**DP, sampling_rate=1.0, steps=10)}, "declares 129 rows"),
    (AGREED, {"mechanism": ALL_ROWS}, "draws all its rows and does not say how many they are"),
    (AGREED, {"within_clip": 0.5}, "where the plan has them counted, and only there"),
    (ADAPTIVE, {"mechanism": COUNTED}, "where the plan has them counted, and only there"),
    (ADAPTIVE, {"mechanism": COUNTED.model_copy(update={"count_noise_std": 9.0}), "within_clip": 0.5}, "with noise 9"),
    (ADAPTIVE, {"within_clip": 0.5}, "with noise None, the plan asks for 10.0"),
    (FTRL, {"mechanism": DpFtrl(**DP, batch_size=129, steps=10)}, "batches of 129 rows, the plan asks for 128"),
    (SITE, {"mechanism": GaussianUpdate(**DP), "releases": (TOLD,)}, "a statistic that the plan does not ask for"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_mechanism_that_is_not_the_plans(privacy, claims: dict, says: str):
    """What the gate and the accountants of others rest on is at least of the form that was asked for."""
    plan = under(privacy)
    with pytest.raises(ContractError, match=says):
        read(seal(signed_for(BODY, plan=plan, **claims), LUND_KEY), plan=plan)


@pytest.mark.parametrize(("times", "says"), [(0.01, "too little"), (0.2, "too little"), (6, "too much"), (40, "too much")])
@pytest.mark.parametrize(("privacy", "claims"), [
    (AGREED, {"mechanism": DpSgd(**DP, sampling_rate=0.3, steps=10)}), (ADAPTIVE, {"mechanism": COUNTED, "within_clip": 0.5}),
    (FTRL, {"mechanism": TREE}), (SITE, {"mechanism": GaussianUpdate(**DP)}), (AGREED, {"rows": 100, "mechanism": ALL_ROWS})],
    ids=["dp_sgd", "adaptive", "ftrl", "site", "fewer rows than a batch"])
def test_noise_that_the_promise_does_not_call_for(privacy, claims: dict, times: float, says: str):
    """A liar that declares almost no noise would be everybody's nearest neighbour; with much noise, its bounds would be
    wide. What its sampling rate calls for is known.
    """
    declared = claims["mechanism"].model_copy(update={"noise_multiplier": claims["mechanism"].noise_multiplier * times})
    plan = under(privacy)
    with pytest.raises(ContractError, match=f"site 'lund' round 3: declares noise of .* {says}"):
        read(seal(signed_for(BODY, plan=plan, **claims | {"mechanism": declared}), LUND_KEY), plan=plan)


@pytest.mark.parametrize(("privacy", "claims"), [
    (ADAPTIVE, {"mechanism": COUNTED, "within_clip": 0.5}), (FTRL, {"mechanism": TREE}),
    (SITE, {"mechanism": GaussianUpdate(**DP)}), (AGREED, {"rows": 100, "mechanism": ALL_ROWS})],
    ids=["adaptive", "ftrl", "site", "fewer rows than a batch"])
def test_the_honest_one_of_each_kind_passes(privacy, claims: dict):
    plan = under(privacy)
    answer = read(seal(signed_for(BODY, plan=plan, **claims), LUND_KEY), plan=plan)
    assert answer.update.mechanism == claims["mechanism"]


# -- the payload -------------------------------------------------------------------------------------------------------


def check(folder, sent: bytes, signed: bytes | None = None) -> int:
    """The site signed for `signed` (for what it sent, unless told); the coordinator spools it."""
    update = signed_for(sent if signed is None else signed).update
    store, intake = MemoryStore(), intake_of(update, PLAN, "lund")
    store.put_once("delta", sent)
    try:
        spool.fetch(store, "delta", intake, folder / "delta.safetensors")
    finally:
        assert (folder / "delta.safetensors").exists() == (sys.exc_info()[0] is None), "nothing that was refused is kept"
    return intake.offset


def with_header(entries: dict) -> bytes:
    """A file of the right length with this header, padded to the length of the honest one where it fits."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (len(HEADER) - 8 - len(text))
    return struct.pack("<Q", len(text)) + text + BODY[len(HEADER):]


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_the_honest_payload_passes(tmp_path):
    assert check(tmp_path, BODY) == len(HEADER)
    assert with_header({"w1": entry("F32", [2, 3], 0, 24), "w2": entry("F32", [3, 2], 24, 48)}) == BODY


@pytest.mark.parametrize("where", [0, 7, 8, len(HEADER) - 1, len(HEADER), len(HEADER) + 3, len(BODY) - 1],
                         ids=["length", "length's end", "header", "header's end", "data", "exponent", "data's end"])
def test_a_flipped_byte_between_site_and_coordinator(tmp_path, where):
    altered = bytearray(BODY)
    altered[where] ^= 1
    with pytest.raises(TrustError, match="SHA-256 is not the one in the signed answer"):
        check(tmp_path, bytes(altered), signed=BODY)


@pytest.mark.parametrize("sent", [BODY[:-1], BODY[:len(HEADER)], BODY[:3], b"", BODY + b"\0", BODY * 2],
                         ids=["cut", "no data", "no header", "empty", "longer", "twice"])
def test_a_truncated_or_padded_payload(tmp_path, sent):
    said = len(sent) if len(sent) <= len(BODY) else f"more than {len(BODY)}"
    with pytest.raises(TrustError, match=f"has {said} bytes, expected {len(BODY)}"):
        check(tmp_path, sent, signed=BODY)


@pytest.mark.parametrize("sent", [
    with_header({"w1": entry("F64", [2, 3], 0, 24), "w2": entry("F32", [3, 2], 24, 48)}),
    with_header({"w1": entry("I32", [2, 3], 0, 24), "w2": entry("F32", [3, 2], 24, 48)}),
    with_header({"w1": entry("F32", [3, 2], 0, 24), "w2": entry("F32", [2, 3], 24, 48)}),
    with_header({"w1": entry("F32", [6], 0, 24), "w2": entry("F32", [3, 2], 24, 48)}),
    with_header({"w2": entry("F32", [2, 3], 0, 24), "w1": entry("F32", [3, 2], 24, 48)}),
    with_header({"w2": entry("F32", [3, 2], 24, 48), "w1": entry("F32", [2, 3], 0, 24)}),
    with_header({"w1": entry("F32", [2, 3], 24, 48), "w2": entry("F32", [3, 2], 0, 24)}),
    with_header({"w1": entry("F32", [2, 3], 0, 24), "w2": entry("F32", [3, 2], 0, 24)}),
    with_header({"w1": entry("F32", [2, 3], 0, 24), "w2": entry("F32", [3, 2], 20, 44)}),
    with_header({"w1": entry("F32", [2, 3], 0, 24)}),
    struct.pack("<Q", 2 ** 63) + BODY[8:],
    struct.pack("<Q", 0) + BODY[8:],
    struct.pack("<Q", len(BODY)) + BODY[8:],
    pickle.dumps(TENSORS)[:len(BODY)].ljust(len(BODY), b"\0"),
    b"\x93NUMPY".ljust(len(BODY), b"\0"),
], ids=["float64", "int32", "swapped shapes", "flat", "swapped names", "unsorted header", "swapped data", "overlap",
        "partial overlap", "missing tensor", "header of 2^63", "header of 0", "header over the end", "pickle", "npy"])
def test_a_signed_payload_that_is_not_the_plans_tensors(tmp_path, sent):
    assert len(sent) == len(BODY)
    with pytest.raises(CodecError, match="tensors are not the ones that the plan names"):
        check(tmp_path, sent)


def test_a_signed_payload_of_another_length(tmp_path):
    """read_answer refuses it on paper; the file alone is refused too."""
    with pytest.raises(TrustError, match=f"more than {len(BODY)} bytes, expected {len(BODY)}"):
        check(tmp_path, BODY + bytes(8))


@pytest.mark.parametrize("sent", [
    struct.pack("<Q", 2 ** 63) + BODY[8:], with_header({"w1": entry("F32", [2 ** 31], 0, 2 ** 33)}),
    with_header({"w1": entry("F32", [2 ** 38], 0, 2 ** 40)})], ids=["header", "tensor", "terabyte"])
def test_nothing_is_allocated_from_a_declared_size(tmp_path, sent):
    with under_a_megabyte(), pytest.raises(CodecError):
        check(tmp_path, sent)
