"""Private mounts of a container's trees, which no other process sees and in which no symbolic link is followed.

A program that reads a tree as root uses names that the container may change at any moment. If a directory becomes a
link to a host's directory, the host's files would be sent in its place (rsync follows links in the directories of a
name). In these mounts a name with a link in it fails (mount(2), MS_NOSYMFOLLOW). Links themselves can be read.

The mounts are in a mount namespace that belongs to one thread of this process. Programs that this thread starts are in
it, too, at no cost. The namespace ends with them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .. import libc, proc
from ..constants import SINGLE
from ..wire import AgentError
from . import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Result = TypeVar("Result")

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
"""sched.h, sys/mount.h."""

ROOTS = ("/merged", "/rootfs")
"""The end of the path at which Docker, or containerd, mounts a container's root."""

MOUNT_SETATTR, RECURSIVE, HERE = 442, 0x8000, -100
READ_ONLY, NO_SETUID, NO_DEVICES, NO_LINKS = 0x1, 0x2, 0x4, 0x200000
ATTRIBUTES = struct.Struct("=QQQQ")
"""The structure of mount_setattr(2), linux/mount.h: set, clear, propagation, user namespace."""


INSIDE = "file"
"""The name of a single file in the directory that is its tree."""


class Enclosure:
    """`roots` has the place of each tree for the thread. For other processes these directories are empty.

    The tree of a single file is a directory with this file alone, as `INSIDE`. Only with `writable` files can be
    changed there.
    """

    def __init__(self, directory: Path, trees: Mapping[str, str], *, writable: bool = False) -> None:
        self.roots = {name: directory / "trees" / name for name in trees}
        places = {}
        for name, root in self.roots.items():
            root.mkdir(parents=True)
            places[name] = root
            if name.startswith(SINGLE):
                places[name] = root / INSIDE
                places[name].touch()
        self._thread = ThreadPoolExecutor(1, "enclosure")
        try:
            self.run(_enter, trees, places, self.roots, 0 if writable else READ_ONLY)
        except OSError as refused:
            self.close()
            raise AgentError(
                f"the files can't be mounted so that no link is followed ({refused}): Linux 5.14 or later can",
                "sync",
            ) from refused

    def cover(self) -> bool:
        """Have the files read without events from now on (`silent`). Returns whether the kernel can."""
        return self.run(_cover, self.roots)

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in the thread. It runs one at a time."""
        return self._thread.submit(function, *arguments).result()

    def close(self) -> None:
        """End the thread, after its function has returned."""
        self._thread.shutdown()


def _enter(
    trees: Mapping[str, str], places: Mapping[str, Path], roots: Mapping[str, Path], more: int
) -> None:
    libc.call("unshare", CLONE_NEWNS)
    libc.call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    attributes = ATTRIBUTES.pack(NO_SETUID | NO_DEVICES | NO_LINKS | more, 0, 0, 0)
    for name, tree in trees.items():
        place = os.fsencode(places[name])
        libc.call("mount", os.fsencode(tree), place, None, MS_BIND | MS_REC, None)
        path = ctypes.c_char_p(place)
        libc.system_call(MOUNT_SETATTR, HERE, path, RECURSIVE, attributes, len(attributes))
    for mount in proc.mounts("thread-self"):
        if _is_a_containers(mount) and not _is_in(mount, roots):
            with contextlib.suppress(OSError):  # it was below another mount, which was unmounted with it
                libc.call("umount2", os.fsencode(mount.point), MNT_DETACH)


def _cover(roots: Mapping[str, Path]) -> bool:
    covered = True
    for mount in proc.mounts("thread-self"):
        if _is_in(mount, roots):
            handle = os.open(mount.point, silent.PATH_ONLY)
            try:
                covered = silent.cover(handle) and covered
            finally:
                os.close(handle)
    return covered


def _is_in(mount: proc.Mount, roots: Mapping[str, Path]) -> bool:
    return any(f"{mount.point}/".startswith(f"{root}/") for root in roots.values())


def _is_a_containers(mount: proc.Mount) -> bool:
    """Whether Docker has mounted it for a container: a network namespace, or the root.

    A copy would keep it in use during the migration, though Docker has unmounted it: the veth pair and the layers of a
    container that is gone would stay.
    """
    return mount.kind == "nsfs" or (mount.kind == "overlay" and mount.point.endswith(ROOTS))
