"""The comparisons that appraisals are made of: a field of the evidence against a setting of the policy."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.evidence.verify.policy import Demand
    from sealift.evidence.verify.verdict import Findings


def compare_bit(findings: Findings, check: str, present: bool, demand: Demand) -> None:
    """A bit that the policy requires, forbids, or allows either way (unchecked)."""
    if demand == "allow":
        findings.leave_open(check)
        return
    wanted = demand == "require"
    findings.demand(
        check,
        holds=present is wanted,
        demanded="set" if wanted else "not set",
        found="set" if present else "not set",
        detail=f"{check} is {'set' if present else 'not set'}, and the policy {demand}s it",
    )


def compare_unknown_bits(findings: Findings, check: str, unknown: int, tolerance: str) -> None:
    """Bits whose meaning this release does not know: none may be set, unless the policy allows them (unchecked)."""
    if unknown and tolerance == "allow":
        findings.leave_open(check)
        return
    findings.demand(
        check,
        holds=not unknown,
        demanded="none set",
        found=f"{unknown:#x}",
        detail=f"bits {unknown:#x} are set, and this release does not know their meaning",
    )


def compare_value(findings: Findings, check: str, found: int, wanted: int | None) -> None:
    """A number that has to be exactly what the policy names; None leaves it unchecked."""
    if wanted is None:
        findings.leave_open(check)
        return
    findings.demand(
        check,
        holds=found == wanted,
        demanded=f"{wanted:#x}",
        found=f"{found:#x}",
        detail=f"{check} is {found:#x}, not {wanted:#x}",
    )


def compare_minimum(findings: Findings, check: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """A version, its most significant number first, that has to be at least the demanded one."""
    findings.demand(
        check,
        holds=found >= wanted,
        demanded=f"at least {dotted(wanted)}",
        found=dotted(found),
        detail=f"{check} {dotted(found)} is below {dotted(wanted)}",
    )


def compare_choice(findings: Findings, check: str, found: str, wanted: Sequence[str]) -> None:
    """A value that has to be one of those that the policy names; none named leaves it unchecked."""
    if not wanted:
        findings.leave_open(check)
        return
    # Every candidate is compared, in constant time, so that the time reveals nothing about the values.
    matches = [hmac.compare_digest(found, each) for each in wanted]
    findings.demand(
        check,
        holds=any(matches),
        demanded=" or ".join(wanted),
        found=found,
        detail=f"{check} is {found}, which is not what the policy demands",
    )


def dotted(numbers: Sequence[int]) -> str:
    """Numbers of a version as text."""
    return ".".join(map(str, numbers))
