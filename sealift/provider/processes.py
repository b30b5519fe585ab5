"""Processes that live longer than the program that started them, and are recognized reliably.

A process writes its own pid and start time into a file before it becomes the program (exec keeps both). So if the
starter is killed at any point, no program is without a record. A process that has reused a pid is never killed.
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

# $0 is the file. Field 22 of stat is the start time; the name of a shell has no space that would shift the fields.
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
    """The pid in a record, if the same process still runs."""
    try:
        pid, started = record.read_text().split()
        stat = (Path("/proc") / pid / "stat").read_bytes().decode(errors="replace")
    except (OSError, ValueError):
        return None
    # The name in parentheses may contain any character; the fields after it do not.
    fields = stat.rpartition(")")[2].split()
    state, start_time = fields[0], fields[19]
    return int(pid) if start_time == started and state not in "ZX" else None


def end(record: Path) -> None:
    """End the process of a record: first with SIGTERM, then with SIGKILL. Without a record it does nothing."""
    pid = living(record)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if living(record) != pid:  # the pid was reused between the check and the handle
                return
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], END_TIMEOUT_S)[0]:
                    break
        finally:
            os.close(handle)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
