"""What a verdict shows: a check is passed only where it was made, and what is refused is refused by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from evidence_lab import NOW, TCBS, SnpLab, checks, flip, rsa_key, vector_evidence
from test_evidence_cli import AT, ask, real

from sealift.errors import UnusableInput
from sealift.evidence.formats import certificate_table as table
from sealift.evidence.formats import der
from sealift.evidence.formats.loading import load_certificates
from sealift.evidence.formats.tcb import Generation, encode_tcb
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.verify.policy import Policy
from sealift.evidence.verify.snp import verify_snp
from sealift.processor.certificates import snp_evidence

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.verify.verdict import Verdict

MILAN = Generation.MILAN
GOOD = TCBS[MILAN]


def passed(verdict: Verdict) -> set[str]:
    return {each.check for each in verdict.checked if each.holds}


REFUSED_CRLS: list[dict[str, Any]] = [
    {"next_update": datetime(2026, 3, 31, tzinfo=UTC)},
    {"this_update": datetime(2026, 4, 2, tzinfo=UTC)},
    {"signer": "forger"},
    {"issuer": "ARK-Genoa"},
]


@pytest.mark.parametrize("changes", REFUSED_CRLS, ids=str)
@pytest.mark.parametrize("required", [False, True])
def test_a_crl_that_is_refused_says_of_nobody_that_he_is_not_revoked(
    snp_lab: SnpLab, changes: dict[str, Any], required: bool
) -> None:
    if "signer" in changes:
        changes = {"signer": rsa_key("forger")}
    verdict = snp_lab.verdict(snp_lab.evidence(crls=(snp_lab.crl(**changes),)), require_crl=required)
    assert checks(verdict) == {"crl"}
    assert "revocation" not in passed(verdict)
    assert "revocation" in verdict.unchecked


def test_the_real_crl_out_of_its_time_is_no_pass(vectors: Path) -> None:
    evidence = vector_evidence(vectors, "milan", crl="crl-milan.pem")
    stale = verify_snp(evidence, Policy(), at=datetime(2026, 6, 1, tzinfo=UTC))
    assert checks(stale) == {"crl"}
    assert "revocation" not in passed(stale)
    assert "revocation" in stale.unchecked
    foreign = replace(vector_evidence(vectors, "genoa"), crls=evidence.crls)
    assert "revocation" not in passed(verify_snp(foreign, Policy(), at=NOW))
    current = verify_snp(evidence, Policy(), at=NOW)
    assert "revocation" in passed(current)
    assert "revocation" not in current.unchecked


def test_what_was_revoked_once_stays_revoked_under_a_stale_crl(snp_lab: SnpLab) -> None:
    serial = snp_lab.evidence().chain[0].serial
    stale = snp_lab.crl(revoked=[serial], next_update=datetime(2026, 3, 31, tzinfo=UTC))
    verdict = snp_lab.verdict(snp_lab.evidence(crls=(stale,)))
    assert checks(verdict) == {"crl", "revocation"}
    forged = snp_lab.crl(revoked=[serial], signer=rsa_key("forger"))
    assert checks(snp_lab.verdict(snp_lab.evidence(crls=(forged,)))) == {"crl"}


def test_a_missing_crl_is_unchecked_and_refused_where_it_is_demanded(snp_lab: SnpLab) -> None:
    verdict = snp_lab.verdict(snp_lab.evidence(), require_crl=True)
    assert checks(verdict) == {"crl"}
    assert "revocation" in verdict.unchecked


def tcb(**changes: int) -> bytes:
    return encode_tcb(replace(GOOD, **changes), MILAN)


@pytest.mark.parametrize(
    ("report", "expected", "word"),
    [
        ({"committed_tcb": tcb(snp=0x19)}, {"committed_above_current"}, "snp"),
        ({"committed_tcb": tcb(microcode=0xDC)}, {"committed_above_current"}, "microcode"),
        (
            {"current_tcb": tcb(tee=1), "committed_tcb": tcb(snp=0x18), "reported_tcb": tcb(tee=1)},
            {"reported_above_committed", "provisional_tcb"},
            "tee",
        ),
        (
            {"current_tcb": tcb(boot_loader=3), "committed_tcb": tcb(boot_loader=3)},
            {"reported_above_current", "reported_above_committed", "launch_above_current"},
            "boot_loader",
        ),
        ({"launch_tcb": tcb(snp=0x19)}, {"launch_above_current"}, "snp"),
        ({"committed_version": (1, 55, 41)}, {"committed_version_above_current"}, "version"),
        ({"committed_version": (2, 0, 0)}, {"committed_version_above_current"}, "version"),
    ],
    ids=lambda each: ",".join(sorted(each)) if isinstance(each, dict | set) else str(each),
)
def test_levels_that_no_firmware_has_are_refused_each_by_its_own_check(
    snp_lab: SnpLab, report: dict[str, Any], expected: set[str], word: str
) -> None:
    endorsed = {"tcb": replace(GOOD, tee=1)} if "tee" in word else {}
    verdict = snp_lab.verdict(snp_lab.evidence(endorsement=endorsed, **report))
    assert verdict.genuine
    assert checks(verdict) == expected
    assert all(word in reason.detail for reason in verdict.reasons)


ORDERS = {
    "reported_above_current",
    "reported_above_committed",
    "committed_above_current",
    "launch_above_current",
}


@pytest.mark.parametrize("generation", list(Generation))
def test_an_honest_report_passes_each_of_the_orders(snp_lab: SnpLab, generation: Generation) -> None:
    assert passed(snp_lab.verdict(snp_lab.evidence(generation))) >= ORDERS


@pytest.mark.parametrize("name", ["milan", "genoa"])
def test_a_real_report_passes_each_of_the_orders(vectors: Path, name: str) -> None:
    verdict = verify_snp(vector_evidence(vectors, name), Policy(), at=NOW)
    assert passed(verdict) >= ORDERS | {"committed_version_above_current"}


def test_what_the_policy_allows_of_it_is_listed_as_unchecked(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence(launch_tcb=tcb(snp=0x19), committed_tcb=tcb(boot_loader=3))
    verdict = snp_lab.verdict(
        evidence,
        allow_launch_above_current=True,
        allow_reported_above_committed=True,
        allow_provisional_firmware=True,
    )
    assert verdict.accepted
    assert {"launch_above_current", "reported_above_committed", "provisional_tcb"} <= set(verdict.unchecked)


def real_table(vectors: Path, vcek: bytes) -> bytes:
    evidence = vector_evidence(vectors, "milan")
    entries = {table.VCEK: vcek, table.ASK: evidence.chain[0].der, table.ARK: evidence.chain[1].der}
    return table.pack_certificate_table(entries)


@pytest.mark.parametrize(("name", "step"), [("milan", 1), ("genoa", 5)])
def test_each_altered_byte_of_a_vcek_is_refused_by_a_check_that_is_named(
    vectors: Path, name: str, step: int
) -> None:
    evidence = vector_evidence(vectors, name)
    assert evidence.key is not None
    certificate = evidence.key.der
    unread = 0
    for offset in range(0, len(certificate), step):
        changed = flip(certificate, offset, 1 << offset % 8)
        entries = {table.VCEK: changed, table.ASK: evidence.chain[0].der, table.ARK: evidence.chain[1].der}
        given = snp_evidence(evidence.report.raw, table.pack_certificate_table(entries))
        verdict = verify_snp(given, Policy(), at=NOW)
        assert not verdict.genuine, offset
        assert not verdict.accepted, offset
        assert "vek_signature" in checks(verdict), offset
        if given.key is None:
            unread += 1
            assert "vek_certificate" in checks(verdict)
            assert next(each.detail for each in verdict.reasons if each.check == "vek_certificate")
    assert 0 < unread < len(certificate)


def test_an_altered_vcek_is_refused_by_the_command_with_a_verdict(vectors: Path, tmp_path: Path) -> None:
    report, _, _, *chain = real(vectors)
    (key,) = load_certificates((vectors / "snp/milan/vcek.pem").read_bytes())
    for offset in (0, 1, 4, 9, 60, 400, len(key.der) - 600, len(key.der) - 1):
        (tmp_path / "vcek").write_bytes(flip(key.der, offset, 0x20))
        status, said = ask("verify-report", report, "--vek", tmp_path / "vcek", *chain, *AT)
        assert status == 1, offset
        assert said["genuine"] is said["accepted"] is False
        assert "vek_signature" in {each["check"] for each in said["reasons"]}
    (tmp_path / "vcek").write_bytes(b"<html>not a certificate</html>")
    status, said = ask("verify-report", report, "--vek", tmp_path / "vcek", *chain, *AT)
    assert status == 1
    assert "vek_certificate" in {each["check"] for each in said["reasons"]}
    # With nothing of the chain at hand either, it is still a verdict.
    status, said = ask(
        "verify-report", report, "--vek", tmp_path / "vcek", *AT, "--offline", "--cache", tmp_path
    )
    assert status == 1
    assert "ark_signature" in {each["check"] for each in said["reasons"]}


def test_what_no_signature_covers_cannot_be_added_to_a_certificate(vectors: Path) -> None:
    evidence = vector_evidence(vectors, "milan")
    assert evidence.key is not None
    parts = [each.encoded for each in der.read_whole(evidence.key.der, "it").sequence("it")]
    grown = der.write(der.SEQUENCE, *parts, der.write(der.NULL))
    with pytest.raises(UnusableInput):
        parse_x509(grown)
    verdict = verify_snp(snp_evidence(evidence.report.raw, real_table(vectors, grown)), Policy(), at=NOW)
    assert not verdict.genuine
    assert "vek_certificate" in checks(verdict)
    (crl,) = vector_evidence(vectors, "milan", crl="crl-milan.pem").crls
    parts = [each.encoded for each in der.read_whole(crl.der, "it").sequence("it")]
    from sealift.evidence.formats.crl import parse_crl

    with pytest.raises(UnusableInput):
        parse_crl(der.write(der.SEQUENCE, *parts, der.write(der.NULL)))


def test_an_entry_of_the_providers_own_does_not_keep_a_true_report_from_being_judged(vectors: Path) -> None:
    from uuid import uuid4

    evidence = vector_evidence(vectors, "milan")
    assert evidence.key is not None
    entries = {
        table.VCEK: evidence.key.der,
        table.ASK: evidence.chain[0].der,
        table.ARK: evidence.chain[1].der,
    }
    packed = table.pack_certificate_table({**entries, uuid4(): b"not a certificate"})
    assert verify_snp(snp_evidence(evidence.report.raw, packed), Policy(), at=NOW).accepted
