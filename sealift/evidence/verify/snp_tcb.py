"""Whether the TCB levels of an SNP report are possible, and not below the policy's floors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.evidence.formats.tcb import decode_tcb
from sealift.evidence.verify.tcb_floors import part_of

if TYPE_CHECKING:
    from sealift.evidence.formats.endorsement import Endorsement
    from sealift.evidence.formats.snp_report import SnpReport
    from sealift.evidence.formats.tcb import Tcb
    from sealift.evidence.verify.policy import SnpPolicy
    from sealift.evidence.verify.verdict import Findings


def appraise_tcb(findings: Findings, report: SnpReport, endorsement: Endorsement, rules: SnpPolicy) -> None:
    """Compare the four TCB levels of a report with each other, and with the floor of the processor part."""
    generation = endorsement.generation
    levels = {
        "reported_tcb": decode_tcb(report.reported_tcb, generation),
        "current_tcb": decode_tcb(report.current_tcb, generation),
        "committed_tcb": decode_tcb(report.committed_tcb, generation),
        "launch_tcb": decode_tcb(report.launch_tcb, generation),
    }
    _appraise_order(findings, levels, rules)
    part = part_of(generation, report.cpuid)
    floor = rules.tcb_floor.get(part)
    if floor is None or not any(floor.tcb().components().values()):
        findings.leave_open("tcb_floor")
        return
    for name, tcb in levels.items():
        _not_below(findings, f"tcb_floor.{name}", tcb, floor.tcb(), f"the {name.replace('_', ' ')} ({part})")


def _appraise_order(findings: Findings, levels: dict[str, Tcb], rules: SnpPolicy) -> None:
    """Compare the levels: firmware commits what runs, and reports what is committed (SNP ABI, SNP_COMMIT)."""
    for lower, upper, allowed in (
        ("reported", "current", rules.allow_reported_above_current),
        ("reported", "committed", rules.allow_reported_above_committed),
        ("committed", "current", False),
        ("launch", "current", rules.allow_launch_above_current),
    ):
        check = f"{lower}_above_{upper}"
        if allowed:
            findings.leave_open(check)
            continue
        low, high = levels[f"{lower}_tcb"], levels[f"{upper}_tcb"]
        above = high.below(low)
        findings.demand(
            check,
            holds=not above,
            demanded=f"{lower} at most {high}",
            found=str(low),
            detail=f"the {lower} TCB is above the {upper} TCB in {', '.join(above)}: {low} against {high}",
        )
    if rules.allow_provisional_firmware:
        findings.leave_open("provisional_tcb")
    else:
        committed, current = levels["committed_tcb"], levels["current_tcb"]
        _not_below(findings, "provisional_tcb", committed, current, "the committed TCB")


def _not_below(findings: Findings, check: str, found: Tcb, floor: Tcb, what: str) -> None:
    low = found.below(floor)
    findings.demand(
        check,
        holds=not low,
        demanded=f"at least {floor}",
        found=str(found),
        detail=f"{what} is below {floor} in {', '.join(low)}: it is {found}",
    )
