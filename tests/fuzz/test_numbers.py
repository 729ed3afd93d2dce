"""Whatever a number is, a document that holds it can be read, or is not written; and no number arrives without bounds."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs_site import reference
from fedround.errors import ContractError
from fedround.privacy import ledger
from fedround.signing import Identity, seal, unseal
from fedround.values import LARGEST_WHOLE, parse
from site_workers import audit, seen
from site_workers.policy import SitePolicy
from site_workers.round import SiteRequest
from tests.fuzz.effort import examples
from tests.fuzz.signed_types import instances, numbers_of, signed_types

SIGNED = signed_types()
KEY = Identity.generate()
ARRIVES = {**SIGNED, "charge": ledger.Charge, "audit": audit._Entry, "memory": seen.Seen, "policy": SitePolicy,
           "request": SiteRequest}

EVERY_FLOAT = st.integers(0, 2 ** 64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
ANY_NUMBER = EVERY_FLOAT | st.sampled_from([1e16, 2.0 ** 53, 1e20, 1e21, 1e25, 1e308, 5e-324, -0.0, math.inf, math.nan]) \
    | st.integers(-2 ** 70, 2 ** 70) | st.sampled_from([2 ** 53 - 1, 2 ** 53, 2 ** 53 + 1, 10 ** 400])


def test_the_types_are_found():
    assert {"plan", "answer", "refusal", "commit", "finding", "checkpoint", "federation", "log-entry", "rotation",
            "sighting"} <= set(SIGNED)


def test_every_signed_type_is_in_the_reference():
    assert set(SIGNED.values()) <= {*reference.SIGNED.values(), reference.FILES["federation.toml"][0]}


@pytest.mark.parametrize("name", ARRIVES)
def test_every_number_has_bounds(name: str):
    """So that no arithmetic overflows on what somebody else wrote, and canonical JSON can write all of them."""
    for where, kind, bounds in numbers_of(ARRIVES[name]):
        low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
        assert low is not None, f"{where} has no smallest value"
        assert high is not None, f"{where} has no largest value"
        if kind is int:
            assert -LARGEST_WHOLE <= low <= high <= LARGEST_WHOLE, where
        else:
            assert max(abs(low), abs(high)) <= 1e150, f"the square of {where} is not finite"


@pytest.mark.parametrize("kind", SIGNED)
@examples(15)
@given(data=st.data())
def test_what_the_types_allow_is_read_back_as_it_was_written(kind: str, data: st.DataObject):
    value = parse(SIGNED[kind], data.draw(instances(SIGNED[kind])), "it")
    document = seal(value, KEY)
    assert unseal(document, SIGNED[kind], KEY.key, "it") == value
    assert seal(unseal(document, SIGNED[kind], KEY.key, "it"), KEY) == document


@pytest.mark.parametrize("kind", SIGNED)
@examples(25)
@given(data=st.data())
def test_any_number_anywhere_is_refused_or_read_back(kind: str, data: st.DataObject):
    said = data.draw(instances(SIGNED[kind]))
    places = list(_numbers(said))
    if not places:
        return
    holder, name = data.draw(st.sampled_from(places))
    holder[name] = data.draw(ANY_NUMBER)
    try:
        value = parse(SIGNED[kind], json.dumps(said), "it")
    except ContractError:
        return
    assert unseal(seal(value, KEY), SIGNED[kind], KEY.key, "it") == value


def _numbers(said: Any) -> Any:
    """Where a number stands: its holder, and its name or place there."""
    if not isinstance(said, dict | list):
        return
    for name, item in said.items() if isinstance(said, dict) else enumerate(said):
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield said, name
        else:
            yield from _numbers(item)
