"""Reports, certificates, CRLs and chains from a file's content: PEM, DER, hexadecimal, base64 or a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats.armour import CHAIN_LIMIT, PEM_BLOCKS_LIMIT, split_der, unarmour
from sealift.evidence.formats.certificate_table import (
    ARK,
    ASK,
    VCEK,
    VLEK,
    is_certificate_table,
    parse_certificate_table,
)
from sealift.evidence.formats.crl import Crl, parse_crl
from sealift.evidence.formats.guest_messages import RESPONSE_BYTES, parse_response
from sealift.evidence.formats.platform_chain import PlatformChain, collect_platform, split_certificates
from sealift.evidence.formats.snp_report import SignedReport, parse_snp_report
from sealift.evidence.formats.x509_certificate import X509Certificate, parse_x509

if TYPE_CHECKING:
    from collections.abc import Iterable


_CERTIFICATE_GUIDS = (VCEK, VLEK, ASK, ARK)


def load_report(data: bytes) -> SignedReport:
    """The SNP report in a file: the report itself, or the kernel's response that contains it."""
    (block, *more) = unarmour(data)
    if not more and len(block) == RESPONSE_BYTES:
        return parse_response(block)
    return parse_snp_report(block)


def load_certificates(data: bytes) -> list[X509Certificate]:
    """The X.509 certificates in a file: PEM, DER (also several in a row), or a certificate table."""
    pieces: list[bytes] = []
    for block in unarmour(data):
        contents = [block]
        if is_certificate_table(block):
            table = parse_certificate_table(block)
            # A provider may add its own entries; Sealift does not read them.
            contents = [table[name] for name in _CERTIFICATE_GUIDS if name in table]
        for content in contents:
            pieces += split_der(content)
    if not pieces:
        raise UnusableInput("there is no certificate in the table", remedy="Read it from the guest again")
    if len(pieces) > PEM_BLOCKS_LIMIT or sum(map(len, pieces)) > CHAIN_LIMIT:
        raise UnusableInput("this is more than a chain of certificates has", remedy="Give one chain")
    return [parse_x509(each) for each in pieces]


def load_crls(data: bytes) -> list[Crl]:
    """The CRLs in a file, PEM or DER."""
    return [parse_crl(each) for block in unarmour(data) for each in split_der(block)]


def load_platform(files: Iterable[bytes]) -> PlatformChain:
    """The platform chain in files. Each file has any number of its certificates, in any order."""
    return collect_platform(
        certificate for data in files for block in unarmour(data) for certificate in split_certificates(block)
    )
