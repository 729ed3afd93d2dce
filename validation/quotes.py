"""Whether a recorded quote says that a coordinator's key belongs to an enclave of one measurement.

`dcap_qvl` (the extra `enclave`) verifies what Intel signed: the quote, the certificates up to Intel's root, revocation lists,
and the TCB level of the processor as of a day. Here it is compared with what a site's operator asks for.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from fedround.errors import SetupError, TrustError
from fedround.values import Value

TcbStatus = Literal["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
                    "OutOfDateConfigurationNeeded"]
_LARGEST = 1 << 20


class Enclave(Value):
    """policy.toml, [enclave]: plans are carried out only of a coordinator whose key such an enclave has named."""

    measurement: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64}|[0-9a-f]{96})$")]
    """MRTD of a TDX machine (96 digits), or MRENCLAVE of an SGX enclave (64)."""
    tcb: Annotated[tuple[TcbStatus, ...], Field(min_length=1)] = ("UpToDate",)
    """Which levels of the processor's firmware are good enough."""
    quote: str = "enclave/quote"
    """In the site's folder, as recorded."""
    collateral: str = "enclave/collateral.json"
    """Intel's certificates, revocation lists and levels of the day, as `dcap_qvl.get_collateral` gives them."""


def report_data_of(key: str) -> bytes:
    """What the enclave writes into its quote, 64 bytes: SHA-256 of the coordinator's key as text, then zeros."""
    return hashlib.sha256(key.encode()).digest().ljust(64, b"\0")


def check(asked: Enclave, quote: bytes, collateral: bytes, report_data: bytes, now: datetime) -> None:
    """Raise TrustError, in words, unless the quote is what is asked for, with this report data, on this day; SetupError if
    the library is not installed.

    Promised: Intel's keys signed that an enclave of this measurement said this report data, on a processor whose level was
    one of those. Not promised: that the key is nowhere else; that the enclave runs now; anything of what it
    runs beyond the measurement (of a TDX machine its run-time registers are not looked at).
    """
    try:
        import dcap_qvl
    except ImportError:
        raise SetupError("policy.toml has [enclave], and what verifies quotes is not installed: 'pip install "
                         "fedround[enclave]'") from None
    if len(quote) > _LARGEST or len(collateral) > _LARGEST:
        raise TrustError("the enclave's quote or its collateral is larger than any")
    try:
        said = dcap_qvl.QuoteCollateralV3.from_json(collateral.decode())
        report = json.loads(dcap_qvl.verify(quote, said, int(now.timestamp())).to_json())
        status, (kind, found) = str(report["status"]), _of(report["report"])
    except Exception as error:      # whatever the library raises of foreign bytes
        raise TrustError(f"the enclave's quote does not hold ({str(error).splitlines()[0][:120]}): ask the coordinator for a "
                         "new one, with the collateral of today") from None
    if status not in asked.tcb:
        raise TrustError(f"the enclave's processor is '{status[:40]}', and policy.toml accepts {', '.join(asked.tcb)}")
    if found[kind] != asked.measurement:
        raise TrustError("the enclave has another measurement than policy.toml asks for")
    if found["report_data"] != report_data.hex():
        raise TrustError("the enclave's quote names another key than the coordinator's")


def _of(report: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the measurement is called, and the report's fields."""
    if "TD10" in report:
        return "mr_td", report["TD10"]
    if "TD15" in report:
        return "mr_td", report["TD15"]["base"]
    return "mr_enclave", report["SgxEnclave"]
