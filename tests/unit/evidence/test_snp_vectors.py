"""Real reports, chains, a CRL and an id block are read and judged as their vectors say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from evidence_lab import checks, flip, load, vector_evidence

from sealift.errors import UnusableInput
from sealift.evidence.formats.armour import unarmour
from sealift.evidence.formats.endorsement import read_endorsement
from sealift.evidence.formats.id_block import parse_id_auth, parse_id_block
from sealift.evidence.formats.loading import load_certificates, load_crls
from sealift.evidence.formats.signature import encode_key
from sealift.evidence.formats.snp_report import SIGNED_BYTES, parse_snp_report
from sealift.evidence.formats.tcb import decode_tcb
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.verify.policy import Policy, SnpPolicy
from sealift.evidence.verify.roots import X509_ROOTS
from sealift.evidence.verify.signatures import (
    crl_signed_by,
    id_block_signed,
    id_key_signed,
    report_signed_by,
    verify_ecdsa,
    x509_signed_by,
)
from sealift.evidence.verify.snp import SnpEvidence, verify_snp

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["milan", "genoa"]


def case_of(vectors: Path, name: str) -> dict[str, Any]:
    cases = load(vectors / "snp/expected.json")["reports"]
    return next(case for case in cases if case["name"] == name)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_real_report_has_the_fields_that_its_vector_says_and_packs_to_its_bytes(
    vectors: Path, name: str
) -> None:
    signed = vector_evidence(vectors, name).report
    report, expected = signed.fields, case_of(vectors, name)["report_fields"]
    for field in ("version", "guest_svn", "vmpl"):
        assert getattr(report, field) == expected[field]
    assert report.signature_algorithm == expected["signature_algo"]
    assert report.policy == int(expected["policy_hex"], 16)
    assert report.platform_info == int(expected["platform_info_hex"], 16)
    assert report.key_info == int(expected["key_info_hex"], 16)
    for field in (
        *("report_data", "measurement", "host_data", "id_key_digest", "author_key_digest"),
        *("report_id", "report_id_ma", "chip_id"),
    ):
        assert getattr(report, field).hex() == expected[f"{field}_hex"]
    assert report.cpuid == tuple(expected[f"cpuid_{part}"] for part in ("family", "model", "stepping"))
    assert list(report.current_version) == expected["current_version"]
    assert list(report.committed_version) == expected["committed_version"]
    endorsement = read_endorsement(vector_evidence(vectors, name).key)
    for which, levels in expected["tcb_decoded"].items():
        raw = getattr(report, f"{which}_tcb")
        assert raw.hex() == expected[f"{which}_tcb_raw_hex"]
        tcb = decode_tcb(raw, endorsement.generation)
        found = {"bootloader": tcb.boot_loader, "tee": tcb.tee, "snp": tcb.snp, "microcode": tcb.microcode}
        assert found == levels
    assert report.pack() == signed.raw[:SIGNED_BYTES]
    assert not signed.reserved_in_use


@pytest.mark.parametrize("name", NAMES)
def test_a_real_endorsement_key_says_what_its_vector_says(vectors: Path, name: str) -> None:
    endorsement = read_endorsement(vector_evidence(vectors, name).key)
    expected = case_of(vectors, name)["vcek_fields"]
    assert endorsement.product == expected["product_name"]
    assert endorsement.chip_id is not None
    assert endorsement.chip_id.hex() == expected["hwid_hex"]
    assert endorsement.tcb.boot_loader == expected["bootloader_spl"]
    assert endorsement.tcb.tee == expected["tee_spl"]
    assert endorsement.tcb.snp == expected["snp_spl"]
    assert endorsement.tcb.microcode == expected["microcode_spl"]


@pytest.mark.parametrize("name", NAMES)
def test_a_real_report_is_accepted_by_the_strict_default_policy(vectors: Path, name: str) -> None:
    case = case_of(vectors, name)
    verdict = verify_snp(vector_evidence(vectors, name), Policy(), at=moment(case["verify_at"]))
    assert verdict.reasons == ()
    assert verdict.genuine
    assert verdict.accepted
    assert verdict.generation == name
    assert not verdict.extra_root
    assert {"measurement", "report_data", "revocation", "host_data"} <= set(verdict.unchecked)


@pytest.mark.parametrize("name", NAMES)
def test_every_negative_of_a_real_report_is_rejected_for_its_reason(vectors: Path, name: str) -> None:
    case = case_of(vectors, name)
    reasons = {
        "report signature": "report_signature",
        "chip id": "chip_id",
        "VCEK signature": "vek_signature",
        "not yet valid": "vek_validity",
        "expired": "vek_validity",
    }
    assert len(case["negatives"]) == 7
    for negative in case["negatives"]:
        evidence = vector_evidence(vectors, name)
        if cut := negative.get("report_truncate_to"):
            with pytest.raises(UnusableInput, match="1184 bytes"):
                parse_snp_report(evidence.report.raw[:cut])
            continue
        if change := negative.get("report_flip_byte"):
            raw = flip(evidence.report.raw, change["offset"], int(change["xor_hex"], 16))
            evidence = replace(evidence, report=parse_snp_report(raw))
        if other := negative.get("vcek_file"):
            evidence = replace(evidence, key=load_certificates((vectors / "snp" / other).read_bytes())[0])
        if other := negative.get("ask_file"):
            ask = load_certificates((vectors / "snp" / other).read_bytes())[0]
            evidence = replace(evidence, chain=(ask, evidence.chain[1]))
        at = moment(negative.get("verify_at", case["verify_at"]))
        verdict = verify_snp(evidence, Policy(), at=at)
        assert not verdict.genuine
        for part in negative["expected"].removeprefix("reject: ").split(", "):
            assert reasons[part] in checks(verdict), negative


@pytest.mark.parametrize("name", NAMES)
def test_each_flipped_bit_in_the_signed_part_of_a_report_is_rejected(vectors: Path, name: str) -> None:
    evidence = vector_evidence(vectors, name)
    key = evidence.key.public_key()
    at = moment(case_of(vectors, name)["verify_at"])
    # Each byte of each field, one bit of it; the whole verdict for one byte in eight.
    for offset in range(SIGNED_BYTES):
        changed = parse_snp_report(flip(evidence.report.raw, offset, 1 << offset % 8))
        assert not report_signed_by(changed, key)  # type: ignore[arg-type]
        if offset % 8 == 0:
            verdict = verify_snp(replace(evidence, report=changed), Policy(), at=at)
            assert not verdict.genuine
            assert not verdict.accepted
    for offset in range(SIGNED_BYTES, SIGNED_BYTES + 144, 5):
        changed = parse_snp_report(flip(evidence.report.raw, offset, 0x40))
        assert not report_signed_by(changed, key)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["vcek", "ask", "ark"])
def test_each_flipped_bit_of_a_certificate_is_rejected(vectors: Path, name: str) -> None:
    evidence = vector_evidence(vectors, "milan")
    der = {"vcek": evidence.key, "ask": evidence.chain[0], "ark": evidence.chain[1]}[name].der
    at = moment("2026-04-01T00:00:00Z")
    for offset in range(0, len(der), 3):
        try:
            changed = parse_x509(flip(der, offset, 1 << offset % 8))
        except UnusableInput:
            continue
        chain = list(evidence.chain)
        if name == "vcek":
            tampered = replace(evidence, key=changed)
        else:
            chain[0 if name == "ask" else 1] = changed
            tampered = replace(evidence, chain=tuple(chain))
        verdict = verify_snp(tampered, Policy(), at=at)
        assert not verdict.genuine, offset


def test_every_ca_chain_holds_and_ends_in_a_pinned_root(vectors: Path) -> None:
    for case in load(vectors / "snp/expected.json")["ca_chains"]:
        ask, ark = load_certificates((vectors / "snp" / case["file"]).read_bytes())
        assert [ask.subject_name, ark.subject_name] == case["order"]
        assert ark.sha256 == case["ark_sha256_of_der_hex"]
        assert ask.sha256 == case["ask_sha256_of_der_hex"]
        assert X509_ROOTS[ark.sha256] == case["name"]
        assert (ark.serial, ask.serial) == (case["ark_serial"], case["ask_serial"])
        assert x509_signed_by(ark, ark)
        assert x509_signed_by(ask, ark)
        assert not x509_signed_by(ark, ask)
        assert max(ask.not_before, ark.not_before) == moment(case["valid_from"])
        assert min(ask.not_after, ark.not_after) == moment(case["valid_to"])


def test_the_real_crl_counts_in_its_time_and_for_its_root(vectors: Path) -> None:
    (case,) = load(vectors / "snp/expected.json")["crl"]
    (crl,) = load_crls((vectors / "snp" / case["file"]).read_bytes())
    assert crl.issuer_name == case["issuer_cn"]
    assert crl.number == case["crl_number"]
    assert crl.this_update == moment(case["this_update"])
    assert crl.next_update == moment(case["next_update"])
    assert crl.revoked == set(case["revoked_serials"])
    for expected in case["expected"]:
        name = expected["signer_file"].split("/")[0]
        evidence = replace(vector_evidence(vectors, name), crls=(crl,))
        verdict = verify_snp(evidence, Policy(), at=moment(expected["verify_at"]))
        if expected["result"].startswith("valid"):
            assert verdict.accepted
            assert "revocation" not in verdict.unchecked
        else:
            assert "crl" in checks(verdict)
            assert not verdict.genuine


def test_each_flipped_bit_of_a_crl_is_rejected(vectors: Path) -> None:
    (crl,) = load_crls((vectors / "snp/crl-milan.pem").read_bytes())
    evidence = vector_evidence(vectors, "milan")
    root = evidence.chain[1]
    for offset in range(len(crl.der)):
        try:
            (changed,) = load_crls(flip(crl.der, offset, 1 << offset % 8))
        except UnusableInput:
            continue
        assert not crl_signed_by(changed, root), offset


def test_a_demanded_field_of_a_real_report_is_checked(vectors: Path) -> None:
    evidence = vector_evidence(vectors, "milan", crl="crl-milan.pem")
    report = evidence.report.fields
    rules = SnpPolicy(
        measurements=(report.measurement.hex(),),
        host_data=report.host_data.hex(),
        chip_ids=(report.chip_id.hex(),),
        require_crl=True,
        min_current_version="1.55.29",
    )
    at = moment("2026-04-01T00:00:00Z")
    good = verify_snp(evidence, Policy(snp=rules), at=at, report_data=bytes(64))
    assert good.accepted
    assert not {"measurement", "host_data", "report_data", "chip_ids", "revocation"} & set(good.unchecked)
    bad = verify_snp(evidence, Policy(snp=rules), at=at, report_data=b"\1".ljust(64, b"\0"))
    assert bad.genuine
    assert checks(bad) == {"report_data"}


def test_the_real_id_block_and_its_keys_verify(vectors: Path) -> None:
    folder = vectors / "snp/id-block"
    expected = load(folder / "expected.json")
    (raw,) = unarmour((folder / "id_block.b64").read_bytes())
    (raw_auth,) = unarmour((folder / "auth_info.b64").read_bytes())
    block, auth = parse_id_block(raw), parse_id_auth(raw_auth)
    facts = expected["id_block"]
    assert block.launch_digest.hex() == facts["expected_launch_digest_hex"]
    assert block.family_id.hex() == facts["expected_family_id_hex"]
    assert block.image_id.hex() == facts["expected_image_id_hex"]
    assert (block.version, block.guest_svn) == (facts["expected_version"], facts["expected_guest_svn"])
    assert block.policy == int(facts["expected_policy_hex"], 16)
    keys = expected["auth_info"]
    assert auth.id_algorithm == keys["expected_id_key_algo"]
    assert auth.author_algorithm == keys["expected_author_key_algo"]
    assert auth.block_signature[:72].hex() == keys["expected_id_block_sig_r_le_hex"]
    assert auth.block_signature[72:144].hex() == keys["expected_id_block_sig_s_le_hex"]
    assert auth.id_key[4:76].hex() == keys["expected_id_key_x_le_hex"]
    assert auth.id_key[76:148].hex() == keys["expected_id_key_y_le_hex"]
    assert auth.id_key_signature[:72].hex() == keys["expected_id_key_sig_r_le_hex"]
    assert auth.id_key_digest.hex() == keys["recomputed_id_key_digest_sha384_hex"]
    assert auth.author_key_digest.hex() == keys["recomputed_author_key_digest_sha384_hex"]
    assert id_block_signed(auth, raw)
    assert id_key_signed(auth)
    assert block.pack() == raw
    assert auth.pack() == raw_auth
    for offset in range(96):
        assert not id_block_signed(auth, flip(raw, offset, 1 << offset % 8))
    assert not id_block_signed(replace(auth, id_key=auth.author_key), raw)


def test_every_signature_vector_of_the_id_block_is_judged_as_it_says(vectors: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    folder = vectors / "snp/id-block"
    (raw,) = unarmour((folder / "id_block.b64").read_bytes())
    auth = parse_id_auth(unarmour((folder / "auth_info.b64").read_bytes())[0])
    for case in load(folder / "expected.json")["signatures"]:
        key: Any = load_pem_public_key((folder / case["key_file"]).read_bytes())
        is_block = case["message"] == "id_block"
        message = raw if is_block else auth.id_key
        if change := case.get("message_flip_byte"):
            message = flip(message, change["offset"], int(change["xor_hex"], 16))
        signature = auth.block_signature if is_block else auth.id_key_signature
        assert verify_ecdsa(key, signature, message, "sha384") is (case["expected"] == "valid")
        assert encode_key(key) in {auth.id_key, auth.author_key}


def test_an_endorsement_key_with_serial_zero_is_read_without_a_warning(
    vectors: Path, recwarn: pytest.WarningsRecorder
) -> None:
    evidence: SnpEvidence = vector_evidence(vectors, "milan")
    assert evidence.key.serial == 0
    assert len(recwarn) == 0
