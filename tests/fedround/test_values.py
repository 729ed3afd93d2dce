"""What does not hold is said in words: no message shows a regular expression."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import StringConstraints

from fedround.errors import ContractError
from fedround.records import Plan
from fedround.values import Digest, Name, PublicKey, Signature, Value, parse


class Written(Value):
    name: Name = "a"
    digest: Digest = "0" * 64
    key: PublicKey | None = None
    signature: Signature = "0" * 128
    other: Annotated[str, StringConstraints(pattern="^[x]+$")] = "x"


@pytest.mark.parametrize(("field", "says"), [
    ("name", "a name must be 1 to 40"), ("digest", "a SHA-256 must be 64"), ("key", "'fedround site key' prints it"),
    ("signature", "'signature': not written as it must be"), ("other", "'other': not written as it must be")])
def test_text_that_is_not_as_it_must_be_is_refused_in_words(field: str, says: str):
    with pytest.raises(ContractError) as refusal:
        parse(Written, {field: "Y/"}, "it")
    assert says in str(refusal.value)
    assert not set("^$[]") & set(str(refusal.value))


def test_a_document_full_of_wrong_words_shows_no_pattern_either():
    with pytest.raises(ContractError) as refusal:
        parse(Plan, dict.fromkeys(Plan.model_fields, "Y/"), "it")
    assert "[0-9a-f]" not in str(refusal.value)
