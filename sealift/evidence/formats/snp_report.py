"""The attestation report of SEV-SNP, 1184 bytes (SNP ABI, table "ATTESTATION_REPORT").

Versions 2 to 5: 3 added CPUID, 4 is laid out as 3, 5 added the mitigation vectors. ECDSA P-384 with
SHA-384 over [0:2A0h]; r and s, 72 bytes each, little-endian, at 2A0h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.signature import sign_ecdsa

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

SIZE = 1184
SIGNED_BYTES = 0x2A0
VERSIONS = (2, 3, 4, 5)
ALGORITHM_ECDSA_P384_SHA384 = 1

_FIELDS = struct.Struct(
    "<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8s"  # 000h to 187h
    "BBB21x"  # 188h: family, model, stepping
    "64s8sBBBxBBBx8sQQ"  # 1A0h to 207h
)
_RESERVED = ((0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0))


class PolicyBit(IntFlag):
    """Guest policy (SNP ABI, table "Guest policy"); bits 7:0 and 15:8 are the ABI's minor and major."""

    SMT = 1 << 16
    ALWAYS_ONE = 1 << 17
    MIGRATION_AGENT = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL = 1 << 21
    AES_256_XTS = 1 << 22
    RAPL_OFF = 1 << 23
    CIPHERTEXT_HIDING = 1 << 24
    PAGE_SWAP_OFF = 1 << 25


class PlatformBit(IntFlag):
    """Platform info (SNP ABI, table "PLATFORM_INFO"). Real machines set other bits, too."""

    SMT = 1 << 0
    TSME = 1 << 1
    ECC = 1 << 2
    RAPL_OFF = 1 << 3
    CIPHERTEXT_HIDING = 1 << 4
    ALIAS_CHECK = 1 << 5
    TIO = 1 << 7


class Signer(IntEnum):
    """Which key signed the report."""

    VCEK = 0
    VLEK = 1
    NONE = 7


@dataclass(frozen=True, slots=True)
class SnpReport:
    """The fields of a report. Byte strings are as stored; versions are (major, minor, build)."""

    version: int = 3
    guest_svn: int = 0
    policy: int = PolicyBit.ALWAYS_ONE
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algorithm: int = ALGORITHM_ECDSA_P384_SHA384
    current_tcb: bytes = bytes(8)
    platform_info: int = 0
    key_info: int = 0
    report_data: bytes = bytes(64)
    measurement: bytes = bytes(48)
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = bytes(32)
    report_id_ma: bytes = b"\xff" * 32
    reported_tcb: bytes = bytes(8)
    cpuid: tuple[int, int, int] | None = None
    chip_id: bytes = bytes(64)
    committed_tcb: bytes = bytes(8)
    current_version: tuple[int, int, int] = (0, 0, 0)
    committed_version: tuple[int, int, int] = (0, 0, 0)
    launch_tcb: bytes = bytes(8)
    launch_mitigations: int | None = None
    current_mitigations: int | None = None

    @property
    def author_key_enabled(self) -> bool:
        """Whether an author key signed the id key."""
        return bool(self.key_info & 1)

    @property
    def chip_masked(self) -> bool:
        """Whether the chip id is masked in the report."""
        return bool(self.key_info & 2)

    @property
    def signer_number(self) -> int:
        """Bits 4:2 of the key info; see Signer."""
        return self.key_info >> 2 & 7

    @property
    def signer(self) -> Signer | None:
        """Which key signed, or None for an unknown number."""
        return Signer(self.signer_number) if self.signer_number in set(Signer) else None

    @property
    def abi(self) -> tuple[int, int]:
        """The lowest ABI version (major, minor) on which the guest's policy allows it to run."""
        return self.policy >> 8 & 0xFF, self.policy & 0xFF

    def pack(self) -> bytes:
        """The signed part, 672 bytes."""
        family, model, stepping = self.cpuid or (0, 0, 0)
        major, minor, build = self.current_version
        committed_major, committed_minor, committed_build = self.committed_version
        try:
            return _FIELDS.pack(
                self.version,
                self.guest_svn,
                self.policy,
                self.family_id,
                self.image_id,
                self.vmpl,
                self.signature_algorithm,
                self.current_tcb,
                self.platform_info,
                self.key_info,
                self.report_data,
                self.measurement,
                self.host_data,
                self.id_key_digest,
                self.author_key_digest,
                self.report_id,
                self.report_id_ma,
                self.reported_tcb,
                family,
                model,
                stepping,
                self.chip_id,
                self.committed_tcb,
                build,
                minor,
                major,
                committed_build,
                committed_minor,
                committed_major,
                self.launch_tcb,
                self.launch_mitigations or 0,
                self.current_mitigations or 0,
            ).ljust(SIGNED_BYTES, b"\0")
        except struct.error as error:
            raise UnusableInput(
                "a field of the report has the wrong size", remedy="See the sizes in the SNP ABI"
            ) from error


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report as received: the bytes that the signature is checked over, and their fields."""

    raw: bytes
    fields: SnpReport

    @property
    def signed(self) -> bytes:
        """The part of the received bytes that the signature covers, 672 bytes."""
        return self.raw[:SIGNED_BYTES]

    @property
    def signature(self) -> bytes:
        """Little-endian r ‖ s, and the zeros after them, 512 bytes."""
        return self.raw[SIGNED_BYTES:]

    @property
    def reserved_in_use(self) -> bool:
        """Whether bytes are not zero that this version defines as zero. Newer firmware may use them."""
        spans = list(_RESERVED)
        if self.fields.version < 3:
            spans.append((0x188, 0x18B))
        spans.append((0x208 if self.fields.version >= 5 else 0x1F8, SIGNED_BYTES))
        return any(any(self.raw[start:end]) for start, end in spans)


def parse_snp_report(data: bytes) -> SignedReport:
    """Read 1184 bytes. An unknown version is read as the newest known; the verifier refuses it."""
    sized(data, SIZE, "an SNP attestation report")
    v = _FIELDS.unpack_from(data)
    version = v[0]
    fields = SnpReport(
        version=version,
        guest_svn=v[1],
        policy=v[2],
        family_id=v[3],
        image_id=v[4],
        vmpl=v[5],
        signature_algorithm=v[6],
        current_tcb=v[7],
        platform_info=v[8],
        key_info=v[9],
        report_data=v[10],
        measurement=v[11],
        host_data=v[12],
        id_key_digest=v[13],
        author_key_digest=v[14],
        report_id=v[15],
        report_id_ma=v[16],
        reported_tcb=v[17],
        cpuid=v[18:21] if version >= 3 else None,
        chip_id=v[21],
        committed_tcb=v[22],
        current_version=(v[25], v[24], v[23]),
        committed_version=(v[28], v[27], v[26]),
        launch_tcb=v[29],
        launch_mitigations=v[30] if version >= 5 else None,
        current_mitigations=v[31] if version >= 5 else None,
    )
    return SignedReport(bytes(data), fields)


def sign_snp_report(report: SnpReport, key: ec.EllipticCurvePrivateKey) -> SignedReport:
    """Sign a report, as a secure processor does."""
    body = report.pack()
    return parse_snp_report((body + sign_ecdsa(key, body, "sha384")).ljust(SIZE, b"\0"))
