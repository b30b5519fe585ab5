"""X.509 certificates of SEV-SNP: ARK, ASK, ASVK, VCEK and VLEK (VCEK/KDS, chapter 3; RFC 5280).

It supports only what AMD's chain needs: RSA-PSS signatures with SHA-384, RSA keys and P-384 keys. It accepts the serial
number 0 of endorsement keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sealift.errors import UnusableInput
from sealift.evidence.formats import der
from sealift.evidence.formats.signature import point, rsa_key, sign_pss

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

SIZE_LIMIT = 8 * 1024

OID_PSS = "1.2.840.113549.1.1.10"
OID_MGF1 = "1.2.840.113549.1.1.8"
OID_SHA384 = "2.16.840.1.101.3.4.2.2"
OID_RSA = "1.2.840.113549.1.1.1"
OID_EC = "1.2.840.10045.2.1"
OID_P384 = "1.3.132.0.34"
OID_COMMON_NAME = "2.5.4.3"
OID_KEY_USAGE = "2.5.29.15"
OID_BASIC_CONSTRAINTS = "2.5.29.19"

_WHAT = "the certificate"
_SALT_BYTES = 48
_KEY_CERT_SIGN = 0x04  # bit 5 of the BIT STRING's first byte

Name = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: its id, whether it is critical, and the content of its OCTET STRING."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True)
class X509Certificate:
    """A certificate as received. A pin is the hash of `der`; the signature covers `signed`."""

    der: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    pss_sha384: bool
    serial: int
    issuer: Name
    subject: Name
    not_before: datetime
    not_after: datetime
    key_info: bytes = field(repr=False)
    extensions: tuple[Extension, ...] = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """The fingerprint of the whole certificate."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def subject_name(self) -> str:
        """The subject's common name."""
        return common_name(self.subject)

    @property
    def issuer_name(self) -> str:
        """The issuer's common name."""
        return common_name(self.issuer)

    def extension(self, oid: str) -> Extension | None:
        """The extension with this id."""
        return next((each for each in self.extensions if each.oid == oid), None)

    def public_key(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """Its key. Raises UnusableInput for a kind that AMD does not use."""
        return _read_key(self.key_info)

    @property
    def may_sign_certificates(self) -> bool:
        """Whether basic constraints make it a CA, and key usage, if present, allows it to sign certificates."""
        try:
            return self._read_constraints()
        except UnusableInput:
            return False

    def _read_constraints(self) -> bool:
        constraints = self.extension(OID_BASIC_CONSTRAINTS)
        usage = self.extension(OID_KEY_USAGE)
        if constraints is None:
            return False
        inside = der.read_whole(constraints.value, _WHAT).sequence(_WHAT)
        is_ca = bool(inside) and inside[0].tag == der.BOOLEAN and inside[0].value == b"\xff"
        if usage is None:
            return is_ca
        flags = der.read_whole(usage.value, _WHAT).expect(der.BIT_STRING, _WHAT).value
        return is_ca and len(flags) > 1 and bool(flags[1] & _KEY_CERT_SIGN)


def parse_x509(data: bytes) -> X509Certificate:
    """Read a DER certificate of at most 8 KiB."""
    if len(data) > SIZE_LIMIT:
        raise UnusableInput("the certificate is larger than 8 KiB", remedy="AMD's have 1 to 2 KiB")
    parts = der.read_whole(bytes(data), _WHAT).sequence(_WHAT, 3)
    if len(parts) != 3:
        # No signature covers what stands behind the three: whoever passes it on could add to it.
        raise der.broken(_WHAT)
    to_sign, algorithm, signature = parts
    fields = to_sign.sequence(_WHAT, 7)
    if fields[0].tag != der.explicit(0) or der.integer(fields[0].only_child(_WHAT), _WHAT) != 2:
        raise UnusableInput("the certificate is not X.509 version 3", remedy="Fetch it again")
    serial, inner_algorithm, issuer, validity, subject, key_info = fields[1:7]
    if inner_algorithm.encoded != algorithm.encoded:
        raise der.broken(_WHAT)
    begins, ends = validity.sequence(_WHAT, 2)[:2]
    return X509Certificate(
        der=bytes(data),
        signed=to_sign.encoded,
        signature=der.bits(signature, _WHAT),
        pss_sha384=is_pss_sha384(algorithm),
        serial=der.integer(serial, _WHAT),
        issuer=read_name(issuer),
        subject=read_name(subject),
        not_before=der.time(begins, _WHAT),
        not_after=der.time(ends, _WHAT),
        key_info=key_info.expect(der.SEQUENCE, _WHAT).encoded,
        extensions=_read_extensions(fields[7:]),
    )


def is_pss_sha384(algorithm: der.Element) -> bool:
    """Whether an AlgorithmIdentifier says RSA-PSS with SHA-384, MGF1 of it, a salt of 48 bytes (RFC 4055)."""
    parts = algorithm.sequence(_WHAT, 1)
    if der.object_id(parts[0], _WHAT) != OID_PSS or len(parts) != 2:
        return False
    given = {each.tag: each.only_child(_WHAT) for each in parts[1].sequence(_WHAT)}
    if not {der.explicit(0), der.explicit(1), der.explicit(2)} <= given.keys():
        return False
    mask = given[der.explicit(1)].sequence(_WHAT, 2)
    trailer = given.get(der.explicit(3))
    return (
        _is_sha384(given[der.explicit(0)])
        and der.object_id(mask[0], _WHAT) == OID_MGF1
        and _is_sha384(mask[1])
        and der.integer(given[der.explicit(2)], _WHAT) == _SALT_BYTES
        and (trailer is None or der.integer(trailer, _WHAT) == 1)
    )


def read_name(element: der.Element) -> Name:
    """A distinguished name as (attribute, text) pairs: two spellings of one text compare equal."""
    pairs = []
    for group in element.sequence(_WHAT):
        for attribute in group.expect(der.SET, _WHAT).children(_WHAT, 4):
            kind, value = attribute.sequence(_WHAT, 2)[:2]
            pairs.append((der.object_id(kind, _WHAT), value.value))
    return tuple(pairs)


def common_name(name: Name) -> str:
    """The common name in a distinguished name, escaped for a terminal."""
    return next((printable(value) for kind, value in name if kind == OID_COMMON_NAME), "")


def printable(text: bytes) -> str:
    """At most 256 characters of foreign text, without control characters."""
    decoded = text[:256].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in decoded)


