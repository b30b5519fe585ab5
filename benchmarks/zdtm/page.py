"""The table of the suite, for a terminal and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.zdtm.row import Line, Outcome, Row, Way, lines
from sealift.plain_text import in_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEADS = ("program", "set", "Docker", *(str(way) for way in Way), "`check`")

TITLE = """# CRIU's own test suite

This page is made by `sealift bench zdtm --page`; nobody writes it. Each program of CRIU's test suite (ZDTM) runs in a
container, is moved to another host, and is then asked for its verdict. This is done without a move, by plain CRIU (runc
and CRIU on both hosts, with Sealift's options) and by Sealift. The set `privileged` has the capabilities of
`benchmarks/zdtm/runners.py` and no seccomp filter. All programs run as root.
"""


def markdown(found: Iterable[Row]) -> str:
    """The page."""
    every = lines(found)
    return "\n".join([TITLE, *_summary(every), *_exceptions(every), *_table(every)]) + "\n"


def _summary(every: Sequence[Line]) -> list[str]:
    said = [
        "## Result",
        "",
        f"| set | Docker | {' | '.join(f'{way}: passed' for way in Way)} | exceptions |",
        f"|{'---|' * (len(Way) + 3)}",
    ]
    for privileges, docker in sorted({(line.privileges, line.docker) for line in every}):
        chosen = [line for line in every if (line.privileges, line.docker) == (privileges, docker)]
        passed = [str(sum(line.outcome(way) == Outcome.PASSED for line in chosen)) for way in Way]
        exceptions = sum(bool(line.exception) for line in chosen)
        said.append(f"| {privileges} | {docker} | {' | '.join(passed)} | {exceptions} |")
    return [*said, ""]


def _exceptions(every: Sequence[Line]) -> list[str]:
    wrong = [line for line in every if line.exception]
    said = [
        f"- {line.program}, {line.privileges}, Docker {line.docker}: {in_markdown(line.exception)}"
        for line in wrong
    ]
    return ["## Exceptions", "", *(said or ["None."]), ""]


def _table(every: Sequence[Line]) -> list[str]:
    heads = [*HEADS, "reason"]
    said = ["## Program by program", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    said += [f"| {' | '.join([*_cells(line), in_markdown(line.reason)])} |" for line in every]
    return said


def _cells(line: Line) -> list[str]:
    return [line.program, line.privileges, line.docker, *(line.outcome(way) for way in Way), line.check]


def table(found: Iterable[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, lines and notes for a terminal. Programs that pass in all ways are only counted."""
    every = lines(found)
    shown = [line for line in every if any(row.outcome is not Outcome.PASSED for row in line.rows.values())]
    notes = [f"{line.program} ({line.privileges}): {line.exception}" for line in every if line.exception]
    notes.append(f"{len(every) - len(shown)} programs pass in every way that was tried")
    return list(HEADS), [_cells(line) for line in shown], notes
