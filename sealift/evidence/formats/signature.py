"""Keys and signatures of AMD's firmware, in AMD's byte order: read, written, and made.

ECDSA: coordinates and r, s are little-endian in 72 bytes each (SEV API, appendix C.3; SNP ABI, tables
"ECDSA P-384 public key" and "signature"). RSA: PSS with a salt as long as the hash, the signature
byte-reversed in the formats that came before X.509 (SEV API, appendix B).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sealift.errors import UnusableInput
from sealift.evidence.formats.layout import sized

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES = 1028  # 404h: curve u32, x 72, y 72, zeros
SIGNATURE_BYTES = 512  # r 72, s 72, zeros
COORDINATE_BYTES = 72
CURVE_P256 = 1
CURVE_P384 = 2

_CURVES: dict[int, type[ec.EllipticCurve]] = {CURVE_P256: ec.SECP256R1, CURVE_P384: ec.SECP384R1}
HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {"sha256": hashes.SHA256, "sha384": hashes.SHA384}


def encode_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key in AMD's 1028 bytes."""
    curve = CURVE_P256 if isinstance(key.curve, ec.SECP256R1) else CURVE_P384
    numbers = key.public_numbers()
    head = struct.pack("<I", curve) + _le72(numbers.x) + _le72(numbers.y)
    return head.ljust(KEY_BYTES, b"\0")


def decode_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """The public key in AMD's 1028 bytes. Raises UnusableInput for an unknown curve, or a point that is not on it."""
    sized(data, KEY_BYTES, "an AMD public key")
    (curve,) = struct.unpack_from("<I", data)
    known = _CURVES.get(curve)
    if known is None:
        raise UnusableInput(f"a public key on the unknown curve {curve}", remedy="AMD uses P-256 and P-384")
    x = int.from_bytes(data[4:76], "little")
    y = int.from_bytes(data[76:148], "little")
    return point(x, y, known())


def point(x: int, y: int, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    """A public key from its coordinates."""
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (ValueError, OverflowError) as error:
        raise UnusableInput(
            "a public key that is not a point of its curve",
            remedy="The certificate is damaged; fetch it again",
        ) from error


def sign_ecdsa(key: ec.EllipticCurvePrivateKey, message: bytes, hash_name: str) -> bytes:
    """Little-endian r ‖ s, 144 bytes."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(HASHES[hash_name]())))
    return _le72(r) + _le72(s)


def rsa_key(modulus: int, exponent: int) -> rsa.RSAPublicKey:
    """An RSA public key from its numbers. Raises UnusableInput for numbers that are not a key."""
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except (ValueError, OverflowError) as error:
        raise UnusableInput(
            "an RSA public key with impossible numbers",
            remedy="The certificate is damaged; fetch it again",
        ) from error


def sign_pss(key: rsa.RSAPrivateKey, message: bytes, hash_name: str) -> bytes:
    """A big-endian RSA-PSS signature with a salt as long as the hash."""
    algorithm = HASHES[hash_name]()
    scheme = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
    return key.sign(message, scheme, algorithm)


def _le72(number: int) -> bytes:
    return number.to_bytes(COORDINATE_BYTES, "little")
