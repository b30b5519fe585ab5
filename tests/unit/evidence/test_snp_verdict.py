"""What a verifier refuses unless the policy says otherwise, one by one, on reports of a lab of our own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from evidence_lab import CA_VALID, NOW, TCBS, SnpLab, checks, rsa_key

from sealift.errors import UnusableInput
from sealift.evidence.formats import der
from sealift.evidence.formats.endorsement import (
    OID_CHIP,
    OID_PROVIDER,
    Kind,
    endorsement_extensions,
    read_endorsement,
)
from sealift.evidence.formats.id_block import IdBlock
from sealift.evidence.formats.snp_report import (
    PlatformBit,
    PolicyBit,
    SnpReport,
    parse_snp_report,
    sign_snp_report,
)
from sealift.evidence.formats.tcb import Generation, Tcb, decode_tcb, encode_tcb, generation_of_cpu
from sealift.evidence.formats.x509_certificate import Extension, ca_extensions, issue_x509, parse_x509
from sealift.evidence.launch.id_authentication import authenticate
from sealift.evidence.verify.id_block_match import disagreements
from sealift.evidence.verify.policy import ExtraRoot, Policy
from sealift.evidence.verify.signatures import id_block_signed, id_key_signed
from sealift.evidence.verify.snp import verify_snp

MILAN = Generation.MILAN
GOOD = TCBS[MILAN]


def tcb(**levels: int) -> bytes:
    return encode_tcb(replace(GOOD, **levels), MILAN)


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("kind", list(Kind))
def test_every_generation_and_kind_of_key_is_accepted_under_a_root_that_the_policy_names(
    snp_lab: SnpLab, generation: Generation, kind: Kind
) -> None:
    verdict = snp_lab.verdict(snp_lab.evidence(generation, kind))
    assert verdict.reasons == ()
    assert verdict.accepted
    assert verdict.generation == generation
    assert verdict.extra_root
    assert verdict.emulated
    assert "emulated" in verdict.labels
    assert ("provider" in verdict.unchecked) is (kind is Kind.VLEK)


def test_a_lab_root_that_the_policy_does_not_name_is_rejected(snp_lab: SnpLab) -> None:
    verdict = verify_snp(snp_lab.evidence(), Policy(), at=NOW)
    assert not verdict.genuine
    assert checks(verdict) == {"root"}
    assert not verdict.emulated


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_reports_of_versions_2_to_5_are_read(snp_lab: SnpLab, version: int) -> None:
    changes: dict[str, Any] = {"version": version}
    if version < 3:
        changes["cpuid"] = None
    if version == 5:
        changes |= {"launch_mitigations": 3, "current_mitigations": 7}
    evidence = snp_lab.evidence(**changes)
    assert evidence.report.fields == replace(snp_lab.report(), **changes)
    verdict = snp_lab.verdict(evidence)
    assert verdict.accepted
    assert ("report_generation" in verdict.unchecked) is (version == 2)
    assert parse_snp_report(evidence.report.raw) == evidence.report


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    # what a report says, the check that refuses it, the rules under which it is accepted (if any)
    ("guest_policy.debug", {"policy": 0xB001F}, {"guest_policy": {"debug": "allow"}}),
    ("guest_policy.migration_agent", {"policy": 0x7001F}, {"guest_policy": {"migration_agent": "allow"}}),
    ("guest_policy.unknown_bits", {"policy": 1 << 40 | 0x3001F}, {"unknown_policy_bits": "allow"}),
    ("guest_policy.bit_17", {"policy": 0x1001F}, None),
    ("chip_masked", {"key_info": 2}, {"allow_masked_chip": True}),
    ("signer", {"key_info": 7 << 2}, None),
    ("signer", {"key_info": 3 << 2}, None),
    ("vek_kind", {"key_info": 1 << 2}, None),
    ("chip_id", {"chip_id": b"\xaa" * 64}, {"allow_chip_mismatch": True}),
    (
        "endorsed_tcb",
        {"reported_tcb": tcb(snp=0x19), "current_tcb": tcb(snp=0x19), "committed_tcb": tcb(snp=0x19)},
        {"allow_tcb_mismatch": True},
    ),
    (
        "reported_above_current",
        {"current_tcb": tcb(boot_loader=3), "committed_tcb": tcb(boot_loader=3)},
        {
            "allow_reported_above_current": True,
            "allow_reported_above_committed": True,
            "allow_launch_above_current": True,
        },
    ),
    ("launch_above_current", {"launch_tcb": tcb(boot_loader=5)}, {"allow_launch_above_current": True}),
    ("committed_above_current", {"committed_tcb": tcb(boot_loader=5)}, None),
    ("committed_version_above_current", {"committed_version": (1, 56, 0)}, None),
    ("provisional_firmware", {"committed_version": (1, 55, 39)}, {"allow_provisional_firmware": True}),
    ("provisional_tcb", {"current_tcb": tcb(boot_loader=5)}, {"allow_provisional_firmware": True}),
    (
        "tcb_floor.launch_tcb",
        {"launch_tcb": tcb(microcode=0xDA)},
        {"tcb_floor": {"milan": {"snp": 0, "microcode": 0}}},
    ),
    ("platform_info.alias_check", {"platform_info": 0x5}, {"platform_info": {"alias_check": "allow"}}),
    ("vmpl", {"vmpl": 1}, {"vmpl": "any"}),
    ("report_version", {"version": 6}, None),
    ("report_version", {"version": 1, "cpuid": None}, None),
    ("signature_algorithm", {"signature_algorithm": 2}, None),
    ("report_generation", {"cpuid": (0x19, 0x11, 1)}, None),
    ("report_generation", {"cpuid": (0x1A, 0x50, 0)}, None),
]


@pytest.mark.parametrize(("check", "report", "allowed"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_a_report_must_not_say_is_refused_unless_the_policy_allows_it(
    snp_lab: SnpLab, check: str, report: dict[str, Any], allowed: dict[str, Any] | None
) -> None:
    evidence = snp_lab.evidence(**report)
    verdict = snp_lab.verdict(evidence)
    assert check in checks(verdict)
    assert not verdict.accepted
    if allowed is not None:
        lax = snp_lab.verdict(evidence, **allowed)
        assert lax.accepted, lax.reasons
        assert len(lax.unchecked) > len(verdict.unchecked)


def test_a_masked_chip_with_a_zero_id_is_accepted_where_the_policy_allows_it(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence(key_info=2, chip_id=bytes(64))
    assert {"chip_masked", "chip_id"} <= checks(snp_lab.verdict(evidence))
    assert snp_lab.verdict(evidence, allow_masked_chip=True).accepted


@pytest.mark.parametrize("generation", [Generation.MILAN, Generation.GENOA])
@pytest.mark.parametrize("component", ["snp", "microcode"])
def test_a_tcb_below_the_floor_of_amd_sb_3019_is_rejected(
    snp_lab: SnpLab, generation: Generation, component: str
) -> None:
    level = getattr(TCBS[generation], component) - 1
    low = replace(TCBS[generation], **{component: level})
    raw = encode_tcb(low, generation)
    evidence = snp_lab.evidence(
        generation,
        endorsement={"tcb": low},
        current_tcb=raw,
        reported_tcb=raw,
        committed_tcb=raw,
        launch_tcb=raw,
    )
    verdict = snp_lab.verdict(evidence)
    assert verdict.genuine
    assert checks(verdict) == {
        f"tcb_floor.{name}_tcb" for name in ("reported", "current", "committed", "launch")
    }
    own = {generation.value: {component: level}}
    assert snp_lab.verdict(evidence, tcb_floor=own).accepted


def test_a_floor_means_something_within_one_part_only(snp_lab: SnpLab) -> None:
    # Milan-X counts its microcode apart: 44h there is as new as DBh on Milan.
    level = replace(GOOD, microcode=0x44)
    raw = encode_tcb(level, MILAN)
    levels = dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), raw)
    milan_x = snp_lab.evidence(endorsement={"tcb": level}, cpuid=(0x19, 0x01, 2), **levels)
    assert snp_lab.verdict(milan_x).accepted
    milan = snp_lab.evidence(endorsement={"tcb": level}, **levels)
    assert not snp_lab.verdict(milan).accepted


def test_turin_has_no_known_floor_and_the_verdict_says_so(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence(Generation.TURIN)
    assert "tcb_floor" in snp_lab.verdict(evidence).unchecked
    own = snp_lab.verdict(evidence, tcb_floor={"turin": {"fmc": 2}})
    assert not own.accepted
    assert all(check.startswith("tcb_floor.") for check in checks(own))


def test_firmware_too_old_for_the_alias_check_leaves_it_open(snp_lab: SnpLab) -> None:
    old = {"platform_info": 0x5, "current_version": (1, 55, 21), "committed_version": (1, 55, 21)}
    verdict = snp_lab.verdict(snp_lab.evidence(**old))
    assert verdict.accepted
    assert "platform_info.alias_check" in verdict.unchecked
    assert checks(snp_lab.verdict(snp_lab.evidence(**old), min_current_version="1.55.22")) == {
        "current_version"
    }


def test_unknown_platform_bits_are_the_policys_choice(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence(platform_info=0x65)
    default = snp_lab.verdict(evidence)
    assert default.accepted
    assert "platform_info.unknown_bits" in default.unchecked
    assert checks(snp_lab.verdict(evidence, unknown_platform_bits="refuse")) == {"platform_info.unknown_bits"}


def test_reserved_bytes_in_use_are_said_or_refused(snp_lab: SnpLab) -> None:
    body = bytearray(snp_lab.report().pack())
    body[0x280] = 1
    from sealift.evidence.formats.signature import sign_ecdsa

    raw = bytes(body) + sign_ecdsa(snp_lab.key, bytes(body), "sha384")
    evidence = replace(snp_lab.evidence(), report=parse_snp_report(raw.ljust(1184, b"\0")))
    assert "reserved_bytes" in snp_lab.verdict(evidence).unchecked
    assert checks(snp_lab.verdict(evidence, reserved_bytes="refuse")) == {"reserved_bytes"}


@pytest.mark.parametrize(
    ("rules", "check"),
    [
        ({"deny_generations": ["milan"]}, "generation"),
        ({"generations": ["genoa"]}, "generation"),
        ({"signer": "vlek"}, "signer"),
        ({"report_versions": [5]}, "report_version"),
        ({"measurements": ["00" * 48]}, "measurement"),
        ({"report_data": "00" * 64}, "report_data"),
        ({"require_report_data": True}, "report_data"),
        ({"host_data": "11" * 32}, "host_data"),
        ({"family_id": "11" * 16}, "family_id"),
        ({"image_id": "11" * 16}, "image_id"),
        ({"report_id": "11" * 32}, "report_id"),
        ({"report_id_ma": "11" * 32}, "report_id_ma"),
        ({"id_key_digests": ["11" * 48]}, "id_key_digest"),
        ({"author_key_digests": ["11" * 48]}, "author_key_digest"),
        ({"author_key": "require"}, "author_key"),
        ({"chip_ids": ["11" * 64]}, "chip_ids"),
        ({"min_guest_svn": 3}, "guest_svn"),
        ({"max_guest_svn": 1}, "guest_svn"),
        ({"min_abi": "1.0"}, "abi"),
        ({"guest_policy_value": 0x30000}, "guest_policy.value"),
        ({"platform_info_value": 0}, "platform_info.value"),
        ({"guest_policy": {"smt": "forbid"}}, "guest_policy.smt"),
        ({"guest_policy": {"single_socket": "require"}}, "guest_policy.single_socket"),
        ({"platform_info": {"smt": "forbid"}}, "platform_info.smt"),
        ({"platform_info": {"tsme": "require"}}, "platform_info.tsme"),
        ({"min_current_version": "1.55.41"}, "current_version"),
        ({"min_committed_version": "1.56.0"}, "committed_version"),
        ({"cpus": [[0x19, 1, 2]]}, "cpu"),
        ({"launch_mitigations": 1}, "launch_mitigations"),
        ({"current_mitigations": 1}, "current_mitigations"),
        ({"providers": ["cc-lab.example"]}, "provider"),
        ({"vmpl": 3}, "vmpl"),
        ({"require_crl": True}, "crl"),
    ],
    ids=str,
)
def test_every_field_can_be_demanded_or_bounded(snp_lab: SnpLab, rules: dict[str, Any], check: str) -> None:
    verdict = snp_lab.verdict(snp_lab.evidence(), **rules)
    assert verdict.genuine
    assert checks(verdict) == {check}


def test_a_policy_that_demands_everything_leaves_nothing_open(snp_lab: SnpLab) -> None:
    report = replace(
        snp_lab.report(), version=5, launch_mitigations=1, current_mitigations=1, id_key_digest=b"i" * 48
    )
    evidence = replace(snp_lab.evidence(), report=sign_snp_report(report, snp_lab.key), crls=(snp_lab.crl(),))
    verdict = snp_lab.verdict(
        evidence,
        signer="vcek",
        require_crl=True,
        guest_policy=dict.fromkeys(
            ("single_socket", "cxl", "aes_256_xts", "rapl_off", "ciphertext_hiding", "page_swap_off"),
            "forbid",
        )
        | {"smt": "require"},
        platform_info=dict.fromkeys(("tsme", "rapl_off", "ciphertext_hiding", "tio"), "forbid")
        | {"smt": "require", "ecc": "require"},
        guest_policy_value=report.policy,
        platform_info_value=report.platform_info,
        min_abi="0.31",
        min_guest_svn=2,
        min_current_version="1.55.40",
        min_committed_version="1.55.40",
        cpus=[report.cpuid],
        chip_ids=[report.chip_id.hex()],
        measurements=[report.measurement.hex()],
        report_data=report.report_data.hex(),
        host_data=report.host_data.hex(),
        family_id=report.family_id.hex(),
        image_id=report.image_id.hex(),
        report_id=report.report_id.hex(),
        report_id_ma=report.report_id_ma.hex(),
        author_key="forbid",
        id_key_digests=[report.id_key_digest.hex()],
        author_key_digests=[report.author_key_digest.hex()],
        launch_mitigations=1,
        current_mitigations=1,
    )
    assert verdict.reasons == ()
    assert verdict.unchecked == ()


def test_the_default_policy_says_of_every_open_field_that_it_is_unchecked(snp_lab: SnpLab) -> None:
    verdict = snp_lab.verdict(snp_lab.evidence())
    seen = {each.check for each in verdict.checked} | set(verdict.unchecked)
    for field in SnpReport.__dataclass_fields__:
        spelled = {
            "version": "report_version",
            "policy": "guest_policy.value",
            "platform_info": "platform_info.value",
            "key_info": "signer",
            "cpuid": "cpu",
            "reported_tcb": "endorsed_tcb",
            "current_tcb": "tcb_floor.current_tcb",
            "committed_tcb": "tcb_floor.committed_tcb",
            "launch_tcb": "tcb_floor.launch_tcb",
        }.get(field, field)
        assert spelled in seen, field


def test_report_data_of_policy_and_caller_must_both_hold(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence()
    policy = snp_lab.policy(report_data=evidence.report.fields.report_data.hex())
    assert verify_snp(evidence, policy, at=NOW, report_data=evidence.report.fields.report_data).accepted
    assert checks(verify_snp(evidence, policy, at=NOW, report_data=bytes(64))) == {"report_data"}
    lax = snp_lab.policy(report_data="00" * 64)
    both = verify_snp(evidence, lax, at=NOW, report_data=evidence.report.fields.report_data)
    assert checks(both) == {"report_data"}


def test_a_root_of_no_stated_generation_is_said_to_be_so(snp_lab: SnpLab) -> None:
    root = ExtraRoot(sha256=snp_lab.roots[MILAN].sha256, emulated=False)
    verdict = verify_snp(snp_lab.evidence(), Policy(extra_roots=(root,)), at=NOW)
    assert verdict.accepted
    assert verdict.extra_root
    assert not verdict.emulated
    assert "root_generation" in verdict.unchecked


def test_a_name_cannot_speak_to_the_terminal(snp_lab: SnpLab) -> None:
    certificate = snp_lab.certify(snp_lab.endorsement(), subject="SEV-VCEK\x1b[2J\nforged line")
    assert certificate.subject_name.isprintable()
    assert "endorsement" in checks(snp_lab.verdict(replace(snp_lab.evidence(), key=certificate)))


def test_every_reason_is_given_not_only_the_first(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence(policy=0xF001F, vmpl=2, key_info=2, platform_info=0x1)
    verdict = snp_lab.verdict(evidence, measurements=["00" * 48])
    assert {
        "guest_policy.debug",
        "guest_policy.migration_agent",
        "vmpl",
        "chip_masked",
        "platform_info.alias_check",
        "measurement",
    } == checks(verdict)
    said = verdict.to_json()
    assert {reason["check"] for reason in said["reasons"]} == checks(verdict)
    assert all(reason["detail"] for reason in said["reasons"])


def test_a_report_signed_by_another_key_is_not_genuine(snp_lab: SnpLab) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    evidence = replace(snp_lab.evidence(), report=sign_snp_report(snp_lab.report(), other))
    verdict = snp_lab.verdict(evidence)
    assert not verdict.genuine
    assert checks(verdict) == {"report_signature"}


def test_a_vcek_and_a_vlek_cannot_stand_for_each_other(snp_lab: SnpLab) -> None:
    vcek = snp_lab.evidence()
    vlek = snp_lab.evidence(kind=Kind.VLEK)
    assert "vek_kind" in checks(snp_lab.verdict(replace(vcek, report=vlek.report)))
    assert "vek_kind" in checks(snp_lab.verdict(replace(vlek, report=vcek.report)))
    # A VLEK signed by the ASK instead of the ASVK, with the same key: only the names differ.
    crossed = snp_lab.certify(snp_lab.endorsement(MILAN, Kind.VLEK), issuer="SEV-Milan")
    verdict = snp_lab.verdict(replace(vlek, key=crossed, chain=vcek.chain))
    assert "ask_name" in checks(verdict)
    assert not verdict.genuine


def test_a_generations_key_under_anothers_root_is_rejected(snp_lab: SnpLab) -> None:
    genoa = snp_lab.evidence(Generation.GENOA)
    smuggled = snp_lab.certify(snp_lab.endorsement(Generation.GENOA), issuer="SEV-Milan")
    verdict = snp_lab.verdict(replace(genoa, key=smuggled, chain=snp_lab.evidence().chain))
    assert {"root_generation", "ask_name", "ark_name"} <= checks(verdict)
    assert not verdict.genuine


def test_an_unknown_generation_is_refused(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence(endorsement={"product": "Venice-A0"})
    verdict = snp_lab.verdict(evidence)
    assert "endorsement" in checks(verdict)
    assert not verdict.genuine
    assert generation_of_cpu(0x1A, 0x50) is None
    assert generation_of_cpu(0x17, 0x31) is None


def test_a_forged_root_with_the_same_name_is_rejected(snp_lab: SnpLab) -> None:
    forged = issue_x509(
        subject="ARK-Milan",
        issuer="ARK-Milan",
        key=rsa_key("forger").public_key(),
        signer=rsa_key("forger"),
        serial=1 << 16,
        valid=CA_VALID,
        extensions=ca_extensions(None),
    )
    evidence = snp_lab.evidence()
    verdict = snp_lab.verdict(replace(evidence, chain=(evidence.chain[0], forged)))
    assert {"root", "ask_signature"} <= checks(verdict)
    # Beside the true root the forged one changes nothing, in whatever order they come.
    both = replace(evidence, chain=(forged, *evidence.chain))
    assert snp_lab.verdict(both).accepted


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_chain_with_a_link_missing_is_a_reason(snp_lab: SnpLab, missing: int) -> None:
    evidence = snp_lab.evidence()
    chain = () if missing == 2 else (evidence.chain[1 - missing],)
    verdict = snp_lab.verdict(replace(evidence, chain=chain))
    assert not verdict.genuine
    assert any(check.endswith("_signature") for check in checks(verdict))


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2025, 1, 1, tzinfo=UTC), {"vek_validity"}),
        (datetime(2040, 1, 1, tzinfo=UTC), {"vek_validity"}),
        (datetime(2052, 1, 1, tzinfo=UTC), {"vek_validity", "ask_validity", "ark_validity"}),
    ],
)
def test_a_certificate_counts_in_its_time_only(snp_lab: SnpLab, at: datetime, expected: set[str]) -> None:
    verdict = snp_lab.verdict(snp_lab.evidence(), at=at)
    assert checks(verdict) == expected
    assert not verdict.genuine


def test_a_revoked_intermediate_is_rejected(snp_lab: SnpLab) -> None:
    ask, ark = snp_lab.evidence().chain
    for revoked in (ask.serial, ark.serial):
        verdict = snp_lab.verdict(snp_lab.evidence(crls=(snp_lab.crl(revoked=[7, revoked]),)))
        assert checks(verdict) == {"revocation"}
        assert not verdict.genuine
    clean = snp_lab.verdict(snp_lab.evidence(crls=(snp_lab.crl(revoked=[7]),)), require_crl=True)
    assert clean.accepted
    assert "revocation" not in clean.unchecked


@pytest.mark.parametrize(
    "changes",
    [
        {"next_update": datetime(2026, 3, 31, tzinfo=UTC)},
        {"this_update": datetime(2026, 4, 2, tzinfo=UTC)},
        {"signer": "forger"},
        {"issuer": "ARK-Genoa"},
    ],
    ids=str,
)
def test_a_crl_that_is_stale_early_forged_or_of_another_root_is_rejected(
    snp_lab: SnpLab, changes: dict[str, Any]
) -> None:
    if "signer" in changes:
        changes = {"signer": rsa_key("forger")}
    verdict = snp_lab.verdict(snp_lab.evidence(crls=(snp_lab.crl(**changes),)))
    assert checks(verdict) == {"crl"}
    assert not verdict.genuine


def test_a_chip_id_is_read_raw_or_wrapped_and_on_turin_has_eight_bytes(snp_lab: SnpLab) -> None:
    for generation in Generation:
        endorsement = snp_lab.endorsement(generation)
        wrapped = [
            Extension(each.oid, False, der.write(der.OCTET_STRING, each.value))
            if each.oid == OID_CHIP
            else each
            for each in endorsement_extensions(endorsement)
        ]
        certificate = snp_lab.certify(endorsement, extensions=wrapped)
        assert read_endorsement(certificate) == endorsement
        assert snp_lab.verdict(replace(snp_lab.evidence(generation), key=certificate)).accepted


def test_a_vleks_provider_is_read_with_and_without_its_encoding(snp_lab: SnpLab) -> None:
    endorsement = snp_lab.endorsement(MILAN, Kind.VLEK)
    raw = [
        replace(each, value=b"cc-lab.example") if each.oid == OID_PROVIDER else each
        for each in endorsement_extensions(endorsement)
    ]
    evidence = snp_lab.evidence(kind=Kind.VLEK, certificate={"extensions": raw})
    assert read_endorsement(evidence.key) == endorsement
    assert snp_lab.verdict(evidence, providers=["cc-lab.example"]).accepted
    assert checks(snp_lab.verdict(evidence, providers=["another"])) == {"provider"}


def test_turin_needs_no_extension_that_it_never_has(snp_lab: SnpLab) -> None:
    certificate = snp_lab.certify(snp_lab.endorsement(Generation.TURIN))
    oids = {each.oid for each in certificate.extensions}
    assert "1.3.6.1.4.1.3704.1.3.4" not in oids
    assert "1.3.6.1.4.1.3704.1.3.9" in oids
    assert snp_lab.verdict(snp_lab.evidence(Generation.TURIN)).accepted


@pytest.mark.parametrize("missing", ["2", "3.1", "3.2", "3.3", "3.8", "4"])
def test_an_endorsement_key_without_a_needed_extension_is_rejected(snp_lab: SnpLab, missing: str) -> None:
    oid = f"1.3.6.1.4.1.3704.1.{missing}"
    kept = [each for each in endorsement_extensions(snp_lab.endorsement()) if each.oid != oid]
    verdict = snp_lab.verdict(snp_lab.evidence(certificate={"extensions": kept}))
    assert checks(verdict) == {"endorsement"}


def test_a_leaf_cannot_sign_a_leaf(snp_lab: SnpLab) -> None:
    # An endorsement key's holder makes himself an intermediate of the right name.
    mock = issue_x509(
        subject="SEV-Milan",
        issuer="ARK-Milan",
        key=rsa_key("ask").public_key(),
        signer=rsa_key("ark"),
        serial=5,
        valid=CA_VALID,
    )
    evidence = snp_lab.evidence()
    verdict = snp_lab.verdict(replace(evidence, chain=(mock, evidence.chain[1])))
    assert checks(verdict) == {"ask_constraints"}


def test_an_unknown_critical_extension_is_rejected(snp_lab: SnpLab) -> None:
    known = endorsement_extensions(snp_lab.endorsement())
    strange = Extension("1.2.3.4", True, der.write(der.NULL))
    verdict = snp_lab.verdict(snp_lab.evidence(certificate={"extensions": [*known, strange]}))
    assert checks(verdict) == {"vek_extensions"}


def test_an_extension_that_comes_twice_is_unusable(snp_lab: SnpLab) -> None:
    known = endorsement_extensions(snp_lab.endorsement())
    with pytest.raises(UnusableInput):
        snp_lab.certify(snp_lab.endorsement(), extensions=[*known, known[0]])


def test_tcb_bytes_mean_what_their_generation_says() -> None:
    raw = bytes(range(1, 9))
    assert decode_tcb(raw, Generation.MILAN) == Tcb(boot_loader=1, tee=2, snp=7, microcode=8)
    assert decode_tcb(raw, Generation.TURIN) == Tcb(fmc=1, boot_loader=2, tee=3, snp=4, microcode=8)
    for generation in Generation:
        tcb_of = decode_tcb(raw, generation)
        assert decode_tcb(encode_tcb(tcb_of, generation), generation) == tcb_of


def test_an_id_block_and_its_keys_must_be_those_of_the_report() -> None:
    id_key, author = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    block = IdBlock(launch_digest=b"m" * 48, family_id=b"f" * 16, guest_svn=3, policy=0x30000)
    auth = authenticate(block.pack(), id_key, author)
    assert id_block_signed(auth, block.pack())
    assert id_key_signed(auth)
    report = SnpReport(
        measurement=b"m" * 48,
        family_id=b"f" * 16,
        guest_svn=3,
        policy=PolicyBit.ALWAYS_ONE | PolicyBit.SMT,
        id_key_digest=auth.id_key_digest,
        author_key_digest=auth.author_key_digest,
        key_info=1,
        platform_info=PlatformBit.SMT,
    )
    assert disagreements(report, block, auth) == []
    changed = replace(report, measurement=bytes(48), guest_svn=2, key_info=0, author_key_digest=bytes(48))
    assert disagreements(changed, block, auth) == [
        "measurement",
        "author_key_digest",
        "guest_svn",
        "author_key_enabled",
    ]
    lone = authenticate(block.pack(), id_key)
    assert not lone.has_author
    assert not id_key_signed(lone)
    assert lone.author_key_digest == bytes(48)


def test_a_certificate_written_is_the_certificate_read(snp_lab: SnpLab) -> None:
    certificate = snp_lab.certify(snp_lab.endorsement())
    assert certificate.serial == 0
    assert parse_x509(certificate.der) == certificate
