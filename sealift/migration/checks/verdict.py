"""A check's text: first the verdict, then what prevents the migration or is in doubt, and the rest if asked for."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from sealift.migration.checks.finding import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.checks.finding import Finding

WIDTH = 80
"""Columns. Only a line with a longer word is longer."""

INDENT = 9
"""The column of the text after `no`, `unknown` and `yes`."""


def verdict_lines(
    container: str, source: str, destination: str, findings: Sequence[Finding], *, everything: bool = False
) -> list[str]:
    """The lines of the text. One cause has one entry for all its resources. With `everything`, each `yes` has one."""
    against = [one for one in findings if one.answer is Answer.NO]
    doubts = [one for one in findings if one.answer is Answer.UNKNOWN]
    rest = [one for one in findings if one.answer is Answer.YES]
    whole = _verdict(f"{container} {{}} from {source} to {destination}", _causes(against), _causes(doubts))
    lines = _wrapped(whole)
    for entries in (against, doubts, rest if everything else ()):
        if entries:
            lines += ["", *(line for one in _causes(entries) for line in _entry(*one))]
    if rest and not everything:
        lines += ["", f"{Answer.YES.value:<{INDENT}}{len(rest)} others; --all lists them"]
    return lines


Cause = tuple["Finding", list[str]]


def _causes(findings: Sequence[Finding]) -> list[Cause]:
    """Join findings with the same text about the same host, with all their resources."""
    found: dict[tuple[str, ...], Cause] = {}
    for one in findings:
        found.setdefault((one.host, one.what, one.remedy), (one, []))[1].append(one.resource.value)
    return list(found.values())


def _verdict(of: str, against: list[Cause], doubts: list[Cause]) -> str:
    if against:
        reasons = "one reason" if len(against) == 1 else f"{len(against)} reasons"
        return f"no: {of.format('cannot be migrated')}, for {reasons}"
    if doubts:
        things = "one thing is" if len(doubts) == 1 else f"{len(doubts)} things are"
        return f"yes: {of.format('can be migrated')}, as far as is known; {things} in doubt"
    return f"yes: {of.format('can be migrated')}"


def _entry(one: Finding, resources: list[str]) -> list[str]:
    said = f"{one.answer.value:<{INDENT}}{one.host}, {', '.join(resources)}: {one.what}"
    lines = _wrapped(said)
    return lines + (_wrapped(f"{'':<{INDENT}}Remedy: {one.remedy}") if one.remedy else [])


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(
        line,
        WIDTH,
        subsequent_indent=" " * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
