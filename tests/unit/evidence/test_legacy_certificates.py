"""The certificates of legacy SEV read, write and verify as the real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from evidence_lab import LegacyLab, flip, lab_ark, load

from sealift.errors import UnusableInput
from sealift.evidence.formats.amd_certificate import AmdCertificate, parse_amd_certificate
from sealift.evidence.formats.platform_chain import collect_platform, split_certificates
from sealift.evidence.formats.sev_certificate import (
    SIGNED_BYTES,
    SevCertificate,
    add_signature,
    parse_sev_certificate,
)
from sealift.evidence.verify.roots import LEGACY_ROOTS
from sealift.evidence.verify.signatures import amd_certificate_signed_by, sev_certificate_signed_by

if TYPE_CHECKING:
    from pathlib import Path

Certificate = AmdCertificate | SevCertificate


def read(data: bytes) -> Certificate:
    (certificate,) = split_certificates(data)
    return certificate


def signed(subject: Certificate, signer: Certificate) -> bool:
    if isinstance(subject, AmdCertificate):
        return isinstance(signer, AmdCertificate) and amd_certificate_signed_by(subject, signer)
    return sev_certificate_signed_by(subject, signer)


def test_every_real_certificate_has_the_fields_that_its_vector_says(vectors: Path) -> None:
    for case in load(vectors / "legacy/expected.json")["certificates"]:
        certificate = read((vectors / "legacy" / case["file"]).read_bytes())
        assert certificate.usage == int(case["key_usage_hex"], 16)
        assert certificate.usage_name == case["key_usage"]
        assert certificate.version == case["version"]
        if isinstance(certificate, AmdCertificate):
            assert certificate.sha256 == case["sha256_hex"]
            assert certificate.key_id.hex() == case["key_id_hex"]
            assert certificate.certifying_id.hex() == case["certifying_id_hex"]
            assert certificate.modulus_bits == case["modulus_bits"]
            assert certificate.exponent == case["public_exponent"]
            assert certificate.hash_name == case["pss_hash"]
            continue
        assert list(certificate.api) == case["api"]
        assert certificate.algorithm == int(case["algo_hex"], 16)
        numbers = certificate.public_key().public_numbers()
        assert numbers.x == int(case["public_x_hex_big_endian"], 16)
        assert numbers.y == int(case["public_y_hex_big_endian"], 16)
        for slot, expected in zip(certificate.slots, case["signatures"], strict=True):
            assert slot.usage == int(expected["usage_hex"], 16)
            assert slot.algorithm == int(expected["algo_hex"], 16)


def test_every_edge_of_the_real_chains_holds(vectors: Path) -> None:
    edges = load(vectors / "legacy/expected.json")["edges"]
    assert len(edges) == 13
    for edge in edges:
        subject = read((vectors / "legacy" / edge["subject"]).read_bytes())
        signer = read((vectors / "legacy" / edge["signer"]).read_bytes())
        assert signed(subject, signer), edge


def test_every_false_edge_is_rejected(vectors: Path) -> None:
    negatives = load(vectors / "legacy/expected.json")["negatives"]
    assert len(negatives) == 5
    for edge in negatives:
        data = (vectors / "legacy" / edge["subject"]).read_bytes()
        if change := edge.get("subject_flip_byte"):
            data = flip(data, change["offset"], int(change["xor_hex"], 16))
        assert not signed(read(data), read((vectors / "legacy" / edge["signer"]).read_bytes())), edge


def test_the_pins_are_the_real_roots(vectors: Path) -> None:
    for name in ("rome", "milan", "genoa", "turin"):
        ark = parse_amd_certificate((vectors / f"legacy/{name}/ark.cert").read_bytes())
        assert LEGACY_ROOTS[ark.sha256] == name


@pytest.mark.parametrize("role", ["ark", "ask"])
def test_each_flipped_bit_in_the_signed_part_of_an_amd_certificate_is_rejected(
    vectors: Path, role: str
) -> None:
    ark = parse_amd_certificate((vectors / "legacy/rome/ark.cert").read_bytes())
    data = (vectors / f"legacy/rome/{role}.cert").read_bytes()
    # Every header field bit by bit, then a sample of exponent, modulus and signature.
    offsets = [*range(64), *range(64, 1600, 97)]
    for offset in offsets:
        for bit in (0, 3, 7) if offset < 64 else (offset % 8,):
            changed = parse_amd_certificate(flip(data, offset, 1 << bit))
            signer = changed if role == "ark" else ark
            assert not amd_certificate_signed_by(changed, signer), (offset, bit)


@pytest.mark.parametrize(
    ("subject", "signer"), [("cek", "ask"), ("oca", "oca"), ("pek", "cek"), ("pek", "oca"), ("pdh", "pek")]
)
def test_each_flipped_bit_in_the_signed_part_of_a_platform_certificate_is_rejected(
    vectors: Path, subject: str, signer: str
) -> None:
    data = (vectors / f"legacy/rome/{subject}.cert").read_bytes()
    by = read((vectors / f"legacy/rome/{signer}.cert").read_bytes())
    for offset in [*range(0x14), *range(0x14, SIGNED_BYTES, 61), SIGNED_BYTES - 1]:
        changed = parse_sev_certificate(flip(data, offset, 1 << offset % 8))
        assert not sev_certificate_signed_by(changed, changed if subject == signer else by), offset


def test_a_flipped_signature_is_rejected(vectors: Path) -> None:
    pek = read((vectors / "legacy/rome/pek.cert").read_bytes())
    data = (vectors / "legacy/rome/pdh.cert").read_bytes()
    for offset in range(SIGNED_BYTES + 8, SIGNED_BYTES + 8 + 144, 7):
        assert not signed(parse_sev_certificate(flip(data, offset, 0x80)), pek)


def test_certificates_written_are_the_certificates_read(legacy_lab: LegacyLab) -> None:
    for certificate in legacy_lab.chain.certificates():
        again = read(certificate.raw)
        assert again == certificate


def test_a_third_signature_has_no_place(legacy_lab: LegacyLab) -> None:
    pek = legacy_lab.chain.pek
    assert pek is not None
    with pytest.raises(UnusableInput, match="slots"):
        add_signature(pek, legacy_lab.oca, 0x1001)


@pytest.mark.parametrize("size", [0, 1, 831, 833, 1599, 2083, 2085])
def test_a_certificate_of_another_size_is_unusable(size: int) -> None:
    with pytest.raises(UnusableInput):
        split_certificates(bytes(size))
    with pytest.raises(UnusableInput):
        parse_sev_certificate(bytes(size))
    with pytest.raises(UnusableInput):
        parse_amd_certificate(bytes(size))


def test_a_chain_splits_into_its_certificates_whatever_their_order(vectors: Path) -> None:
    names = ["ark", "pdh", "cek", "ask", "oca", "pek"]
    blob = b"".join((vectors / f"legacy/rome/{name}.cert").read_bytes() for name in names)
    chain = collect_platform(split_certificates(blob))
    assert [each.usage_name for each in chain.certificates()] == ["PDH", "PEK", "OCA", "CEK", "ASK", "ARK"]
    assert collect_platform(split_certificates(chain.export())) == chain


def test_two_certificates_for_one_role_are_unusable(legacy_lab: LegacyLab) -> None:
    with pytest.raises(UnusableInput, match="ARK"):
        collect_platform([lab_ark(2048, b"0" * 16), lab_ark(2048, b"1" * 16)])
    chain = legacy_lab.chain
    assert collect_platform([*chain.certificates(), *chain.certificates()]) == chain
