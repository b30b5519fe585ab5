"""From a guest's answer to the verifier's input: the report, and its certificates by role.

Only the owner's side uses this module: the verifier needs more packages than a provider's host has.
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
    """Parse a report and its certificate table for the verifier. `others`: more certificates, in DER.

    Raises UnusableInput if they do not have exactly one endorsement key.
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
            # An unreadable certificate goes to the verifier, so that the verdict says what is wrong with it.
            fault = error.message
    # A provider may add its own entries; Sealift does not read them.
    above = [found[name] for name in (certificate_table.ASK, certificate_table.ARK) if name in found]
    certificates += [parse_x509(each) for each in (*above, *others)]
    keys = [each for each in certificates if not each.may_sign_certificates]
    if fault and not keys:
        return SnpEvidence(parse_snp_report(report), None, tuple(certificates), crls, fault)
    if len(keys) != 1:
        raise UnusableInput(
            "the evidence has no certificate of the key that signed the report"
            if not keys
            else "the evidence has several endorsement keys",
            remedy="Get the chip's VCEK from AMD, by the report's chip id and TCB",
        )
    chain = tuple(each for each in certificates if each is not keys[0])
    return SnpEvidence(parse_snp_report(report), keys[0], chain, crls)
