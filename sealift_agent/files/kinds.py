"""What lies at a path of this host: whether it can be sent, and whether something would be replaced there."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .. import proc
from ..protocol import PathFound

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
        return PathFound("directory", empty=next(path.iterdir(), None) is None)
    if stat.S_ISREG(mode):
        digest = None
        if seen.st_size <= DIGEST_MOST_BYTES:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return PathFound("file", empty=seen.st_size == 0, digest=digest)
    if stat.S_ISSOCK(mode):
        return PathFound("socket")
    return PathFound("pipe" if stat.S_ISFIFO(mode) else "device")
