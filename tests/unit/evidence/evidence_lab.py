"""Complete chains of our own: what the real ones look like, with private keys that tests can use."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sealift.evidence.formats.amd_certificate import (
    USAGE_ARK,
    USAGE_ASK,
    AmdCertificate,
    issue_amd_certificate,
)
from sealift.evidence.formats.crl import Crl, issue_crl
from sealift.evidence.formats.endorsement import Endorsement, Kind, endorsement_extensions
from sealift.evidence.formats.loading import load_certificates, load_crls, load_report
from sealift.evidence.formats.platform_chain import PlatformChain
from sealift.evidence.formats.sev_certificate import (
    ALGORITHM_ECDH,
    ALGORITHM_ECDSA,
    USAGE_CEK,
    USAGE_OCA,
    USAGE_PDH,
    USAGE_PEK,
    SevCertificate,
    add_signature,
    build_sev_certificate,
)
from sealift.evidence.formats.snp_report import PlatformBit, PolicyBit, Signer, SnpReport, sign_snp_report
from sealift.evidence.formats.tcb import Generation, Tcb, encode_tcb
from sealift.evidence.formats.x509_certificate import X509Certificate, ca_extensions, issue_x509
from sealift.evidence.verify.policy import ExtraRoot, Policy, SnpPolicy
from sealift.evidence.verify.snp import SnpEvidence, verify_snp

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.verify.verdict import Verdict

NOW = datetime(2026, 4, 1, tzinfo=UTC)
VALID = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2033, 1, 1, tzinfo=UTC))
CA_VALID = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC))

CPUS = {
    Generation.MILAN: (0x19, 0x01, 0x1),
    Generation.GENOA: (0x19, 0x11, 0x1),
    Generation.TURIN: (0x1A, 0x02, 0x1),
}
TCBS = {
    Generation.MILAN: Tcb(boot_loader=4, snp=0x18, microcode=0xDB),
    Generation.GENOA: Tcb(boot_loader=10, snp=0x17, microcode=0x54),
    Generation.TURIN: Tcb(boot_loader=1, tee=1, snp=4, microcode=0x50, fmc=1),
}
PRODUCTS = {Generation.MILAN: "Milan-B0", Generation.GENOA: "Genoa", Generation.TURIN: "Turin-B0"}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def flip(data: bytes, offset: int, mask: int = 1) -> bytes:
    changed = bytearray(data)
    changed[offset] ^= mask
    return bytes(changed)


def checks(verdict: Verdict) -> set[str]:
    return {reason.check for reason in verdict.reasons}


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key per name: making them is what takes the time here."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class SnpLab:
    """An ARK, an ASK and an ASVK per generation, a chip's key and a provider's."""

    roots: dict[Generation, X509Certificate]
    intermediates: dict[tuple[Generation, Kind], X509Certificate]
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls) -> SnpLab:
        roots, intermediates = {}, {}
        for serial, generation in enumerate(Generation, 1):
            product = generation.value.capitalize()
            ark = f"ARK-{product}"
            roots[generation] = issue_x509(
                subject=ark,
                issuer=ark,
                key=rsa_key("ark").public_key(),
                signer=rsa_key("ark"),
                serial=serial << 16,
                valid=CA_VALID,
                extensions=ca_extensions(None),
            )
            for kind, infix in ((Kind.VCEK, ""), (Kind.VLEK, "VLEK-")):
                intermediates[generation, kind] = issue_x509(
                    subject=f"SEV-{infix}{product}",
                    issuer=ark,
                    key=rsa_key("ask").public_key(),
                    signer=rsa_key("ark"),
                    serial=(serial << 16) + 1 + (kind is Kind.VLEK),
                    valid=CA_VALID,
                    extensions=ca_extensions(0),
                )
        return cls(roots, intermediates, ec.generate_private_key(ec.SECP384R1()))

    def chip_id(self, generation: Generation) -> bytes:
        return bytes(range(1, 9 if generation is Generation.TURIN else 65))

    def endorsement(self, generation: Generation = Generation.MILAN, kind: Kind = Kind.VCEK) -> Endorsement:
        return Endorsement(
            kind=kind,
            generation=generation,
            product=PRODUCTS[generation],
            tcb=TCBS[generation],
            chip_id=self.chip_id(generation) if kind is Kind.VCEK else None,
            provider="cc-lab.example" if kind is Kind.VLEK else None,
        )

    def certify(self, endorsement: Endorsement, **changes: Any) -> X509Certificate:
        infix = "VLEK-" if endorsement.kind is Kind.VLEK else ""
        issued: dict[str, Any] = {
            "subject": f"SEV-{endorsement.kind}",
            "issuer": f"SEV-{infix}{endorsement.generation.value.capitalize()}",
            "key": self.key.public_key(),
            "signer": rsa_key("ask"),
            "serial": 0,
            "valid": VALID,
            "extensions": endorsement_extensions(endorsement),
        }
        return issue_x509(**issued | changes)

    def report(self, generation: Generation = Generation.MILAN, kind: Kind = Kind.VCEK) -> SnpReport:
        tcb = encode_tcb(TCBS[generation], generation)
        return SnpReport(
            version=3,
            guest_svn=2,
            policy=PolicyBit.ALWAYS_ONE | PolicyBit.SMT | 0x1F,
            platform_info=PlatformBit.SMT | PlatformBit.ECC | PlatformBit.ALIAS_CHECK,
            key_info=(Signer.VLEK if kind is Kind.VLEK else Signer.VCEK) << 2,
            current_tcb=tcb,
            reported_tcb=tcb,
            committed_tcb=tcb,
            launch_tcb=tcb,
            report_data=bytes(range(64)),
            measurement=bytes(range(48)),
            cpuid=CPUS[generation],
            chip_id=self.chip_id(generation).ljust(64, b"\0"),
            current_version=(1, 55, 40),
            committed_version=(1, 55, 40),
        )

    def evidence(
        self,
        generation: Generation = Generation.MILAN,
        kind: Kind = Kind.VCEK,
        *,
        endorsement: dict[str, Any] | None = None,
        certificate: dict[str, Any] | None = None,
        crls: tuple[Crl, ...] = (),
        **changes: Any,
    ) -> SnpEvidence:
        endorsed = replace(self.endorsement(generation, kind), **endorsement or {})
        return SnpEvidence(
            report=sign_snp_report(replace(self.report(generation, kind), **changes), self.key),
            key=self.certify(endorsed, **certificate or {}),
            chain=(self.intermediates[generation, kind], self.roots[generation]),
            crls=crls,
        )

    def policy(self, **rules: Any) -> Policy:
        named = tuple(ExtraRoot(sha256=root.sha256, generation=each) for each, root in self.roots.items())
        return Policy(extra_roots=named, snp=SnpPolicy(**rules))

    def crl(self, generation: Generation = Generation.MILAN, **changes: Any) -> Crl:
        issued: dict[str, Any] = {
            "issuer": f"ARK-{generation.value.capitalize()}",
            "signer": rsa_key("ark"),
            "this_update": datetime(2026, 3, 1, tzinfo=UTC),
            "next_update": datetime(2026, 9, 1, tzinfo=UTC),
        }
        return issue_crl(**issued | changes)

    def verdict(self, evidence: SnpEvidence, at: datetime = NOW, **rules: Any) -> Verdict:
        return verify_snp(evidence, self.policy(**rules), at=at)


@dataclass(frozen=True)
class LegacyLab:
    """A platform with a root of our own. 2048 bits: the layout of Naples; 4096: that of all later ones."""

    chain: PlatformChain
    oca: ec.EllipticCurvePrivateKey
    cek: ec.EllipticCurvePrivateKey
    pek: ec.EllipticCurvePrivateKey
    pdh: ec.EllipticCurvePrivateKey
    bits: int

    @classmethod
    def create(cls, bits: int, api: tuple[int, int] = (0, 24)) -> LegacyLab:
        ark_id, ask_id = b"lab root key id.", b"lab sign key id."
        ark = lab_ark(bits, ark_id)
        ask = issue_amd_certificate(
            subject=rsa_key("ask", bits).public_key(),
            signer=rsa_key("ark", bits),
            usage=USAGE_ASK,
            key_id=ask_id,
            certifying_id=ark_id,
        )
        oca, cek, pek, pdh = (ec.generate_private_key(ec.SECP384R1()) for _ in range(4))

        def blank(usage: int, key: ec.EllipticCurvePrivateKey) -> SevCertificate:
            algorithm = ALGORITHM_ECDH if usage == USAGE_PDH else ALGORITHM_ECDSA
            return build_sev_certificate(usage=usage, algorithm=algorithm, key=key.public_key(), api=api)

        wide = bits == 4096
        chain = PlatformChain(
            ark=ark,
            ask=ask,
            cek=add_signature(blank(USAGE_CEK, cek), rsa_key("ask", bits), USAGE_ASK, sha384=wide),
            oca=add_signature(blank(USAGE_OCA, oca), oca, USAGE_OCA),
            pek=add_signature(add_signature(blank(USAGE_PEK, pek), oca, USAGE_OCA), cek, USAGE_CEK),
            pdh=add_signature(blank(USAGE_PDH, pdh), pek, USAGE_PEK),
        )
        return cls(chain, oca, cek, pek, pdh, bits)

    def policy(self, generation: str | None = "rome", **rules: Any) -> Policy:
        assert self.chain.ark is not None
        root = ExtraRoot(sha256=self.chain.ark.sha256, generation=generation)
        return Policy.model_validate({"extra_roots": [root.model_dump()], "sev": rules})


def lab_ark(bits: int, key_id: bytes, name: str = "ark") -> AmdCertificate:
    return issue_amd_certificate(
        subject=rsa_key(name, bits).public_key(),
        signer=rsa_key(name, bits),
        usage=USAGE_ARK,
        key_id=key_id,
        certifying_id=key_id,
    )


def vector_evidence(vectors: Path, name: str, crl: str | None = None) -> SnpEvidence:
    snp = vectors / "snp"
    return SnpEvidence(
        report=load_report((snp / name / "attestation_report.bin").read_bytes()),
        key=load_certificates((snp / name / "vcek.pem").read_bytes())[0],
        chain=tuple(load_certificates((snp / name / "ask_ark.pem").read_bytes())),
        crls=tuple(load_crls((snp / crl).read_bytes())) if crl else (),
    )
