"""The certificates and CRLs that belong to a report, from AMD's key server.

Each answer is read before it is kept: a login page is never taken for a certificate.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence.fetch import kds
from sealift.evidence.formats.endorsement import Kind, read_endorsement
from sealift.evidence.formats.loading import load_certificates, load_crls
from sealift.evidence.formats.snp_report import Signer
from sealift.evidence.formats.tcb import decode_tcb, generation_of_cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.evidence.fetch.kds import KeyServer
    from sealift.evidence.formats.crl import Crl
    from sealift.evidence.formats.endorsement import Endorsement
    from sealift.evidence.formats.snp_report import SignedReport
    from sealift.evidence.formats.x509_certificate import X509Certificate


@dataclass(frozen=True, slots=True)
class Certificates:
    """Those that belong to a report. `key` is None where no endorsement key can be read."""

    key: X509Certificate | None
    chain: tuple[X509Certificate, ...]
    crls: tuple[Crl, ...]


def complete(
    server: KeyServer,
    report: SignedReport,
    keys: Sequence[X509Certificate] | None = None,
    chain: Sequence[X509Certificate] = (),
    crls: Sequence[Crl] = (),
    *,
    crl_wanted: bool,
) -> Certificates:
    """The certificates that are given, and from cache or server those that are not.

    `keys`: the endorsement key, perhaps with its chain; None fetches it, an empty one says that it cannot be read.
    Raises HostUnreachable where neither cache nor server has a certificate.
    """
    if keys is None:
        keys = fetch_key(server, report)
    # The file of a key may have its chain, too: the key is then the one that is no certificate authority.
    key = next((each for each in keys if not each.may_sign_certificates), keys[0] if keys else None)
    above = [*chain, *(each for each in keys if each is not key)]
    endorsed = None
    if key is not None:
        # The verdict says what cannot be read in it.
        with suppress(UnusableInput):
            endorsed = read_endorsement(key)
    if not above and endorsed is not None:
        above = fetch_chain(server, endorsed)
    if not crls and crl_wanted and endorsed is not None:
        crls = fetch_crls(server, endorsed)
    return Certificates(key, tuple(above), tuple(crls))


def fetch_key(server: KeyServer, report: SignedReport) -> list[X509Certificate]:
    """The VCEK of the report's chip at its TCB, with its chain if that is in the answer.

    Raises UnusableInput if the report does not name its chip or generation.
    """
    fields = report.fields
    generation = generation_of_cpu(*fields.cpuid[:2]) if fields.cpuid else None
    if generation is None or fields.signer is not Signer.VCEK:
        raise UnusableInput(
            "the report does not say which certificate endorses it", remedy="Give it with --vek"
        )
    tcb = decode_tcb(fields.reported_tcb, generation)

    def read(content: bytes) -> list[X509Certificate]:
        found = load_certificates(content)
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
        found = load_certificates(content)
        if {each.subject_name for each in found} != {f"SEV-{infix}{product}", f"ARK-{product}"}:
            raise UnusableInput(f"it is not the chain of {product}", remedy="Fetch it again")
        return found

    return server.fetch(kds.chain_path(endorsed.kind, endorsed.generation), read)


def fetch_crls(server: KeyServer, endorsed: Endorsement) -> list[Crl]:
    """The root's CRL. Empty if it cannot be fetched; the verdict then says so, with every other reason."""
    issuer = f"ARK-{endorsed.generation.value.capitalize()}"

    def read(content: bytes) -> list[Crl]:
        found = load_crls(content)
        if any(each.issuer_name != issuer for each in found):
            raise UnusableInput(f"it is not the CRL of {issuer}", remedy="Fetch it again")
        return found

    try:
        return server.fetch(kds.crl_path(endorsed.kind, endorsed.generation), read, fresh=True)
    except (HostUnreachable, UnusableInput):
        return []
