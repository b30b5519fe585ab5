"""A guest's report request to its kernel and the response: payloads of /dev/sev-guest and configfs-tsm.

Linux, include/uapi/linux/sev-guest.h and Documentation/ABI/testing/configfs-tsm; SNP ABI, tables
"MSG_REPORT_REQ" and "MSG_REPORT_RSP". This module has only the bytes; other code calls the kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from sealift.errors import UnusableInput
from sealift.evidence.formats.certificate_table import parse_certificate_table
from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.snp_report import SIZE as REPORT_BYTES
from sealift.evidence.formats.snp_report import SignedReport, parse_snp_report

REQUEST_BYTES = 96
RESPONSE_BYTES = 4000
USER_DATA_BYTES = 64
REPORT_AT = 0x20
MESSAGE_VERSION = 1
IOCTL_GET_REPORT = 0xC0205300
IOCTL_GET_EXTENDED_REPORT = 0xC0205302
TSM_PROVIDER = "sev_guest"

_REQUEST = struct.Struct("<64sII24x")
_EXTENDED_TAIL = struct.Struct("<QI4x")
_RESPONSE_HEAD = struct.Struct("<II24x")
_CALL = struct.Struct("<B7xQQQ")


class KeySelection(IntEnum):
    """The key that signs (MSG_REPORT_REQ, KEY_SEL)."""

    VLEK_IF_LOADED = 0
    VCEK = 1
    VLEK = 2


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A guest's request: 64 bytes to sign, for a VMPL."""

    user_data: bytes
    vmpl: int = 0
    key: KeySelection = KeySelection.VLEK_IF_LOADED

    def pack(self) -> bytes:
        """The 96 bytes of struct snp_report_req."""
        return _REQUEST.pack(sized(self.user_data, USER_DATA_BYTES, "report data"), self.vmpl, self.key)

    def pack_extended(self, table_address: int, table_bytes: int) -> bytes:
        """The 112 bytes of struct snp_ext_report_req: and the address for the certificate table."""
        return self.pack() + _EXTENDED_TAIL.pack(table_address, table_bytes)


def parse_request(data: bytes) -> ReportRequest:
    """Read 96 bytes, as an emulated secure processor does."""
    user_data, vmpl, key = _REQUEST.unpack(sized(data, REQUEST_BYTES, "a report request"))
    if vmpl > 3 or key not in set(KeySelection):
        raise UnusableInput("a report request with an impossible VMPL or key", remedy="VMPLs are 0 to 3")
    return ReportRequest(user_data, vmpl, KeySelection(key))


def pack_call(request_address: int, response_address: int) -> bytes:
    """The 32 bytes of struct snp_guest_request_ioctl."""
    return _CALL.pack(MESSAGE_VERSION, request_address, response_address, 0)


def parse_response(data: bytes) -> SignedReport:
    """The report in the 4000 bytes of struct snp_report_resp. A status other than 0 is an error."""
    sized(data, RESPONSE_BYTES, "a report response")
    status, size = _RESPONSE_HEAD.unpack_from(data)
    if status:
        raise UnusableInput(
            f"the secure processor answered with status {status:#x} and no report",
            remedy="0x16 means an invalid request, 0x27 that the requested key is not loaded",
        )
    if size != REPORT_BYTES:
        raise UnusableInput(f"a report response with {size} bytes", remedy="A report has 1184")
    return parse_snp_report(data[REPORT_AT : REPORT_AT + size])


def pack_response(report: bytes, status: int = 0) -> bytes:
    """The kernel's response."""
    body = b"" if status else sized(report, REPORT_BYTES, "an SNP attestation report")
    return (_RESPONSE_HEAD.pack(status, len(body)) + body).ljust(RESPONSE_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class TsmEntry:
    """An entry under /sys/kernel/config/tsm/report: the written input and the read output."""

    inblob: bytes
    outblob: bytes = b""
    auxblob: bytes = b""
    provider: str = TSM_PROVIDER

    def __post_init__(self) -> None:
        sized(self.inblob, USER_DATA_BYTES, "inblob")

    def report(self) -> SignedReport:
        """The report in `outblob`."""
        if self.provider != TSM_PROVIDER:
            raise UnusableInput(
                f"the guest's provider is {self.provider[:40]!r}",
                remedy="Only sev_guest gives SNP reports",
            )
        return parse_snp_report(self.outblob)

    def certificates(self) -> dict[str, bytes]:
        """The certificates in `auxblob` by GUID; none if it is empty."""
        if not self.auxblob:
            return {}
        return {str(name): content for name, content in parse_certificate_table(self.auxblob).items()}
