"""Settings of processes and threads that CRIU 4.2 does not carry: processors, slack of timers, what a core dump has.

They are read before the freeze, and once more in it as far as the time allows. They travel as a file among the images,
if any differs from what a new process has.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from . import cgroup, libc, proc
from .messages import Misunderstood, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILE = "task-settings.json"
AGAIN_S = 0.005
"""How long threads that are known from before are read once more."""

SLACK_NS = 50_000
"""What a process has that has not set it (prctl(2), PR_SET_TIMERSLACK)."""

FILTER = 0x33
"""What a core dump has by default (core(5))."""

IO_PRIORITY = {"x86_64": (251, 252), "aarch64": (30, 31)}
"""Numbers of ioprio_set(2) and ioprio_get(2)."""

ONE = 1
"""IOPRIO_WHO_PROCESS: one thread (linux/ioprio.h)."""

MOST = 1 << 22


class Settings(NamedTuple):
    """Of a thread. What is as usual is None; `dumped` is told for a process's first thread only.

    `reads` is its class and priority for disks (ioprio_set(2)).
    """

    processors: list[int] | None
    slack_ns: int | None
    dumped: int | None
    reads: int | None


USUAL = Settings(None, None, None, None)


class Source:
    """Read ahead (`read`) → read in the freeze (`write`)."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Settings] = {}

    def read(self, pids: Iterable[int], patience_s: float | None = None) -> None:
        """Read the settings of all threads of these processes; after `patience_s`, of those only that are not known."""
        until = None if patience_s is None else time.monotonic() + patience_s
        everything = set(range(os.cpu_count() or 1))
        found: dict[tuple[int, int], Settings] = {}
        for pid in pids:
            for thread in proc.threads(pid):
                known = self._known.get((pid, thread))
                if known is None or until is None or time.monotonic() < until:
                    with contextlib.suppress(OSError, ValueError):  # it has ended
                        known = _settings(pid, thread, everything)
                if known is not None:
                    found[pid, thread] = known
        self._known = found

    def write(self, images: Path, pids: Iterable[int]) -> None:
        """In the freeze: write what differs from the usual among the images."""
        self.read(pids, AGAIN_S)
        listed = [
            [proc.number_inside(pid), proc.number_inside(thread), *settings]
            for (pid, thread), settings in self._known.items()
            if settings != USUAL
        ]
        if listed:
            (images / FILE).write_text(json.dumps({"threads": listed}))


def _settings(pid: int, thread: int, everything: set[int]) -> Settings:
    processors = os.sched_getaffinity(thread)
    slack_ns = int(proc.read(thread, "timerslack_ns"))
    dumped = int(proc.read(pid, "coredump_filter") or hex(FILTER), 16) if thread == pid else FILTER
    return Settings(
        None if processors == everything else sorted(processors),
        None if slack_ns == SLACK_NS else slack_ns,
        None if dumped == FILTER else dumped,
        _io_priority(thread),
    )


def _io_priority(thread: int) -> int | None:
    if os.uname().machine not in IO_PRIORITY:
        return None
    _, get = IO_PRIORITY[os.uname().machine]
    return libc.system_call(get, ONE, thread) or None


def put_back(images: Path, first_process: Callable[[], int]) -> None:
    """Give the restored threads what is listed. Misunderstood if the list can't be understood.

    What this host does not have (a processor), or does not allow, is left as it is.
    """
    try:
        listed = _parsed((images / FILE).read_bytes())
    except FileNotFoundError:
        return
    pids = cgroup.pids(cgroup.of_process(first_process()))
    places = {
        (proc.number_inside(pid), proc.number_inside(thread)): (pid, thread)
        for pid in pids
        for thread in proc.threads(pid)
    }
    for inside, settings in listed:
        if inside in places:  # it runs, and may have ended
            _put(*places[inside], settings)


def _put(pid: int, thread: int, settings: Settings) -> None:
    if settings.processors is not None:
        with contextlib.suppress(OSError, ValueError):
            os.sched_setaffinity(thread, settings.processors)
    if settings.slack_ns is not None:
        with contextlib.suppress(OSError):
            Path(f"/proc/{thread}/timerslack_ns").write_text(str(settings.slack_ns))
    if settings.reads is not None and os.uname().machine in IO_PRIORITY:
        with contextlib.suppress(OSError):
            libc.system_call(IO_PRIORITY[os.uname().machine][0], ONE, thread, settings.reads)
    if settings.dumped is not None:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/coredump_filter").write_text(hex(settings.dumped))


def _parsed(data: bytes) -> list[tuple[tuple[int, int], Settings]]:
    listed = parse(data).get("threads")
    if not isinstance(listed, list) or len(listed) > MOST:
        _wrong("it is no list")
    return [_entry(each) for each in listed]


def _entry(entry: Any) -> tuple[tuple[int, int], Settings]:
    if not isinstance(entry, list) or len(entry) != 6:
        _wrong("an entry has not six parts")
    pid, thread, processors, slack_ns, dumped, reads = entry
    if not all(_is_number(each, MOST) and each for each in (pid, thread)):
        _wrong("a thread has no number")
    if processors is not None and not (
        isinstance(processors, list) and all(_is_number(each, 1 << 16) for each in processors)
    ):
        _wrong("processors are no list of numbers")
    if not all(each is None or _is_number(each, 1 << 63) for each in (slack_ns, dumped, reads)):
        _wrong("a setting is no number")
    return (pid, thread), Settings(processors, slack_ns, dumped, reads)


def _is_number(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value < most


def _wrong(why: str) -> NoReturn:
    raise Misunderstood(f"the other side sent a list of settings that can't be understood: {why}")
