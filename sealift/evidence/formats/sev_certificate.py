"""Certificates of a SEV platform: OCA, PEK, PDH and CEK, 2084 bytes each (SEV API, appendix C.1).

The signed part is [0:414h]. Two signature slots follow, each with the usage and algorithm of its signer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from sealift.errors import UnusableInput
from sealift.evidence.formats.amd_certificate import USAGE_ASK
from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.signature import SIGNATURE_BYTES, decode_key, encode_key, sign_ecdsa, sign_pss

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

SIZE = 2084
SIGNED_BYTES = 0x414

# SEV API, appendix C.2: key usages and algorithms.
USAGE_NONE = 0x1000
USAGE_OCA = 0x1001
USAGE_PEK = 0x1002
USAGE_PDH = 0x1003
USAGE_CEK = 0x1004
USAGES = {
    USAGE_NONE: "none",
    USAGE_OCA: "OCA",
    USAGE_PEK: "PEK",
    USAGE_PDH: "PDH",
    USAGE_CEK: "CEK",
    USAGE_ASK: "ASK",
}
ALGORITHM_NONE = 0
ALGORITHM_RSA = 0x1
ALGORITHM_ECDSA = 0x2
ALGORITHM_ECDH = 0x3
SHA384_FLAG = 0x100

_HEADER = struct.Struct("<IBBHII")
_SLOT = struct.Struct(f"<II{SIGNATURE_BYTES}s")


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the two signatures: usage of the signer, algorithm, and the 512 bytes."""

    usage: int
    algorithm: int
    signature: bytes

    @property
    def hash_name(self) -> str:
        """The hash that the algorithm names."""
        return "sha384" if self.algorithm & SHA384_FLAG else "sha256"

    def pack(self) -> bytes:
        """The 520 bytes of the slot."""
        return _SLOT.pack(self.usage, self.algorithm, self.signature)


EMPTY_SLOT = Slot(USAGE_NONE, ALGORITHM_NONE, bytes(SIGNATURE_BYTES))


@dataclass(frozen=True, slots=True)
class SevCertificate:
    """A platform certificate as received. `raw` is what signatures are checked over."""

    raw: bytes
    version: int
    api_major: int
    api_minor: int
    usage: int
    algorithm: int
    slots: tuple[Slot, Slot]

    @property
    def signed(self) -> bytes:
        """The part of the received bytes that both signatures cover."""
        return self.raw[:SIGNED_BYTES]

    @property
    def usage_name(self) -> str:
        """OCA, PEK, PDH, CEK, or the number of any other usage."""
        return USAGES.get(self.usage, f"{self.usage:#06x}")

    @property
    def api(self) -> tuple[int, int]:
        """Version of the SEV API of the firmware that made it."""
        return self.api_major, self.api_minor

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Its key. Raises UnusableInput for an unknown curve or a point that is not on it."""
        return decode_key(self.raw[0x10:SIGNED_BYTES])


def parse_sev_certificate(data: bytes) -> SevCertificate:
    """Read 2084 bytes. The verifier judges the fields, and gives reasons."""
    sized(data, SIZE, "a SEV platform certificate")
    version, major, minor, _, usage, algorithm = _HEADER.unpack_from(data)
    first = Slot(*_SLOT.unpack_from(data, SIGNED_BYTES))
    second = Slot(*_SLOT.unpack_from(data, SIGNED_BYTES + _SLOT.size))
    return SevCertificate(bytes(data), version, major, minor, usage, algorithm, (first, second))


def build_sev_certificate(
    *, usage: int, algorithm: int, key: ec.EllipticCurvePublicKey, api: tuple[int, int] = (0, 0)
) -> SevCertificate:
    """An unsigned certificate. It carries an owner's key, or `add_signature` signs it."""
    signed = _HEADER.pack(1, *api, 0, usage, algorithm) + encode_key(key)
    return parse_sev_certificate(signed + EMPTY_SLOT.pack() * 2)


def add_signature(
    certificate: SevCertificate,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    signer_usage: int,
    *,
    sha384: bool = False,
) -> SevCertificate:
    """The certificate with one more signature, in the first empty slot."""
    hash_name = "sha384" if sha384 else "sha256"
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        algorithm = ALGORITHM_ECDSA
        signature = sign_ecdsa(signer, certificate.signed, hash_name)
    else:
        algorithm = ALGORITHM_RSA
        signature = sign_pss(signer, certificate.signed, hash_name)[::-1]
    slot = Slot(
        signer_usage, algorithm | (SHA384_FLAG if sha384 else 0), signature.ljust(SIGNATURE_BYTES, b"\0")
    )
    slots = list(certificate.slots)
    for at, taken in enumerate(slots):
        if taken.usage == USAGE_NONE:
            slots[at] = slot
            return parse_sev_certificate(certificate.signed + b"".join(each.pack() for each in slots))
    raise UnusableInput(
        "both signature slots of the certificate are taken", remedy="Sign a fresh certificate instead"
    )
