"""Whether a genuine SNP report meets the owner's policy: every field is compared, or listed as unchecked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.evidence.formats.endorsement import Kind
from sealift.evidence.formats.snp_report import VERSIONS, PlatformBit, PolicyBit, Signer
from sealift.evidence.verify.comparisons import (
    compare_bit,
    compare_choice,
    compare_minimum,
    compare_unknown_bits,
    compare_value,
    dotted,
)
from sealift.evidence.verify.policy import version_numbers
from sealift.evidence.verify.snp_tcb import appraise_tcb
from sealift.evidence.verify.tcb_floors import ALIAS_CHECK_SINCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.evidence.formats.endorsement import Endorsement
    from sealift.evidence.formats.snp_report import SignedReport, SnpReport
    from sealift.evidence.formats.tcb import Generation
    from sealift.evidence.verify.policy import Policy, SnpPolicy
    from sealift.evidence.verify.verdict import Findings

_KEY_INFO_MASK = 0b11111


def appraise_snp(
    findings: Findings,
    signed: SignedReport,
    endorsement: Endorsement | None,
    policy: Policy,
    *,
    report_data: bytes | None,
) -> None:
    """Compare every field of the report with the policy."""
    rules, report = policy.snp, signed.fields
    generation = endorsement.generation if endorsement else None
    _appraise_format(findings, signed, rules)
    _appraise_signer(findings, report, endorsement, rules)
    _appraise_guest_policy(findings, report, rules)
    _appraise_platform(findings, report, generation, rules)
    _appraise_versions(findings, report, rules)
    if endorsement is not None:
        appraise_tcb(findings, report, endorsement, rules)
    _appraise_identity(findings, report, rules, report_data)
    _appraise_numbers(findings, report, rules)


def _appraise_format(findings: Findings, signed: SignedReport, rules: SnpPolicy) -> None:
    version = signed.fields.version
    findings.demand(
        "report_version",
        holds=version in VERSIONS and version in rules.report_versions,
        demanded=f"one of {', '.join(map(str, rules.report_versions))}",
        found=str(version),
        detail=f"a report of version {version} is not accepted",
    )
    reserved = signed.reserved_in_use or signed.fields.key_info & ~_KEY_INFO_MASK
    if rules.reserved_bytes == "refuse" or not reserved:
        findings.demand(
            "reserved_bytes",
            holds=not reserved,
            demanded="zero",
            found="in use" if reserved else "zero",
            detail="bytes that this version of the report defines as zero are not zero",
        )
    else:
        findings.leave_open("reserved_bytes")


def _appraise_signer(
    findings: Findings, report: SnpReport, endorsement: Endorsement | None, rules: SnpPolicy
) -> None:
    signer = report.signer.name.lower() if report.signer is not None else str(report.signer_number)
    findings.demand(
        "signer",
        holds=report.signer in {Signer.VCEK, Signer.VLEK} and rules.signer in {"any", signer},
        demanded="vcek or vlek" if rules.signer == "any" else rules.signer,
        found=signer,
        detail=f"the report says that it was signed by {signer}",
    )
    if rules.signer == "any":
        findings.leave_open("signer")
    if report.signer is Signer.VCEK or (endorsement and endorsement.kind is Kind.VCEK):
        masked = report.chip_masked or not any(report.chip_id)
        if rules.allow_masked_chip:
            findings.leave_open("chip_masked")
        else:
            findings.demand(
                "chip_masked",
                holds=not masked,
                demanded="the chip's id in the report",
                found="masked" if masked else "present",
                detail="the chip's id is masked: the report does not say which chip's VCEK signed it",
            )
    compare_choice(findings, "chip_ids", report.chip_id.hex(), _whole_chip_ids(rules.chip_ids))
    provider = endorsement.provider if endorsement else None
    if rules.providers:
        findings.demand(
            "provider",
            holds=provider in rules.providers,
            demanded=", ".join(rules.providers),
            found=provider or "none",
            detail=f"the VLEK's provider is {provider or 'not named'}",
        )
    elif endorsement and endorsement.kind is Kind.VLEK:
        findings.leave_open("provider")
        findings.leave_open("chip_id")


def _appraise_guest_policy(findings: Findings, report: SnpReport, rules: SnpPolicy) -> None:
    for name, demand in rules.guest_policy:
        bit = PolicyBit[name.upper()]
        compare_bit(findings, f"guest_policy.{name}", bool(report.policy & bit), demand)
    known = 0xFFFF | sum(PolicyBit)
    compare_unknown_bits(
        findings, "guest_policy.unknown_bits", report.policy & ~known, rules.unknown_policy_bits
    )
    findings.demand(
        "guest_policy.bit_17",
        holds=bool(report.policy & PolicyBit.ALWAYS_ONE),
        demanded="1",
        found=str(int(bool(report.policy & PolicyBit.ALWAYS_ONE))),
        detail="bit 17 of the guest policy is always 1 on a real machine",
    )
    compare_value(findings, "guest_policy.value", report.policy, rules.guest_policy_value)
    if rules.min_abi is None:
        findings.leave_open("abi")
    else:
        compare_minimum(findings, "abi", report.abi, version_numbers(rules.min_abi))


def _appraise_platform(
    findings: Findings, report: SnpReport, generation: Generation | None, rules: SnpPolicy
) -> None:
    for name, demand in rules.platform_info:
        bit = PlatformBit[name.upper()]
        present = bool(report.platform_info & bit)
        if bit is PlatformBit.ALIAS_CHECK and not present and _cannot_check_aliases(report, generation):
            # On such firmware only a floor for version or TCB protects against BadRAM.
            findings.leave_open("platform_info.alias_check")
            continue
        compare_bit(findings, f"platform_info.{name}", present, demand)
    unknown = report.platform_info & ~sum(PlatformBit)
    compare_unknown_bits(findings, "platform_info.unknown_bits", unknown, rules.unknown_platform_bits)
    compare_value(findings, "platform_info.value", report.platform_info, rules.platform_info_value)


def _cannot_check_aliases(report: SnpReport, generation: Generation | None) -> bool:
    return generation is not None and report.current_version < ALIAS_CHECK_SINCE[generation]


def _appraise_versions(findings: Findings, report: SnpReport, rules: SnpPolicy) -> None:
    for name, found, wanted in (
        ("current_version", report.current_version, rules.min_current_version),
        ("committed_version", report.committed_version, rules.min_committed_version),
    ):
        if wanted is None:
            findings.leave_open(name)
        else:
            compare_minimum(findings, name, found, version_numbers(wanted))
    findings.demand(
        "committed_version_above_current",
        holds=report.committed_version <= report.current_version,
        demanded=f"committed at most {dotted(report.current_version)}",
        found=dotted(report.committed_version),
        detail="the committed version is above the running one: firmware commits only a version that runs",
    )
    if rules.allow_provisional_firmware:
        findings.leave_open("provisional_firmware")
        return
    findings.demand(
        "provisional_firmware",
        holds=report.committed_version >= report.current_version,
        demanded=f"committed at least {dotted(report.current_version)}",
        found=dotted(report.committed_version),
        detail="the firmware is provisional: its provider can still roll it back",
    )


def _appraise_identity(
    findings: Findings, report: SnpReport, rules: SnpPolicy, report_data: bytes | None
) -> None:
    wanted_data = [] if report_data is None else [report_data.hex()]
    wanted_data += _listed(rules.report_data)
    if not wanted_data and rules.require_report_data:
        findings.demand(
            "report_data",
            holds=False,
            demanded="the report data that this guest was asked for",
            found=report.report_data.hex(),
            detail="the policy demands report data, and none was given to compare with",
        )
    elif not wanted_data:
        findings.leave_open("report_data")
    # The demands of the policy and of the caller must both be met.
    for wanted in wanted_data:
        compare_choice(findings, "report_data", report.report_data.hex(), [wanted])
    compare_choice(findings, "measurement", report.measurement.hex(), rules.measurements)
    compare_choice(findings, "host_data", report.host_data.hex(), _listed(rules.host_data))
    compare_choice(findings, "family_id", report.family_id.hex(), _listed(rules.family_id))
    compare_choice(findings, "image_id", report.image_id.hex(), _listed(rules.image_id))
    compare_choice(findings, "report_id", report.report_id.hex(), _listed(rules.report_id))
    compare_choice(findings, "report_id_ma", report.report_id_ma.hex(), _listed(rules.report_id_ma))
    compare_choice(findings, "id_key_digest", report.id_key_digest.hex(), rules.id_key_digests)
    compare_choice(findings, "author_key_digest", report.author_key_digest.hex(), rules.author_key_digests)
    compare_bit(findings, "author_key", report.author_key_enabled, rules.author_key)


def _appraise_numbers(findings: Findings, report: SnpReport, rules: SnpPolicy) -> None:
    if rules.vmpl == "any":
        findings.leave_open("vmpl")
    else:
        compare_value(findings, "vmpl", report.vmpl, rules.vmpl)
    if rules.min_guest_svn is None and rules.max_guest_svn is None:
        findings.leave_open("guest_svn")
    if rules.min_guest_svn is not None:
        compare_minimum(findings, "guest_svn", (report.guest_svn,), (rules.min_guest_svn,))
    if rules.max_guest_svn is not None:
        findings.demand(
            "guest_svn",
            holds=report.guest_svn <= rules.max_guest_svn,
            demanded=f"at most {rules.max_guest_svn}",
            found=str(report.guest_svn),
            detail=f"guest_svn {report.guest_svn} is above {rules.max_guest_svn}",
        )
    if rules.cpus:
        found = report.cpuid or (0, 0, 0)
        findings.demand(
            "cpu",
            holds=report.cpuid is not None and found in rules.cpus,
            demanded=", ".join(dotted(each) for each in rules.cpus),
            found=dotted(found) if report.cpuid else "not in the report",
            detail="the processor's family, model and stepping are not among the demanded ones",
        )
    else:
        findings.leave_open("cpu")
    for name, value, wanted in (
        ("launch_mitigations", report.launch_mitigations, rules.launch_mitigations),
        ("current_mitigations", report.current_mitigations, rules.current_mitigations),
    ):
        if wanted is None:
            findings.leave_open(name)
        else:
            findings.demand(
                name,
                holds=value is not None and value & wanted == wanted,
                demanded=f"bits {wanted:#x}",
                found="not in the report" if value is None else f"{value:#x}",
                detail=f"{name} lacks bits of {wanted:#x}",
            )


def _listed(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _whole_chip_ids(ids: Sequence[str]) -> list[str]:
    # In the report, zeros follow Turin's eight bytes.
    return [each.ljust(128, "0") for each in ids]
