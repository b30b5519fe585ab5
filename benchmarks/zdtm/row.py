"""A row: one program, with one set of capabilities, moved in one way on one pair of Dockers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class Way(StrEnum):
    """How a program is moved. `STAYS`: not at all, which says whether it runs in a container."""

    STAYS = "not moved"
    PLAIN = "plain CRIU"
    AUTO = "auto"
    POST_COPY = "post-copy"


SEALIFTS = (Way.AUTO, Way.POST_COPY)


class Outcome(StrEnum):
    """What came of it. `BROKEN`: it was neither refused nor moved, and CRIU or Sealift says why."""

    PASSED = "passed"
    FAILED = "failed"
    REFUSED = "refused"
    BROKEN = "broken off"
    UNSTARTED = "not started"


@dataclass(frozen=True)
class Row:
    """What came of one program in one way."""

    program: str
    privileges: str
    """`default` or `privileged` (`runners.PRIVILEGES`)."""

    way: Way
    docker: str
    outcome: Outcome
    reason: str = ""
    code: str = ""

    @property
    def key(self) -> str:
        """What distinguishes it from all other rows."""
        return key(self.program, self.privileges, self.way, self.docker)


def key(program: str, privileges: str, way: Way, docker: str) -> str:
    """The name of a row."""
    return f"{program}@{privileges}@{way}@{docker}"


def from_fields(fields: dict[str, Any]) -> Row:
    """One row from its JSON object. TypeError, KeyError or ValueError for another object."""
    return Row(**fields | {"way": Way(fields["way"]), "outcome": Outcome(fields["outcome"])})


@dataclass(frozen=True)
class Line:
    """All rows of one program, with one set of capabilities, on one pair of Dockers."""

    program: str
    privileges: str
    docker: str
    rows: dict[Way, Row]

    def outcome(self, way: Way) -> str:
        """What came of one way, or nothing if it was not tried."""
        return str(self.rows[way].outcome) if way in self.rows else ""

    @property
    def check(self) -> str:
        """What `sealift check` said: `no` where Sealift refused, else `yes`. Nothing if it was not asked."""
        asked = [self.rows[way].outcome for way in SEALIFTS if way in self.rows]
        return ("no" if Outcome.REFUSED in asked else "yes") if asked else ""

    @property
    def reason(self) -> str:
        """Why it did not go, by Sealift first."""
        for way in (*SEALIFTS, Way.PLAIN, Way.STAYS):
            if way in self.rows and self.rows[way].reason:
                return f"{way}: {self.rows[way].reason}"
        return ""

    @property
    def exception(self) -> str:
        """What must not be: plain CRIU brings it and Sealift does not, or `check` says yes to what fails."""
        lost = [way for way in SEALIFTS if way in self.rows and self.rows[way].outcome is not Outcome.PASSED]
        if not lost or self.outcome(Way.STAYS) != Outcome.PASSED:
            return ""
        said = f"{', '.join(lost)}: {self.rows[lost[0]].outcome}: {self.rows[lost[0]].reason}"
        if self.outcome(Way.PLAIN) == Outcome.PASSED:
            return f"plain CRIU brings it; {said}"
        return f"`check` said yes; {said}" if self.check == "yes" else ""


def lines(rows: Iterable[Row]) -> list[Line]:
    """Rows by program, capabilities and Dockers, in this order."""
    found: dict[tuple[str, str, str], dict[Way, Row]] = {}
    for row in rows:
        found.setdefault((row.docker, row.privileges, row.program), {})[row.way] = row
    return [
        Line(program, privileges, docker, by_way)
        for (docker, privileges, program), by_way in sorted(found.items())
    ]
