"""What the key server has for a report, read before anybody keeps it: no login page stands for a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence import formats, kds
from sealift.evidence.endorsement import Kind, read_endorsement
from sealift.evidence.snp_report import Signer
from sealift.evidence.tcb import decode_tcb, generation_of_cpu

if TYPE_CHECKING:
    from sealift.evidence.crl import Crl
    from sealift.evidence.endorsement import Endorsement
    from sealift.evidence.kds import KeyServer
    from sealift.evidence.snp_report import SignedReport
    from sealift.evidence.x509_certificate import X509Certificate


def fetch_key(server: KeyServer, report: SignedReport) -> list[X509Certificate]:
    """The VCEK of the report's chip at its TCB, and what comes along. UnusableInput where the report names none."""
    fields = report.fields
    generation = generation_of_cpu(*fields.cpuid[:2]) if fields.cpuid else None
    if generation is None or fields.signer is not Signer.VCEK:
        raise UnusableInput(
            "the report does not say which certificate endorses it", remedy="Give it with --vek"
        )
    tcb = decode_tcb(fields.reported_tcb, generation)

    def read(content: bytes) -> list[X509Certificate]:
        found = formats.load_certificates(content)
        endorsed = read_endorsement(
            next((each for each in found if not each.may_sign_certificates), found[0])
        )
        chip = endorsed.chip_id or b""
        asked = (generation, tcb, fields.chip_id[: len(chip)])
        if endorsed.kind is not Kind.VCEK or (endorsed.generation, endorsed.tcb, chip) != asked:
            raise UnusableInput("it is the certificate of another chip or TCB", remedy="Fetch it again")
        return found

    return server.fetch(kds.vcek_path(generation, fields.chip_id, tcb), read)


def fetch_chain(server: KeyServer, endorsed: Endorsement) -> list[X509Certificate]:
    """The intermediate and the root above an endorsement key."""
    product = endorsed.generation.value.capitalize()
    infix = "VLEK-" if endorsed.kind is Kind.VLEK else ""

    def read(content: bytes) -> list[X509Certificate]:
        found = formats.load_certificates(content)
        if {each.subject_name for each in found} != {f"SEV-{infix}{product}", f"ARK-{product}"}:
            raise UnusableInput(f"it is not the chain of {product}", remedy="Fetch it again")
        return found

    return server.fetch(kds.chain_path(endorsed.kind, endorsed.generation), read)


def fetch_crls(server: KeyServer, endorsed: Endorsement) -> list[Crl]:
    """The root's CRL. None where it cannot be had: the verdict says so, beside every other reason."""
    issuer = f"ARK-{endorsed.generation.value.capitalize()}"

    def read(content: bytes) -> list[Crl]:
        found = formats.load_crls(content)
        if any(each.issuer_name != issuer for each in found):
            raise UnusableInput(f"it is not the CRL of {issuer}", remedy="Fetch it again")
        return found

    try:
        return server.fetch(kds.crl_path(endorsed.kind, endorsed.generation), read, fresh=True)
    except (HostUnreachable, UnusableInput):
        return []
