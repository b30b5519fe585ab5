"""Sleeping system calls that a dump interrupts: the restored process calls them again instead of seeing EINTR.

The kernel continues nanosleep(2), poll(2) and futex(2) by itself after a stop, with what is left of their time. That
rest is not in an image, so CRIU (4.2, compel/arch/x86/src/lib/infect.c) lets them fail with EINTR, as if a signal had
been handled. Programs that handle no signal do not expect that: the `sleep` of BusyBox ends. Called again they wait for
their whole time, which is what a caller that does handle EINTR does, too. Other calls end with
EINTR at every stop: in the freeze, they are called again as well. A signal that waits at the freeze is handled before
that, as one that comes right before the call.

Once the kernel has continued a call, it is `restart_syscall` and its own number is gone. So the numbers are noted
before the container is stopped for the first time, and else found in the program, in front of the instruction.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import proc
from .images import spans
from .protobuf import BYTES, Place, places, varint

if TYPE_CHECKING:
    from collections.abc import Iterable

WITH_REST = {7: "poll", 35: "nanosleep", 202: "futex", 230: "clock_nanosleep"}
WITHOUT_REST = {
    43: "accept",
    288: "accept4",
    45: "recvfrom",
    47: "recvmsg",
    299: "recvmmsg",
    232: "epoll_wait",
    281: "epoll_pwait",
    441: "epoll_pwait2",
    65: "semop",
    220: "semtimedop",
    128: "rt_sigtimedwait",
}
CALLS = WITH_REST | WITHOUT_REST
CONTINUED = 219
"""Numbers on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl): calls that the kernel continues; those that end with
EINTR at every stop (signal(7); of sockets, only with a time limit); `restart_syscall`."""

INTERRUPTED = (1 << 64) - 4
"""EINTR, as a register has it."""

CALL_BYTES = 2
"""Of the instruction `syscall`."""

CODE_BYTES = 16
LOAD = re.compile(rb"\xb8(.)\0\0\0\x0f\x05", re.DOTALL)
"""mov $number,%eax; syscall"""

THREAD, REGISTERS = 2, 2  # images/core.proto, core_entry; images/core-x86.proto, thread_info_x86
AX, ARGUMENTS, ORIGINAL_AX, IP, SP = 11, (15, 14, 13, 8), 16, 17, 20  # user_x86_regs_entry; di, si, dx, r10
MARK = bytes([AX << 3]) + b"\xfc" + b"\xff" * 8 + b"\x01"
"""A register `ax` with EINTR. Most threads have none, and their images are not taken apart."""


class Call(NamedTuple):
    """Where a thread waits: its stack, its next instruction, and the call's first four arguments."""

    stack: int
    instruction: int
    arguments: tuple[int, ...]


class Interrupted:
    """`note` as long as the container runs; `call_again` once it is dumped."""

    def __init__(self) -> None:
        self._noted: dict[Call, int] = {}

    def note(self, pids: Iterable[int]) -> None:
        """Note in which calls the threads of these processes wait. Those that the kernel has continued keep theirs."""
        for pid in pids:
            for thread in proc.threads(pid):
                # "number, six arguments, stack, instruction" (proc(5)); less if it does not wait.
                words = proc.read(thread, "syscall").split()
                if len(words) == 9 and int(words[0]) in WITH_REST:
                    numbers = [int(word, 16) for word in words[1:]]
                    self._noted[Call(numbers[6], numbers[7], tuple(numbers[:4]))] = int(words[0])

    def call_again(self, images: Path, pids: Iterable[int]) -> int:
        """Change the images of these processes, which are frozen, in place. Returns how many threads call again."""
        changed = 0
        homes: dict[int, int] = {}
        for path in images.glob("core-*.img"):
            data = bytearray(path.read_bytes())
            found = _registers(data) if MARK in data else None
            if found is None or found[AX].value != INTERRUPTED:
                continue
            number = found[ORIGINAL_AX].value
            if number == CONTINUED:
                homes = homes or {proc.number_inside(each): pid for pid in pids for each in proc.threads(pid)}
                home = homes.get(int(path.stem.removeprefix("core-")))
                number = self._noted.get(_call(found)) or _in_program(home, found[IP].value) or 0
            if number in CALLS:
                _write(data, found[AX], number)
                _write(data, found[IP], found[IP].value - CALL_BYTES)
                path.write_bytes(data)
                changed += 1
        return changed


def _registers(data: bytearray) -> dict[int, Place] | None:
    """Where the registers of the thread stand. None of a thread of another architecture."""
    begin, end = next(spans(data))
    for wanted in (THREAD, REGISTERS):
        inner = next(
            (each for each in places(data, begin, end) if each.number == wanted and each.kind == BYTES), None
        )
        if inner is None:
            return None
        begin, end = inner.at, inner.at + inner.value
    found = {each.number: each for each in places(data, begin, end)}
    return found if {AX, *ARGUMENTS, ORIGINAL_AX, IP, SP} <= found.keys() else None


def _call(found: dict[int, Place]) -> Call:
    return Call(found[SP].value, found[IP].value, tuple(found[each].value for each in ARGUMENTS))


def _in_program(pid: int | None, instruction: int) -> int | None:
    """The number that the program loads right before it makes the call."""
    with (
        contextlib.suppress(OSError, OverflowError),
        Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory,
    ):
        memory.seek(instruction - CODE_BYTES)
        loaded = LOAD.search(memory.read(CODE_BYTES))
        if loaded is not None and loaded.end() == CODE_BYTES:
            return loaded[1][0]
    return None


def _write(data: bytearray, place: Place, value: int) -> None:
    """Another value in as many bytes: a varint may have zeros at its end."""
    _, end = varint(data, place.at)
    for at in range(place.at, end):
        data[at] = value & 0x7F | (0x80 if at + 1 < end else 0)
        value >>= 7
