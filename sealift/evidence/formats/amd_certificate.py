"""AMD's own certificates from before X.509: the root (ARK) and the signing key (ASK) of legacy SEV.

SEV API, appendix B.1: a header of 64 bytes, then exponent, modulus and signature, all little-endian.
832 bytes with RSA-2048 and SHA-256 (Naples), 1600 with RSA-4096 and SHA-384 (Rome and later).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats.signature import rsa_key, sign_pss

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

USAGE_ARK = 0x00
USAGE_ASK = 0x13
USAGES = {USAGE_ARK: "ARK", USAGE_ASK: "ASK"}

_HEADER = struct.Struct("<I16s16sI16sII")
# Whole size in bytes -> bytes of each of the three numbers.
SIZES = {_HEADER.size + 3 * 256: 256, _HEADER.size + 3 * 512: 512}


@dataclass(frozen=True, slots=True)
class AmdCertificate:
    """A root or signing key as received. `raw` is what signatures are checked over."""

    raw: bytes
    version: int
    key_id: bytes
    certifying_id: bytes
    usage: int
    exponent_bits: int
    modulus_bits: int
    exponent: int
    modulus: int

    @property
    def signature(self) -> bytes:
        """Big-endian, as RSA needs it."""
        return self.raw[-self.number_bytes :][::-1]

    @property
    def signed(self) -> bytes:
        """The part of the received bytes that the signature covers."""
        return self.raw[: -self.number_bytes]

    @property
    def number_bytes(self) -> int:
        """Bytes of exponent, modulus and signature: 256 or 512."""
        return SIZES[len(self.raw)]

    @property
    def hash_name(self) -> str:
        """The hash that goes with the key's size."""
        return "sha256" if self.number_bytes == SIZES[832] else "sha384"

    @property
    def usage_name(self) -> str:
        """ARK, ASK, or the number of any other usage."""
        return USAGES.get(self.usage, f"{self.usage:#06x}")

    @property
    def sha256(self) -> str:
        """The fingerprint of the whole certificate, which a pin names. Unlike a key id it cannot be copied."""
        return hashlib.sha256(self.raw).hexdigest()

    def public_key(self) -> rsa.RSAPublicKey:
        """Its RSA key. Raises UnusableInput if its numbers are not an RSA key."""
        return rsa_key(self.modulus, self.exponent)

    @property
    def consistent(self) -> bool:
        """Whether the header agrees with the size."""
        bits = self.number_bytes * 8
        return self.version == 1 and self.modulus_bits == bits and self.exponent_bits == bits


def parse_amd_certificate(data: bytes) -> AmdCertificate:
    """Read an ARK or ASK of 832 or 1600 bytes.

    Only the size decides the layout. So a certificate with an altered header still gets a verdict with
    reasons; `consistent` tells whether the header agrees.
    """
    number = SIZES.get(len(data))
    if number is None:
        raise UnusableInput(
            f"an AMD root or signing certificate has 832 or 1600 bytes, and this has {len(data)}",
            remedy="Fetch it again from AMD, or export the chain from the platform again",
        )
    version, key_id, certifying_id, usage, _, exponent_bits, modulus_bits = _HEADER.unpack_from(data)
    at = _HEADER.size
    return AmdCertificate(
        raw=bytes(data),
        version=version,
        key_id=key_id,
        certifying_id=certifying_id,
        usage=usage,
        exponent_bits=exponent_bits,
        modulus_bits=modulus_bits,
        exponent=int.from_bytes(data[at : at + number], "little"),
        modulus=int.from_bytes(data[at + number : at + 2 * number], "little"),
    )


def issue_amd_certificate(
    *, subject: rsa.RSAPublicKey, signer: rsa.RSAPrivateKey, usage: int, key_id: bytes, certifying_id: bytes
) -> AmdCertificate:
    """Make a certificate in AMD's format, for the lab root of the emulated secure processor."""
    number = subject.key_size // 8
    numbers = subject.public_numbers()
    header = _HEADER.pack(1, key_id, certifying_id, usage, bytes(16), number * 8, number * 8)
    signed = header + numbers.e.to_bytes(number, "little") + numbers.n.to_bytes(number, "little")
    hash_name = "sha256" if number == SIZES[832] else "sha384"
    return parse_amd_certificate(signed + sign_pss(signer, signed, hash_name)[::-1])
