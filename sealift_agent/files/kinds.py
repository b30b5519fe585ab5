"""What lies at a path of this host: whether it can be sent, and whether something would be replaced there."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .. import proc
from ..protocol import PathFound
from . import beneath, silent

KERNELS = {
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
}
"""File systems whose files are the kernel's (Documentation/filesystems)."""

DIGEST_MOST_BYTES = 1 << 20


def describe(paths: list[str]) -> list[PathFound]:
    """What lies at each of these paths."""
    kernels = {mount.device for mount in proc.mounts("self") if mount.kind in KERNELS}
    return [_describe(Path(path), kernels) for path in paths]


def _describe(path: Path, kernels: set[str]) -> PathFound:
    try:
        seen = path.stat()
    except OSError:
        return PathFound("missing")
    mode = seen.st_mode
    if f"{os.major(seen.st_dev)}:{os.minor(seen.st_dev)}" in kernels:
        return PathFound("kernel")
    if stat.S_ISDIR(mode):
        with silent.tree(str(path)) as top:
            return PathFound("directory", empty=beneath.is_empty(top))
    if stat.S_ISREG(mode):
        digest = _digest(path) if seen.st_size <= DIGEST_MOST_BYTES else None
        return PathFound("file", empty=seen.st_size == 0, digest=digest)
    if stat.S_ISSOCK(mode):
        return PathFound("socket")
    return PathFound("pipe" if stat.S_ISFIFO(mode) else "device")


def _digest(path: Path) -> str:
    """Of a file's content, read so that nobody is told who watches it."""
    with silent.tree(str(path)) as top:
        handle = silent.quietly(lambda: os.open(f"/proc/self/fd/{top}", os.O_RDONLY | os.O_CLOEXEC))
        with os.fdopen(handle, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
