"""A small library that is loaded into CRIU, for what CRIU cannot be told by an option.

It stands between CRIU and the C library (`interposed.c`):

======= ==================================================================================================
prlimit Where the kernel refuses the limits of another process, they are read from /proc: see `limits`.
open_by In a dump, the handle of each watched file seems to be opened: see `watched_paths`.
open    In a dump, who watches a file is not told that CRIU opens it: see `files.silent`, `Lent`.
clone3  The restored container's first process gets the process id in `SEALIFT_ROOT_PID`, if that is set:
        see `destination.stand_in`.
mount,  The first file system for terminals that CRIU makes is the one in `SEALIFT_TERMINAL`, if that is set, and so is
openat  the terminal that Docker has: see `destination.console`.
mmap    Address space that is reserved only takes no memory at the restore (MariaDB reserves 8 TiB).
malloc, CRIU's table of a mapping's pages takes the memory that is used of it, also when it is copied for a dump
memcpy  whose pages follow later.
ptrace  A process whose first executable mapping is shared makes CRIU's system calls from a private one
        (PHP maps its compiled code so, below the program). One that waits in a system call goes on with it after
        a round or a rolled back dump: see `interrupted`.
        When all connections are made again, their lock is opened: see `network.lock`.
send,   What CRIU asks the page server for each process is answered at once, where the answer is known.
recv    With many processes CRIU logs warnings and errors only: see `trigger`.
======= ==================================================================================================

A seccomp filter cannot do this: a filtered CRIU may not suspend the filters of other processes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pkgutil
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .files import silent
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = Path("/run/sealift")
COMPILERS = ("tcc", "cc")
SOURCE = "interposed.c"
MACHINES = {
    "x86_64": {
        "PRLIMIT64": 302,
        "OPEN_BY_HANDLE": 304,
        "MEMFD": 319,
        "POINTER": 16,
        "RESULT": 10,
        "CALL": 15,
    },
    "aarch64": {"PRLIMIT64": 261, "OPEN_BY_HANDLE": 265, "MEMFD": 279, "POINTER": 32},
}
"""The numbers of system calls; which word of a process's registers is the address of its next instruction, what a
system call has returned, and its number."""


def obtainable() -> bool:
    """Whether the library is here or can be made."""
    return _path().exists() or (_compiler() is not None and os.uname().machine in MACHINES)


def library(step: str) -> Path:
    """The library, which is made if it is not there. AgentError of `step` without a compiler."""
    path = _path()
    if not path.exists():
        _make(path, step)
    return path


def environment(base: Mapping[str, str] = os.environ, *, silently: bool = False) -> dict[str, str]:
    """The environment of a CRIU that dumps, with the library where it can be had. AgentError if it can't be made.

    `silently`: whether the container's files are to be opened so that who watches them is not told (`files.silent`).
    """
    if not obtainable():
        return dict(base)
    ours = {"LD_PRELOAD": str(library("final dump")), "SEALIFT_DUMPS": "yes"}
    if silently:
        ours["SEALIFT_SILENT"] = silent.slot()
    return {**base, **ours}


def _source() -> bytes:
    """Out of the archive that the agents are in on a host."""
    return pkgutil.get_data(__package__, SOURCE) or b""


@functools.cache
def _path() -> Path:
    """By its source: another version of Sealift has its own."""
    return PLACE / f"interposed-{hashlib.sha256(_source()).hexdigest()[:16]}.so"


def _make(path: Path, step: str) -> None:
    program = _compiler()
    if program is None or os.uname().machine not in MACHINES:
        raise AgentError(
            "this host has no C compiler for the library that is loaded into CRIU: install tcc", step
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(f".{os.getpid()}.c")
    source.write_bytes(_source())
    fresh = path.with_suffix(f".{os.getpid()}")
    defined = [f"-D{name}={number}L" for name, number in MACHINES[os.uname().machine].items()]
    options = [] if program == "tcc" else ["-fPIC", "-fno-builtin", "-O1"]
    command = [program, "-shared", "-nostdlib", *options, *defined, "-o", str(fresh), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    source.unlink()
    if done.returncode != 0:
        raise AgentError(f"{program} can't make {path}: {done.stderr.strip()[-300:]}", step)
    fresh.rename(path)


def _compiler() -> str | None:
    return next((name for name in COMPILERS if shutil.which(name)), None)
