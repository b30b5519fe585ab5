"""Processes that outlive whoever started them, and are known again without mistaking another for them.

A process writes its own pid and start time into a file before it becomes the program (exec keeps both): so
a starter killed at any point leaves no program without a record, and a recycled pid is never killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import PrerequisiteMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


END_TIMEOUT_S = 5

# $0 is the file. Field 22 of stat is the start time; a shell's name has no space that could shift it.
_RECORD_AND_BECOME = 'umask 077; echo "$$ $(cut -d" " -f22 /proc/$$/stat)" >"$0" && exec "$@"'


def spawn(
    words: Sequence[str],
    record: Path,
    log: Path,
    *,
    inherited: Iterable[int] = (),
    environment: Mapping[str, str] = os.environ,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output in `log`, its identity in `record`."""
    record.unlink(missing_ok=True)
    with log.open("wb") as output:
        try:
            return subprocess.Popen(
                ["/bin/sh", "-c", _RECORD_AND_BECOME, str(record), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(inherited),
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            raise PrerequisiteMissing(f"no process can be started here: {error.strerror}") from error


def living(record: Path) -> int | None:
    """The pid in a record, if that very process still runs."""
    try:
        pid, started = record.read_text().split()
        stat = (Path("/proc") / pid / "stat").read_bytes().decode(errors="replace")
    except (OSError, ValueError):
        return None
    # The name in parentheses may hold anything; what follows it may not.
    fields = stat.rpartition(")")[2].split()
    state, start_time = fields[0], fields[19]
    return int(pid) if start_time == started and state not in "ZX" else None


def end(record: Path) -> None:
    """End the process of a record, kindly, then not; without one there is nothing to do."""
    pid = living(record)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if living(record) != pid:  # recycled between the look and the handle
                return
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], END_TIMEOUT_S)[0]:
                    break
        finally:
            os.close(handle)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
