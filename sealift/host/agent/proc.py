"""/proc/PID as it is: bytes that a workload chooses, of a process that may end while it is looked at.

Names of processes, files and mounts hold any byte but NUL. Lines end in a line feed alone: str.splitlines() would end
them at a dozen other characters, too. What is no UTF-8 is kept by surrogates, as os.fsdecode() does it.
"""

from __future__ import annotations

import errno
from pathlib import Path

ENDED = {errno.ENOENT, errno.ESRCH, errno.EINVAL}
"""What the kernel says of a process that has ended, or is a zombie: its mountinfo is an invalid argument then."""


def read(pid: int | str, name: str) -> str:
    """A file of a process. Empty once the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "surrogateescape")
    except OSError as failed:
        if failed.errno in ENDED:
            return ""
        raise


def lines(pid: int | str, name: str) -> list[str]:
    """The lines of a file of a process. None once the process has ended."""
    return [line for line in read(pid, name).split("\n") if line]


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status (proc(5)), by its words. Empty once the process has ended."""
    found = (line.partition(":") for line in lines(pid, "status"))
    return {name: value.strip(" \t") for name, _, value in found}


def stat(pid: int | str) -> tuple[str, list[str]]:
    """Name and further fields of /proc/PID/stat (proc(5)), from the state on; no fields once the process has ended.

    The name stands in parentheses and may hold some itself.
    """
    name, _, rest = read(pid, "stat").partition("(")[2].rpartition(")")
    return name, rest.split()


def pids() -> list[int]:
    """All processes of this host."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
