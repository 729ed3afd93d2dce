"""A site that asks for the coordinator's enclave carries out no plan without a quote that names its key."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedround import layout
from fedround.privacy import ledger
from site_workers.site import open_site
from tests.small_federation import SmallFederation
from validation import quotes

QUOTES = Path(__file__).parents[1] / "quotes"
dcap_qvl = pytest.importorskip("dcap_qvl", reason="the extra 'enclave' is not installed")


def test_plans_are_refused_in_words_until_the_quote_names_the_key(federation: SmallFederation, monkeypatch):
    folder = federation.root / "north"
    quote = (QUOTES / "tdx_quote").read_bytes()
    report = dcap_qvl.parse_quote(quote).report
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text() + f'\n[enclave]\nmeasurement = "{report.mr_td.hex()}"\n')
    planned = federation.plan()

    def answer() -> tuple[str, str]:
        site = open_site(folder, lambda: datetime(2025, 6, 20, tzinfo=UTC))
        said = federation.answer("north", planned, site)
        store = (federation.root / "store" / layout.refusals("north", "spring", 1, 1, "train")).parent
        found = sorted(store.glob("refusal-*"), key=lambda path: path.stat().st_mtime_ns)
        return said, json.loads(found[-1].read_bytes())["body"]["detail"] if found else ""

    assert answer() == ("refusal", "no quote of the coordinator's enclave can be read here (No such file or directory)")
    (folder / "enclave").mkdir()
    shutil.copyfile(QUOTES / "tdx_quote", folder / "enclave" / "quote")
    shutil.copyfile(QUOTES / "tdx_quote_collateral.json", folder / "enclave" / "collateral.json")
    assert answer() == ("refusal", "the enclave's quote names another key than the coordinator's")
    assert ledger.read(folder / "ledger.jsonl").charges == ()
    monkeypatch.setattr(quotes, "report_data_of", lambda key: report.report_data)       # as if it named this coordinator's
    assert answer()[0] == "update"
