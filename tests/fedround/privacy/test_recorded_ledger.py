"""A ledger outlives every version of this program: what each version wrote is read, and costs what it cost then."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
import rfc8785

from fedround.errors import LedgerError
from fedround.privacy import ledger
from fedround.privacy.spec import Mechanism
from fedround.values import Charged

RECORDED = Path(__file__).parent / "recorded"
COST = {"0.1.0": (5.262692, "da8892922293556d16932d51b53c2bfad7c7161fd424a540b50d7faca48066ea")}
"""Of a record at delta_dp 1e-5, as the version itself said; and its last line's digest."""


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.jsonl")), ids=lambda path: path.stem)
def test_what_an_earlier_version_wrote_is_read_costs_no_less_and_goes_on(path: Path, tmp_path: Path):
    """A better accountant may find less, never by forgetting a charge; 0.5 % is the accountant's own promise."""
    kept = tmp_path / "ledger.jsonl"
    shutil.copyfile(path, kept)
    kept.chmod(0o600)
    book = ledger.read(kept)
    cost, head = COST[path.stem]
    assert book.head == head
    assert ledger.spent(book, 1e-5) == pytest.approx(cost, rel=5e-3)
    longer = ledger.charge(book, book.charges[0].model_copy(update={"plan": "f" * 64}), 1e9)
    assert len(ledger.read(kept).charges) == len(book.charges) + 1
    assert ledger.spent(longer, 1e-5) > ledger.spent(book, 1e-5)


def test_a_key_that_a_later_version_adds_does_not_make_an_older_line_an_altered_one(tmp_path: Path):
    """`count_noise_std` has a default: a line that was written before there was such a key says the same without it."""
    kept = tmp_path / "ledger.jsonl"
    opening, first, *_ = (RECORDED / "0.1.0.jsonl").read_bytes().splitlines()
    line = json.loads(first)
    del line["charge"]["mechanisms"][0]["count_noise_std"], line["sha256"]
    older = rfc8785.dumps({**line, "sha256": hashlib.sha256(rfc8785.dumps(line)).hexdigest()})
    kept.write_bytes(opening + b"\n" + older + b"\n")
    kept.chmod(0o600)
    book = ledger.read(kept)
    assert book.charges[0].mechanisms[0].count_noise_std is None
    kept.write_bytes(opening + b"\n" + older.replace(b'"noise_multiplier":1.2', b'"noise_multiplier":9.2') + b"\n")
    with pytest.raises(LedgerError, match="was altered"):
        ledger.read(kept)


def test_this_versions_record_holds_every_kind_of_mechanism_and_purpose():
    """Otherwise a new kind could be changed later, and no test would notice."""
    book = ledger.read(RECORDED / f"{max(COST)}.jsonl")
    kinds = {mechanism.kind for charge in book.charges for mechanism in charge.mechanisms}
    known = {kind.model_fields["kind"].default for kind in get_args(get_args(Mechanism)[0])}
    assert kinds == known - {"none"}, "write a record of this version, beside the older ones"
    assert {charge.purpose for charge in book.charges} == set(get_args(Charged))
