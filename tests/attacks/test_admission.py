"""What a hostile site, or whoever stands between it and the bucket, may send; each is refused with its own reason."""

import hashlib
import json
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from fedround import codec
from fedround.errors import ChainError, CodecError, ContractError, SignatureError, TrustError
from fedround.signing import MAX_DOCUMENT_BYTES, Identity, canonical, digest, seal
from fedround.types import (
    DpSgd,
    FedAvg,
    LocalEvaluation,
    LocalTraining,
    Payload,
    Purpose,
    RecordPrivacy,
    RoundPlan,
    SiteEntry,
    Update,
    WeightedMean,
)
from validation.updates import check_payload, read_answer

LUND_KEY, OSLO_KEY = Identity.generate(), Identity.generate()
LUND = SiteEntry(name="lund", key=LUND_KEY.key, weight=1.0)
OSLO = SiteEntry(name="oslo", key=OSLO_KEY.key, weight=1.0)
TENSORS = {"w1": np.arange(6, dtype=np.float32).reshape(2, 3), "w2": np.ones((3, 2), dtype=np.float32)}
SCHEMA = codec.schema_of(TENSORS)
BODY = codec.encode(TENSORS)
HEADER = codec.header(SCHEMA)


def a_plan(number: int, base_model: str = "3" * 64) -> RoundPlan:
    return RoundPlan(
        federation="banks", federation_digest="1" * 64, run="spring", round=number, purpose=Purpose.TRAIN,
        parent="2" * 64, base_model=base_model, tensors=SCHEMA, recipe="credit", recipe_digest="4" * 64,
        contract_digest="5" * 64, cohort=("lund", "oslo"), quorum=1, deadline_s=60,
        training=LocalTraining(local_steps=10), privacy=RecordPrivacy(epsilon=5.0, delta_dp=1e-5, rounds=20),
        evaluation=LocalEvaluation(bins=3), rule=WeightedMean(), optimizer=FedAvg())


PLAN = a_plan(3)
PLAN_DIGEST = digest(canonical(PLAN))


def signed_for(body: bytes, site: str = "lund", plan: RoundPlan = PLAN, **changes) -> Update:
    """What a site says of `body`: a liar signs as well as anybody."""
    return Update(**({
        "federation": "banks", "run": "spring", "round": plan.round, "site": site, "plan": digest(canonical(plan)),
        "base_model": plan.base_model,
        "payload": Payload(sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body)),
        "mechanism": DpSgd(noise_multiplier=4.4, clip_norm=1.0, sampling_rate=0.3, steps=10),
        "ledger_head": "6" * 64} | changes))


# -- the signed answer -------------------------------------------------------------------------------------------------


def read(document: bytes, plan: RoundPlan = PLAN, member: SiteEntry = LUND):
    return read_answer(document, plan, digest(canonical(plan)), member)


HONEST = seal("update", signed_for(BODY), LUND_KEY)


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
        read(seal("update", signed_for(BODY), Identity.generate()))


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
        read(seal("update", signed_for(BODY, site="lund"), OSLO_KEY), member=OSLO)


def test_the_answer_to_round_3_replayed_in_round_4():
    with pytest.raises(ChainError, match="for round '3', expected '4'"):
        read(HONEST, plan=a_plan(4))


def test_the_answer_to_a_withdrawn_plan_of_the_same_round():
    with pytest.raises(ChainError, match="another plan"):
        read(HONEST, plan=a_plan(3, base_model="7" * 64))


def test_a_delta_against_another_base_model():
    with pytest.raises(ChainError, match="another base model"):
        read(seal("update", signed_for(BODY, base_model="7" * 64), LUND_KEY))


@pytest.mark.parametrize("document", [
    b"", b"{}", b"[]", b"null", b"\xff\xfe", pickle.dumps({"kind": "update"}), b'{"kind":["update"]}', b"[" * 100_000,
    b'{"kind":"plan"}', b'{"kind":"__reduce__"}'], ids=lambda document: repr(document[:20]))
def test_a_document_that_is_no_answer(document):
    with pytest.raises(SignatureError, match=r"not a signed document|another kind of document"):
        read(document)


@pytest.mark.parametrize("kind", ["plan", "commit", "refusal", "evaluation"])
def test_an_update_sealed_as_another_kind(kind):
    with pytest.raises((SignatureError, ContractError), match=r"another kind|'kind'|missing"):
        read(seal(kind, signed_for(BODY), LUND_KEY))


def test_a_signature_moved_from_one_kind_to_another():
    document = json.loads(seal("refusal", signed_for(BODY), LUND_KEY)) | {"kind": "update"}
    with pytest.raises(SignatureError, match="signature does not match"):
        read(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())


def test_a_document_as_large_as_a_disk_is_not_parsed():
    with pytest.raises(ContractError, match="at most"):
        read(b"[" * (MAX_DOCUMENT_BYTES + 1))


def test_a_declared_size_of_petabytes_is_refused_on_paper():
    huge = Payload(sha256="0" * 64, size_bytes=2 ** 52)
    with pytest.raises(ContractError, match=f"{2 ** 52} bytes, expected {len(BODY)}"):
        read(seal("update", signed_for(BODY, payload=huge), LUND_KEY))


def test_a_number_that_no_json_reader_agrees_on():
    with pytest.raises(SignatureError, match="signature does not match"):
        read(HONEST.replace(b'"round":3', b'"round":9223372036854775808'))


# -- the payload -------------------------------------------------------------------------------------------------------


def check(folder, sent: bytes, signed: bytes | None = None) -> int:
    """The site signed for `signed` (for what it sent, unless told)."""
    path = folder / "delta.safetensors"
    path.write_bytes(sent)
    return check_payload(path, signed_for(sent if signed is None else signed), PLAN)


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
    with pytest.raises(TrustError, match=f"{len(sent)} bytes, the signed answer says {len(BODY)}"):
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
    with pytest.raises(CodecError, match=f"{len(BODY) + 8} bytes, expected {len(BODY)}"):
        check(tmp_path, BODY + bytes(8))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, -1])
def test_a_signed_number_that_is_not_finite(tmp_path, poison, where):
    flat = codec.flatten(TENSORS)
    flat[where] = poison
    with pytest.raises(CodecError, match="numbers that are not finite"):
        check(tmp_path, HEADER + flat.tobytes())


@pytest.mark.parametrize("where", [1_000_000, -4])
def test_a_nan_in_the_first_block_or_the_last(tmp_path, where):
    big = {"w": np.ones(700_000, dtype=np.float32)}
    plan = PLAN.model_copy(update={"tensors": codec.schema_of(big)})
    body = bytearray(codec.encode(big))
    path = tmp_path / "delta.safetensors"
    path.write_bytes(body)
    assert check_payload(path, signed_for(bytes(body)), plan) == len(codec.header(plan.tensors))
    data = memoryview(body)[len(codec.header(plan.tensors)):].cast("f")
    data[where // 4] = float("nan")
    path.write_bytes(body)
    with pytest.raises(CodecError, match="not finite"):
        check_payload(path, signed_for(bytes(body)), plan)


@pytest.mark.parametrize("sent", [
    struct.pack("<Q", 2 ** 63) + BODY[8:], with_header({"w1": entry("F32", [2 ** 31], 0, 2 ** 33)})],
    ids=["header", "tensor"])
def test_nothing_is_allocated_from_a_declared_size(tmp_path, sent):
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            check(tmp_path, sent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