def make_name(common: str, organisation: str) -> bytes:
    """A distinguished name with these two attributes, encoded."""
    return der.write(
        der.SEQUENCE,
        *(
            der.write(
                der.SET,
                der.write(der.SEQUENCE, der.write_object_id(oid), der.write(der.UTF8_STRING, text.encode())),
            )
            for oid, text in (("2.5.4.10", organisation), (OID_COMMON_NAME, common))
        ),
    )


def write_pss_sha384() -> bytes:
    """The AlgorithmIdentifier of AMD's certificates and CRLs."""
    sha384 = der.write(der.SEQUENCE, der.write_object_id(OID_SHA384), der.write(der.NULL))
    mask = der.write(der.SEQUENCE, der.write_object_id(OID_MGF1), sha384)
    parameters = der.write(
        der.SEQUENCE,
        der.write(der.explicit(0), sha384),
        der.write(der.explicit(1), mask),
        der.write(der.explicit(2), der.write_integer(_SALT_BYTES)),
    )
    return der.write(der.SEQUENCE, der.write_object_id(OID_PSS), parameters)


def ca_extensions(path_length: int | None) -> tuple[Extension, ...]:
    """Basic constraints and key usage of a root or an intermediate."""
    length = () if path_length is None else (der.write_integer(path_length),)
    constraints = der.write(der.SEQUENCE, der.write(der.BOOLEAN, b"\xff"), *length)
    usage = der.write(der.BIT_STRING, b"\x01\x06")  # keyCertSign and cRLSign
    return (Extension(OID_BASIC_CONSTRAINTS, True, constraints), Extension(OID_KEY_USAGE, True, usage))


