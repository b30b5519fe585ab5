"""Whether CRIU may read resource limits on this host: without CAP_SYS_RESOURCE, as in many a container, it may not.

CRIU asks for the limits of each process that it dumps with prlimit(2), which needs that capability as soon as the
process is another user's. /proc/PID/limits tells everybody the same: a library in CRIU (`interposed`) looks there
where the kernel refuses.
"""

from __future__ import annotations

import os

from . import proc

CAP_SYS_RESOURCE = 24


def capable() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    effective = int(proc.status(os.getpid())["CapEff"], 16)
    return bool(effective >> CAP_SYS_RESOURCE & 1)


def unreadable(pids: list[int]) -> bool:
    """Whether CRIU can't read the limits of these processes by itself."""
    return not capable() and any(_of_another_user(pid) for pid in pids)


def _of_another_user(pid: int) -> bool:
    status = proc.status(pid)
    wanted = {"Uid": str(os.getuid()), "Gid": str(os.getgid())}
    return any(one != own for name, own in wanted.items() for one in status.get(name, "").split()[:3])
