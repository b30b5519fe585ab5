"""Run many rows, each written at once, so that a run that was killed goes on where it was."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks import kept
from benchmarks.compat import row as rows
from benchmarks.compat.programs import PROGRAMS
from benchmarks.compat.row import MOVED, REFUSED, Row
from benchmarks.measure.origin import code
from benchmarks.testbed import Testbed
from sealift.errors import UnusableInput
from sealift.inventory import lab_inventory, load
from sealift.lab import lab
from sealift.lab.plan import dockers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.compat.program import Program
    from sealift.inventory import Inventory

DOCKERS = ("26", "28")
"""Pairs of Dockers that are tried unless others are asked for."""


def chosen(names: Sequence[str]) -> list[Program]:
    """The programs of these names, or all. Those that share an image come one after the other."""
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        raise UnusableInput(
            f"there is no program {unknown[0]!r} in the table", remedy=f"Take some of: {', '.join(PROGRAMS)}"
        )
    programs = [program for program in PROGRAMS.values() if not names or program.name in names]
    order = list(dict.fromkeys(program.image for program in programs))
    return sorted(programs, key=lambda program: order.index(program.image))


def keep(
    programs: Sequence[Program],
    dockers: Sequence[str],
    *,
    found: dict[str, Row],
    results: Path | None,
    say: Callable[[str], None],
    strategies: Sequence[str] = (),
) -> list[Row]:
    """Try all rows of these programs that are not in `found`, and put each there and into the file at once.

    Returns the rows of these programs, old and new.
    """
    for docker in dockers:
        dockers_of(docker)  # a slip of the pen is answered before anything is tried
    for docker in dockers:
        for row in run(programs, docker, found, say, strategies):
            found[row.key] = row
            if results is not None:
                kept.store(found.values(), results)
    names = {program.name for program in programs}
    return [row for row in found.values() if row.program in names and row.docker in dockers]


def run(
    programs: Sequence[Program],
    docker: str,
    known: dict[str, Row],
    say: Callable[[str], None],
    strategies: Sequence[str] = (),
) -> Iterator[Row]:
    """Try the rows of these programs that are not known, on one pair of Dockers. Yields each when it is done."""
    todo = [
        (program, strategy)
        for program in programs
        for strategy in program.strategies
        if (not strategies or strategy in strategies)
        and not settled(known.get(rows.key(program.name, strategy, docker)))
    ]
    if not todo:
        return
    began = time.monotonic()
    with lab_with(docker, say) as inventory, Testbed.open(inventory, say=say) as testbed:
        for done, (program, strategy) in enumerate(todo, start=1):
            row = rows.run(program, strategy, docker, testbed)
            left_s = (time.monotonic() - began) / done * (len(todo) - done)
            say(f"{done}/{len(todo)} {row.key}: {sentence(row)} ({left_s / 60:.0f} min left)")
            yield row


def settled(row: Row | None) -> bool:
    """Whether a row need not be tried again: it was as it must be with this code, which is committed."""
    return row is not None and not wrong(row) and row.code == code() and not row.code.endswith("+")


def sentence(row: Row) -> str:
    """A row for a person, on one line."""
    said = f"{row.outcome}, check said {row.check or 'nothing'}"
    if row.frozen_ms:
        said += f", frozen {max(row.frozen_ms):.0f} ms, longest gap {row.longest_gap_ms:.0f} ms"
    return f"{said}: {row.reason}" if row.reason else said


def wrong(row: Row) -> str:
    """What is wrong with a row, or nothing: it did not go and is not known not to, or `check` was wrong."""
    known = PROGRAMS[row.program].limit if row.program in PROGRAMS else ""
    if row.outcome == MOVED:
        return "" if row.check_is_right else f"`check` said no, and it went: {row.reason}"
    if row.outcome == REFUSED and known:
        return ""
    said = {"yes": "`check` said yes: ", "no": "`check` said no: "}.get(row.check, "")
    return f"{row.outcome}; {said}{row.reason}"


@contextmanager
def lab_with(docker: str, say: Callable[[str], None]) -> Iterator[Inventory]:
    """The lab that is up, if it has these Dockers, else one for the length of the block."""
    if lab_inventory().is_file():
        inventory = load(lab_inventory())
        if inventory.lab is None or inventory.lab.docker != dockers_of(docker):
            raise UnusableInput(
                f"a lab with other versions of Docker than {docker} is up",
                remedy="`sealift lab down` ends it",
            )
        yield lab.running()
        return
    inventory = lab.up("netns", say=say, docker=docker)
    try:
        yield inventory
    finally:
        lab.down()


def stored(path: Path) -> dict[str, Row]:
    """The rows of such a file by their keys. None if there is no file. UnusableInput for another kind of file."""
    found = kept.stored(path, from_fields, "rows", "sealift bench compat")
    return {row.key: row for row in found}


def from_fields(fields: dict[str, Any]) -> Row:
    """One row from its JSON object. TypeError or KeyError for another object."""
    return Row(**fields | {name: tuple(fields[name]) for name in ("predicted_ms", "frozen_ms")})
