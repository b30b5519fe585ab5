"""Certificate revocation lists of AMD's roots (VCEK/KDS, section 4.1; RFC 5280, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats import der
from sealift.evidence.formats.signature import sign_pss
from sealift.evidence.formats.x509_certificate import (
    Name,
    common_name,
    is_pss_sha384,
    make_name,
    read_extensions,
    read_name,
    write_pss_sha384,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric import rsa

SIZE_LIMIT = 24 * 1024
# An entry with a serial number of 16 bytes and a date has 35 bytes: more than 700 of them do not fit.
REVOKED_LIMIT = 700

_OID_NUMBER = "2.5.29.20"
_WHAT = "the CRL"


@dataclass(frozen=True, slots=True)
class Crl:
    """A revocation list as received. The serial numbers are of certificates that its issuer made."""

    der: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    pss_sha384: bool
    issuer: Name
    this_update: datetime
    next_update: datetime | None
    revoked: frozenset[int]
    number: int | None
    unknown_critical: bool

    @property
    def issuer_name(self) -> str:
        """The issuer's common name."""
        return common_name(self.issuer)


def parse_crl(data: bytes) -> Crl:
    """Read a DER CRL of at most 24 KiB (AMD's have about 1 KiB)."""
    if len(data) > SIZE_LIMIT:
        raise UnusableInput("the CRL is larger than 24 KiB", remedy="AMD's have about 1 KiB")
    parts = der.read_whole(bytes(data), _WHAT).sequence(_WHAT, 3)
    if len(parts) != 3:
        raise der.broken(_WHAT)
    to_sign, algorithm, signature = parts
    fields = to_sign.sequence(_WHAT, 3)
    if fields[0].tag == der.INTEGER:
        fields = fields[1:]
    if len(fields) < 3 or fields[0].encoded != algorithm.encoded:
        raise der.broken(_WHAT)
    issuer, this_update, rest = fields[1], fields[2], fields[3:]
    next_update = None
    if rest and rest[0].tag in {der.UTC_TIME, der.GENERALIZED_TIME}:
        next_update, rest = der.time(rest[0], _WHAT), rest[1:]
    revoked: set[int] = set()
    unknown = False
    if rest and rest[0].tag == der.SEQUENCE:
        for entry in rest[0].children(_WHAT, REVOKED_LIMIT):
            inside = entry.sequence(_WHAT, 2)
            revoked.add(der.integer(inside[0], _WHAT))
            unknown = unknown or any(each.critical for part in inside[2:] for each in read_extensions(part))
        rest = rest[1:]
    listed = read_extensions(rest[0].only_child(_WHAT)) if rest and rest[0].tag == der.explicit(0) else ()
    number = next((each.value for each in listed if each.oid == _OID_NUMBER), None)
    return Crl(
        der=bytes(data),
        signed=to_sign.encoded,
        signature=der.bits(signature, _WHAT),
        pss_sha384=is_pss_sha384(algorithm),
        issuer=read_name(issuer),
        this_update=der.time(this_update, _WHAT),
        next_update=next_update,
        revoked=frozenset(revoked),
        number=None if number is None else der.integer(der.read_whole(number, _WHAT), _WHAT),
        unknown_critical=unknown or any(each.critical for each in listed),
    )


def issue_crl(
    *,
    issuer: str,
    signer: rsa.RSAPrivateKey,
    this_update: datetime,
    next_update: datetime,
    revoked: Iterable[int] = (),
    number: int = 1,
    organisation: str = "Sealift lab",
) -> Crl:
    """Make a CRL in AMD's format."""
    entries = [
        der.write(der.SEQUENCE, der.write_integer(serial), der.write_time(this_update)) for serial in revoked
    ]
    number_extension = der.write(
        der.SEQUENCE,
        der.write_object_id(_OID_NUMBER),
        der.write(der.OCTET_STRING, der.write_integer(number)),
    )
    algorithm = write_pss_sha384()
    signed = der.write(
        der.SEQUENCE,
        der.write_integer(1),
        algorithm,
        make_name(issuer, organisation),
        der.write_time(this_update),
        der.write_time(next_update),
        *([der.write(der.SEQUENCE, *entries)] if entries else []),
        der.write(der.explicit(0), der.write(der.SEQUENCE, number_extension)),
    )
    signature = der.write_bits(sign_pss(signer, signed, "sha384"))
    return parse_crl(der.write(der.SEQUENCE, signed, algorithm, signature))
