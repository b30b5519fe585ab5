"""OpenSSL agrees on chains and CRLs: AMD's own, and those that we issue."""

from __future__ import annotations

import shutil
import subprocess
from base64 import encodebytes
from typing import TYPE_CHECKING

import pytest
from evidence_lab import SnpLab, rsa_key, vector_evidence

from sealift.evidence.formats.endorsement import Kind
from sealift.evidence.formats.loading import load_crls
from sealift.evidence.formats.tcb import Generation
from sealift.evidence.verify.signatures import crl_signed_by, x509_signed_by
from sealift.evidence.verify.snp import SnpEvidence

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.formats.crl import Crl
    from sealift.evidence.formats.x509_certificate import X509Certificate

pytestmark = pytest.mark.oracle

AT = "1775001600"  # 2026-04-01T00:00:00Z


@pytest.fixture(scope="module")
def openssl() -> str:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl is not installed")
    return tool


def pem(label: str, data: bytes) -> str:
    return f"-----BEGIN {label}-----\n{encodebytes(data).decode()}-----END {label}-----\n"


def agrees(openssl: str, folder: Path, evidence: SnpEvidence, crl: Crl | None = None) -> bool:
    ask, ark = evidence.chain
    (folder / "ark.pem").write_text(pem("CERTIFICATE", ark.der))
    (folder / "ask.pem").write_text(pem("CERTIFICATE", ask.der))
    (folder / "vek.pem").write_text(pem("CERTIFICATE", evidence.key.der))
    command = [openssl, "verify", "-attime", AT, "-CAfile", str(folder / "ark.pem")]
    if crl is None:
        command += ["-untrusted", str(folder / "ask.pem"), str(folder / "vek.pem")]
    else:
        (folder / "crl.pem").write_text(pem("X509 CRL", crl.der))
        command += ["-crl_check", "-CRLfile", str(folder / "crl.pem"), str(folder / "ask.pem")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def ours(evidence: SnpEvidence) -> bool:
    ask, ark = evidence.chain
    links: list[tuple[X509Certificate, X509Certificate]] = [(evidence.key, ask), (ask, ark), (ark, ark)]
    return all(x509_signed_by(subject, signer) for subject, signer in links)


@pytest.mark.parametrize("name", ["milan", "genoa"])
def test_openssl_agrees_on_the_real_chains(openssl: str, vectors: Path, tmp_path: Path, name: str) -> None:
    evidence = vector_evidence(vectors, name)
    assert ours(evidence)
    assert agrees(openssl, tmp_path, evidence)
    other = vector_evidence(vectors, "genoa" if name == "milan" else "milan")
    crossed = SnpEvidence(evidence.report, evidence.key, other.chain)
    assert not ours(crossed)
    assert not agrees(openssl, tmp_path, crossed)


def test_openssl_agrees_on_the_real_crl(openssl: str, vectors: Path, tmp_path: Path) -> None:
    evidence = vector_evidence(vectors, "milan")
    (crl,) = load_crls((vectors / "snp/crl-milan.pem").read_bytes())
    assert crl_signed_by(crl, evidence.chain[1])
    assert agrees(openssl, tmp_path, evidence, crl)


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("kind", list(Kind))
def test_openssl_accepts_the_chains_that_we_issue(
    openssl: str, snp_lab: SnpLab, tmp_path: Path, generation: Generation, kind: Kind
) -> None:
    evidence = snp_lab.evidence(generation, kind)
    assert ours(evidence)
    assert agrees(openssl, tmp_path, evidence)


def test_openssl_reads_the_crls_that_we_issue_as_we_do(openssl: str, snp_lab: SnpLab, tmp_path: Path) -> None:
    evidence = snp_lab.evidence()
    assert agrees(openssl, tmp_path, evidence, snp_lab.crl(revoked=[99]))
    assert not agrees(openssl, tmp_path, evidence, snp_lab.crl(revoked=[evidence.chain[0].serial]))
    assert not agrees(openssl, tmp_path, evidence, snp_lab.crl(signer=rsa_key("forger")))


def test_cryptography_reads_the_certificates_that_we_issue_as_we_do(snp_lab: SnpLab) -> None:
    from cryptography import x509

    for generation in Generation:
        for certificate in snp_lab.evidence(generation).chain:
            theirs = x509.load_der_x509_certificate(certificate.der)
            assert theirs.serial_number == certificate.serial
            assert theirs.tbs_certificate_bytes == certificate.signed
            assert theirs.not_valid_before_utc == certificate.not_before
            assert theirs.not_valid_after_utc == certificate.not_after
            assert {each.oid.dotted_string for each in theirs.extensions} == {
                each.oid for each in certificate.extensions
            }