def issue_x509(
    *,
    subject: str,
    issuer: str,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    signer: rsa.RSAPrivateKey,
    serial: int,
    valid: tuple[datetime, datetime],
    extensions: Sequence[Extension] = (),
    organisation: str = "Sealift lab",
) -> X509Certificate:
    """Make a certificate in AMD's format, for a lab's root or an emulated secure processor."""
    listed = der.write(der.SEQUENCE, *(_write_extension(each) for each in extensions))
    algorithm = write_pss_sha384()
    signed = der.write(
        der.SEQUENCE,
        der.write(der.explicit(0), der.write_integer(2)),
        der.write_integer(serial),
        algorithm,
        make_name(issuer, organisation),
        der.write(der.SEQUENCE, *(der.write_time(each) for each in valid)),
        make_name(subject, organisation),
        _write_key(key),
        *([der.write(der.explicit(3), listed)] if extensions else []),
    )
    signature = der.write_bits(sign_pss(signer, signed, "sha384"))
    return parse_x509(der.write(der.SEQUENCE, signed, algorithm, signature))


def _is_sha384(element: der.Element) -> bool:
    parts = element.sequence(_WHAT, 1)
    parameters_absent = len(parts) == 1 or (len(parts) == 2 and parts[1].tag == der.NULL)
    return der.object_id(parts[0], _WHAT) == OID_SHA384 and parameters_absent


def _read_extensions(rest: list[der.Element]) -> tuple[Extension, ...]:
    block = next((each for each in rest if each.tag == der.explicit(3)), None)
    return () if block is None else read_extensions(block.only_child(_WHAT))


def read_extensions(listed: der.Element) -> tuple[Extension, ...]:
    """The extensions in a SEQUENCE. A duplicate is refused, because it is not defined which one counts."""
    found: dict[str, Extension] = {}
    for each in listed.sequence(_WHAT):
        parts = each.sequence(_WHAT, 2)
        oid = der.object_id(parts[0], _WHAT)
        critical = parts[1].tag == der.BOOLEAN and parts[1].value == b"\xff"
        value = parts[-1].expect(der.OCTET_STRING, _WHAT).value
        if oid in found or len(parts) > 3:
            raise der.broken(_WHAT)
        found[oid] = Extension(oid, critical, value)
    return tuple(found.values())


def _write_extension(extension: Extension) -> bytes:
    critical = [der.write(der.BOOLEAN, b"\xff")] if extension.critical else []
    return der.write(
        der.SEQUENCE,
        der.write_object_id(extension.oid),
        *critical,
        der.write(der.OCTET_STRING, extension.value),
    )


def _read_key(key_info: bytes) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    algorithm, key = der.read_whole(key_info, _WHAT).sequence(_WHAT, 2)[:2]
    parts = algorithm.sequence(_WHAT, 1)
    kind = der.object_id(parts[0], _WHAT)
    if kind == OID_RSA:
        numbers = der.read_whole(der.bits(key, _WHAT), _WHAT).sequence(_WHAT, 2)
        return rsa_key(der.integer(numbers[0], _WHAT), der.integer(numbers[1], _WHAT))
    if kind == OID_EC and len(parts) == 2 and der.object_id(parts[1], _WHAT) == OID_P384:
        encoded = der.bits(key, _WHAT)
        if len(encoded) == 97 and encoded[0] == 4:
            x, y = (int.from_bytes(encoded[at : at + 48], "big") for at in (1, 49))
            return point(x, y, ec.SECP384R1())
    raise UnusableInput(
        "the certificate's key is neither RSA nor an uncompressed P-384 point",
        remedy="AMD issues no others; fetch it again",
    )


def _write_key(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    numbers = key.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        kind = der.write(der.SEQUENCE, der.write_object_id(OID_RSA), der.write(der.NULL))
        value = der.write(der.SEQUENCE, der.write_integer(numbers.n), der.write_integer(numbers.e))
    else:
        kind = der.write(der.SEQUENCE, der.write_object_id(OID_EC), der.write_object_id(OID_P384))
        value = b"\4" + numbers.x.to_bytes(48, "big") + numbers.y.to_bytes(48, "big")
    return der.write(der.SEQUENCE, kind, der.write_bits(value))
