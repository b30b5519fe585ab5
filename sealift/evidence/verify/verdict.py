"""The result of a verification: every reason, every comparison, and everything that was not checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

NO_INTEGRITY = "no integrity protection"
EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason against the evidence: the name of the check, and a sentence."""

    check: str
    detail: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A check that was made: the demanded value, the found value, and whether they agree."""

    check: str
    demanded: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "may this machine be trusted with the workload?".

    `genuine`: chain and signatures verify up to a root that is pinned or that the policy names. `accepted`: genuine,
    and the policy is met. `extra_root`: the root is not AMD's, but one that the policy names. `emulated`: the policy
    says that this root belongs to an emulated secure processor.
    """

    kind: str
    genuine: bool
    accepted: bool
    reasons: tuple[Reason, ...]
    checked: tuple[Comparison, ...]
    unchecked: tuple[str, ...]
    labels: tuple[str, ...] = ()
    generation: str | None = None
    root_sha256: str | None = None
    extra_root: bool = False
    emulated: bool = False

    def also(self, reasons: tuple[Reason, ...]) -> Verdict:
        """The verdict with further reasons against it, such as those of `freshness`."""
        if not reasons:
            return self
        return replace(self, accepted=False, reasons=(*self.reasons, *reasons))

    def to_json(self) -> dict[str, Any]:
        """A JSON object; at least genuine, accepted, reasons (check, detail) and unchecked."""
        return {
            "kind": self.kind,
            "genuine": self.genuine,
            "accepted": self.accepted,
            "reasons": [{"check": each.check, "detail": each.detail} for each in self.reasons],
            "checked": [
                {
                    "check": each.check,
                    "demanded": each.demanded,
                    "found": each.found,
                    "holds": each.holds,
                }
                for each in self.checked
            ],
            "unchecked": list(self.unchecked),
            "labels": list(self.labels),
            "generation": self.generation,
            "root_sha256": self.root_sha256,
            "extra_root": self.extra_root,
            "emulated": self.emulated,
        }


@dataclass(slots=True)
class Findings:
    """Collects checks while a verification runs, so that no reason hides another."""

    reasons: list[Reason] = field(default_factory=list)
    checked: list[Comparison] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    genuine: bool = True

    def proof(self, check: str, *, holds: bool, demanded: str, found: str, detail: str) -> bool:
        """Record a check that `genuine` depends on: a signature, a pin, a date."""
        self.genuine = self.genuine and holds
        return self.demand(check, holds=holds, demanded=demanded, found=found, detail=detail)

    def demand(self, check: str, *, holds: bool, demanded: str, found: str, detail: str) -> bool:
        """Record a check of the policy."""
        self.checked.append(Comparison(check, demanded, found, holds))
        if not holds:
            self.reasons.append(Reason(check, detail))
        return holds

    def leave_open(self, check: str) -> None:
        """Record that this was not checked."""
        if check not in self.unchecked:
            self.unchecked.append(check)

    def verdict(
        self,
        kind: str,
        *,
        labels: tuple[str, ...] = (),
        generation: str | None = None,
        root_sha256: str | None = None,
        extra_root: bool = False,
        emulated: bool = False,
    ) -> Verdict:
        """The verdict of all recorded checks."""
        if emulated:
            labels = (*labels, EMULATED)
        return Verdict(
            kind=kind,
            genuine=self.genuine,
            accepted=self.genuine and not self.reasons,
            reasons=tuple(self.reasons),
            checked=tuple(self.checked),
            unchecked=tuple(self.unchecked),
            labels=labels,
            generation=generation,
            root_sha256=root_sha256,
            extra_root=extra_root,
            emulated=emulated,
        )
