"""What a guest's answer is to the verifier: the report, and the certificates that came with it, in their roles.

The owner's side only: the verifier wants more packages than a provider's host has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.formats import certificate_table
from sealift.evidence.formats.crl import parse_crl
from sealift.evidence.formats.snp_report import parse_snp_report
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.verify.snp import SnpEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sealift.evidence.formats.crl import Crl


def snp_evidence(report: bytes, table: bytes, others: Iterable[bytes] = ()) -> SnpEvidence:
    """Report and certificate table as the verifier takes them; `others`: certificates in DER from elsewhere.

    Raises UnusableInput where no endorsement key is among them.
    """
    found = certificate_table.parse_certificate_table(table) if table else {}
    crls: tuple[Crl, ...] = ()
    if listed := found.get(certificate_table.CRL):
        crls = (parse_crl(listed),)
    certificates, fault = [], ""
    for name in (certificate_table.VCEK, certificate_table.VLEK):
        try:
            certificates += [parse_x509(found[name])] if name in found else []
        except UnusableInput as error:
            # One that was altered is judged, so that the verdict says what is wrong with it.
            fault = error.message
    # A provider may add entries of its own: they are not ours to read.
    above = [found[name] for name in (certificate_table.ASK, certificate_table.ARK) if name in found]
    certificates += [parse_x509(each) for each in (*above, *others)]
    keys = [each for each in certificates if not each.may_sign_certificates]
    if fault and not keys:
        return SnpEvidence(parse_snp_report(report), None, tuple(certificates), crls, fault)
    if len(keys) != 1:
        raise UnusableInput(
            "the evidence brings no certificate of the key that signed the report"
            if not keys
            else "the evidence brings several endorsement keys",
            remedy="Get the chip's VCEK from AMD, by the report's chip id and TCB",
        )
    chain = tuple(each for each in certificates if each is not keys[0])
    return SnpEvidence(parse_snp_report(report), keys[0], chain, crls)
