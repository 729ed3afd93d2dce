"""Recorded quotes of real processors (tests/quotes, from dcap-qvl): what is asked for passes, and nothing else does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedround.errors import SetupError, TrustError
from validation import quotes
from validation.quotes import Enclave, check, report_data_of

FOLDER = Path(__file__).parents[1] / "quotes"
DAY = datetime(2025, 6, 20, tzinfo=UTC)
"""On which the collateral is valid."""
dcap_qvl = pytest.importorskip("dcap_qvl", reason="the extra 'enclave' is not installed")


def recorded(name: str) -> tuple[bytes, bytes, str, bytes]:
    """Quote, collateral, measurement and report data."""
    quote, collateral = ((FOLDER / f"{name}_quote{end}").read_bytes() for end in ("", "_collateral.json"))
    report = dcap_qvl.parse_quote(quote).report
    return (quote, collateral, (report.mr_td if name == "tdx" else report.mr_enclave).hex(), report.report_data)


LEVEL = {"tdx": "UpToDate", "sgx": "ConfigurationAndSWHardeningNeeded"}


@pytest.mark.parametrize("name", LEVEL)
def test_what_is_asked_for_passes_and_nothing_else(name):
    quote, collateral, measurement, said = recorded(name)
    asked = Enclave(measurement=measurement, tcb=(LEVEL[name],))
    check(asked, quote, collateral, said, DAY)
    other = Enclave(measurement=measurement[:-1] + ("0" if measurement[-1] != "0" else "1"), tcb=(LEVEL[name],))
    for wanted, data, day, words in (
            (other, said, DAY, "another measurement"),
            (asked, report_data_of("ed25519:" + "0" * 64), DAY, "another key"),
            (asked.model_copy(update={"tcb": ("OutOfDate",)}), said, DAY, "policy.toml accepts OutOfDate"),
            (asked, said, datetime(2025, 9, 1, tzinfo=UTC), "does not hold"),
            (asked, said, datetime(2024, 9, 1, tzinfo=UTC), "does not hold")):
        with pytest.raises(TrustError, match=words):
            check(wanted, quote, collateral, data, day)


@pytest.mark.parametrize("name", LEVEL)
def test_attack_no_changed_quote_passes(name):
    quote, collateral, measurement, said = recorded(name)
    asked = Enclave(measurement=measurement, tcb=(LEVEL[name],))
    whole = 48 + (584 if name == "tdx" else 384)            # header and report: what is signed
    for place in (*range(0, whole, 13), whole + 10, whole + 80, whole + 200):
        body = bytearray(quote)
        body[place] ^= 1
        with pytest.raises(TrustError, match="does not hold"):
            check(asked, bytes(body), collateral, said, DAY)
    for body in (b"", quote[:-1 - len(quote) // 3], quote[:200], quote[100:], bytes(len(quote)), b"x" * (2 << 20)):
        with pytest.raises(TrustError):
            check(asked, body, collateral, said, DAY)


def test_attack_collateral_of_another_hand():
    quote, collateral, measurement, said = recorded("tdx")
    asked, told = Enclave(measurement=measurement), json.loads(collateral)
    for key, value in told.items():
        if key == "pck_crl_issuer_chain":       # who signed that list is looked up in the quote's own certificates
            continue
        for place in (200,) if "chain" in key else (9, len(value) // 2, len(value) - 40):    # the root is the library's own
            changed = value[:place] + ("0" if value[place] != "0" else "1") + value[place + 1:]
            with pytest.raises(TrustError, match="does not hold"):
                check(asked, quote, json.dumps({**told, key: changed}).encode(), said, DAY)
    for body in (b"", b"{}", b"[]", recorded("sgx")[1], b"\xff"):
        with pytest.raises(TrustError, match="does not hold"):
            check(asked, quote, body, said, DAY)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    quote, collateral, measurement, said = recorded("tdx")
    monkeypatch.setitem(__import__("sys").modules, "dcap_qvl", None)
    with pytest.raises(SetupError, match=r"fedround\[enclave\]"):
        check(Enclave(measurement=measurement), quote, collateral, said, DAY)


def test_report_data_is_the_keys_digest():
    assert report_data_of("ed25519:" + "0" * 64).hex().startswith("2414be14a0ea")
    assert len(report_data_of("x")) == 64
    assert quotes.report_data_of("x")[32:] == bytes(32)
