"""The ATTESTATION report of legacy SEV, 208 bytes (SEV API, section 6.8): a running guest's digest, signed.

nonce 16, digest 32, policy u32, signature usage u32, algorithm u32, reserved u32, r 72, s 72.
The PEK signs the first 52 bytes with ECDSA and SHA-256.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.sev_certificate import ALGORITHM_ECDSA, USAGE_PEK
from sealift.evidence.formats.signature import sign_ecdsa

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

SIZE = 208
SIGNED_BYTES = 52

_LAYOUT = struct.Struct("<16s32sIIII144s")


@dataclass(frozen=True, slots=True)
class AttestationReport:
    """The report as received; `raw` is what the signature is checked over."""

    raw: bytes
    nonce: bytes
    digest: bytes
    policy: int
    signature_usage: int
    signature_algorithm: int


def parse_attestation_report(data: bytes) -> AttestationReport:
    """Read 208 bytes."""
    fields = _LAYOUT.unpack(sized(data, SIZE, "a legacy attestation report"))
    return AttestationReport(bytes(data), *fields[:5])


def build_attestation_report(
    pek: ec.EllipticCurvePrivateKey, *, nonce: bytes, digest: bytes, policy: int
) -> AttestationReport:
    """Make the signed report, as the platform does."""
    signed = struct.pack(
        "<16s32sI", sized(nonce, 16, "a nonce"), sized(digest, 32, "a launch digest"), policy
    )
    tail = struct.pack("<III", USAGE_PEK, ALGORITHM_ECDSA, 0)
    return parse_attestation_report(signed + tail + sign_ecdsa(pek, signed, "sha256"))
