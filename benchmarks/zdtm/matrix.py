"""Run many rows, each kept at once, so that a run that was killed goes on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import kept
from benchmarks.compat.matrix import lab_with
from benchmarks.measure.origin import code
from benchmarks.testbed import DOCKER_HOSTS, Testbed
from benchmarks.zdtm import image, runners, trials
from benchmarks.zdtm.row import SEALIFTS, Outcome, Row, Way, from_fields, key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from benchmarks.zdtm.suite import Program

WAYS = (Way.STAYS, *SEALIFTS, Way.PLAIN)
"""In the order in which they are tried. What does not pass in a container that stays is tried in no other way."""


def stored(path: Path) -> dict[str, Row]:
    """The rows of such a file by their keys. None if there is no file. UnusableInput for another kind of file."""
    return {row.key: row for row in kept.stored(path, from_fields, "rows", "sealift bench zdtm")}


def settled(row: Row | None) -> bool:
    """Whether a row need not be tried again. Only those of Sealift depend on its code, which has to be committed."""
    if row is None:
        return False
    return row.way not in SEALIFTS or (row.code == code() and not row.code.endswith("+"))


def keep(
    suite: Path,
    programs: Sequence[Program],
    privileges: Sequence[str],
    docker: str,
    *,
    found: dict[str, Row],
    results: Path | None,
    say: Callable[[str], None],
    ways: Sequence[Way] = WAYS,
    together: int = trials.TOGETHER,
) -> list[Row]:
    """Try all rows of these programs that are not in `found`, and put each there and into the file at once.

    `together` is how many programs share a container at most. Returns the rows of these programs, old and new.
    """
    names = [program.name for program in programs]
    alone = {program.name for program in programs if program.alone}
    with lab_with(docker, say) as inventory, Testbed.open(inventory, say=say) as testbed:
        packed = image.packed(suite)
        tags = [image.provide(testbed[host], packed, say=say) for host in DOCKER_HOSTS]
        runners.clear(testbed)
        try:
            for chosen in privileges:
                for way in WAYS:
                    if way not in ways:
                        continue

                    def make(chosen: str = chosen, way: Way = way) -> runners.Runner:
                        return runners.runner(testbed, tags[0], chosen, way)

                    todo = _todo(names, chosen, way, docker, found)
                    crowd, rest = _apart(todo, alone, chosen, docker, found)
                    for some, size in ((crowd, together), (rest, 1)):
                        for name, verdict in trials.every(make, some, size):
                            row = Row(name, chosen, way, docker, verdict.outcome, verdict.reason, code())
                            found[row.key] = row
                            if results is not None:
                                kept.store(found.values(), results)
                            say(f"{row.key}: {row.outcome}{f': {row.reason}' if row.reason else ''}")
        finally:
            runners.clear(testbed)
    return [row for row in found.values() if row.program in names and row.docker == docker]


def _todo(names: Sequence[str], privileges: str, way: Way, docker: str, found: dict[str, Row]) -> list[str]:
    """The programs whose rows are to be tried: they are not settled, and pass where they stay."""
    todo = []
    for name in names:
        stays = found.get(key(name, privileges, Way.STAYS, docker))
        runs = way is Way.STAYS or (stays is not None and stays.outcome is Outcome.PASSED)
        if runs and not settled(found.get(key(name, privileges, way, docker))):
            todo.append(name)
    return todo


def _apart(
    names: Sequence[str], alone: Collection[str], privileges: str, docker: str, found: dict[str, Row]
) -> tuple[list[str], list[str]]:
    """Those that may share a container; and those that go one by one: always, or since they did not pass before."""
    apart = [
        name
        for name in names
        if name in alone
        or any(
            (row := found.get(key(name, privileges, way, docker))) and row.outcome is not Outcome.PASSED
            for way in WAYS
        )
    ]
    return [name for name in names if name not in apart], apart
