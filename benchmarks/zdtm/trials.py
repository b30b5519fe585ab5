"""Try programs: many in one container as long as that goes, and each by itself where it does not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.zdtm.row import Outcome
from benchmarks.zdtm.runners import FAILURES, Stuck
from sealift.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.zdtm.runners import Runner

TOGETHER = 50
ENDED_S = 10
"""Seconds that programs have to end after SIGTERM, as in the suite's own runs they have no longer than that."""

COMM = 15
"""The kernel keeps so many characters of a process's name (proc(5), comm)."""

VERDICT = f"""
cd /zdtm; started=; unstarted=
for each; do
    pid=$(cat "$each.pid" 2>/dev/null)
    if [ -n "$pid" ]; then started="$started $each:$pid"; else unstarted="$unstarted $each"; fi
done
lives() {{ read -r _ _ state _ <"/proc/${{1#*:}}/stat" && [ "$state" != Z ]; }} 2>/dev/null
tell() {{
    said=$(grep -ahE 'FAIL|ERR' "$1.out" "$1.out.inprogress" 2>/dev/null | head -n 1 | tr '\\t' ' ')
    printf '%s\\t%s\\t%s\\n' "$1" "$2" "${{3:-$said}}"
}}
for each in $started; do kill -TERM "${{each#*:}}" 2>/dev/null; done
left=$(({ENDED_S} * 5))
while [ $left -gt 0 ]; do
    some=; for each in $started; do lives "$each" && some=1; done
    [ -n "$some" ] || break
    sleep 0.2; left=$((left - 1))
done
for each in $unstarted; do tell "$each" "{Outcome.UNSTARTED}"; done
for each in $started; do
    name=${{each%:*}}
    if lives "$each"; then tell "$name" "{Outcome.FAILED}" "still runs after SIGTERM"
    elif grep -qa PASS "$name.out" 2>/dev/null; then tell "$name" "{Outcome.PASSED}" " "
    else tell "$name" "{Outcome.FAILED}"; fi
done
"""
"""Ask programs for their verdicts: they give them when they get SIGTERM, in a line with PASS of their .out file."""


@dataclass(frozen=True)
class Verdict:
    """What came of one program."""

    outcome: Outcome
    reason: str = ""


def verdicts(said: str) -> dict[str, Verdict]:
    """What VERDICT has printed, by program. ValueError for other text."""
    found = {}
    for line in said.splitlines():
        name, outcome, reason = line.split("\t")
        found[name] = Verdict(Outcome(outcome), reason.strip())
    return found


def named(names: Iterable[str], reasons: str) -> list[str]:
    """Those programs of whose processes `reasons` speaks, as "NAME, pid N"."""
    return [name for name in names if f"{name.rpartition('/')[2][:COMM]}, pid" in reasons]


def attempt(runner: Runner, names: Sequence[str]) -> dict[str, Verdict]:
    """Try all of these in one container. FAILURES and Stuck as for `Runner.move`."""
    try:
        runner.start(names)
        runner.move()
        return verdicts(runner.execute(["sh", "-c", VERDICT, "sh", *names], ENDED_S + 60))
    finally:
        runner.remove()


def every(
    make: Callable[[], Runner], names: Sequence[str], together: int = TOGETHER
) -> Iterator[tuple[str, Verdict]]:
    """Verdicts of all these programs. A container that can't move is divided; what fails in one is tried by itself."""
    for first in range(0, len(names), together):
        yield from _divided(make, names[first : first + together])


def _divided(make: Callable[[], Runner], names: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    if not names:
        return
    try:
        found = attempt(make(), names)
    except Stuck as stuck:
        if len(names) == 1:
            yield names[0], Verdict(Outcome.REFUSED, str(stuck))
            return
        alone = named(names, str(stuck))
        rest = [name for name in names if name not in alone]
        if not alone or not rest:
            yield from _halved(make, names)
            return
        for name in alone:
            yield from _divided(make, [name])
        yield from _divided(make, rest)
        return
    except FAILURES as failed:
        time.sleep(0.5)
        if len(names) == 1:
            yield names[0], Verdict(Outcome.BROKEN, one_line(str(failed)))
            return
        yield from _halved(make, names)
        return
    for name in names:
        verdict = found.get(name, Verdict(Outcome.UNSTARTED, "no verdict"))
        if verdict.outcome is Outcome.PASSED or len(names) == 1:
            yield name, verdict
        else:
            yield from _divided(make, [name])  # others may have been in its way


def _halved(make: Callable[[], Runner], names: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    half = len(names) // 2
    yield from _divided(make, names[:half])
    yield from _divided(make, names[half:])
