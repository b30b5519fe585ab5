"""What a verification found: every reason, what was compared with what, and what the policy left open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

NO_INTEGRITY = "no integrity protection"
EMULATED = "emulated"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why evidence was not accepted: the name of the check, and a sentence."""

    check: str
    detail: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A check that was made: what was demanded, what was found, and whether they agree."""

    check: str
    demanded: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "may this machine be trusted with the workload?".

    `genuine`: chain and signatures hold up to a pinned or policy-named root. `accepted`: genuine, and the
    policy is met. `extra_root`: the root is not AMD's but one that the policy names; `emulated` if the
    policy says that root belongs to an emulated secure processor.
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
        """The verdict with more reasons against it, as those of `freshness`; without any, itself."""
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
        """A check that `genuine` rests on: a signature, a pin, a date."""
        self.genuine = self.genuine and holds
        return self.demand(check, holds=holds, demanded=demanded, found=found, detail=detail)

    def demand(self, check: str, *, holds: bool, demanded: str, found: str, detail: str) -> bool:
        """A check of the policy."""
        self.checked.append(Comparison(check, demanded, found, holds))
        if not holds:
            self.reasons.append(Reason(check, detail))
        return holds

    def leave_open(self, check: str) -> None:
        """The policy says nothing of this."""
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
        """The finished answer."""
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
