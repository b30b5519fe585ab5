"""The trees of a container, mounted once more where nobody else sees it, and where no symbolic link is followed.

What reads a tree as root goes by names that the container may change at any moment: a directory becomes a link to one
of the host's, and the host's files would be sent in its place (rsync follows links in the directories of a name). In
these mounts a name that goes through a link leads nowhere (mount(2), MS_NOSYMFOLLOW); links themselves can be read.

The mounts are in a mount namespace that one thread of this process has for itself. What that thread starts is in it,
too, at no cost; the namespace ends with them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .. import libc, proc
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Result = TypeVar("Result")

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
"""sched.h, sys/mount.h."""

ROOTS = ("/merged", "/rootfs")
"""How the place ends at which Docker, or containerd, has a container's root."""

MOUNT_SETATTR, RECURSIVE, HERE = 442, 0x8000, -100
READ_ONLY, NO_SETUID, NO_DEVICES, NO_LINKS = 0x1, 0x2, 0x4, 0x200000
ATTRIBUTES = struct.Struct("=QQQQ")
"""mount_setattr(2), linux/mount.h: what is set, what is cleared, propagation, user namespace."""


class Enclosure:
    """`roots` says where the thread has each tree, in a directory that is empty for all others."""

    def __init__(self, directory: Path, trees: Mapping[str, str]) -> None:
        self.roots = {name: directory / "trees" / name for name in trees}
        for place in self.roots.values():
            place.mkdir(parents=True)
        self._thread = ThreadPoolExecutor(1, "enclosure")
        try:
            self.run(_enter, trees, self.roots)
        except OSError as refused:
            self.close()
            raise AgentError(
                f"the files can't be mounted so that no link is followed ({refused}): Linux 5.14 or later can",
                "sync",
            ) from refused

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in there. One at a time."""
        return self._thread.submit(function, *arguments).result()

    def close(self) -> None:
        """End the thread, once what it does is done."""
        self._thread.shutdown()


def _enter(trees: Mapping[str, str], roots: Mapping[str, Path]) -> None:
    libc.call("unshare", CLONE_NEWNS)
    libc.call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    attributes = ATTRIBUTES.pack(READ_ONLY | NO_SETUID | NO_DEVICES | NO_LINKS, 0, 0, 0)
    for name, tree in trees.items():
        place = os.fsencode(roots[name])
        libc.call("mount", os.fsencode(tree), place, None, MS_BIND | MS_REC, None)
        path = ctypes.c_char_p(place)
        libc.system_call(MOUNT_SETATTR, HERE, path, RECURSIVE, attributes, len(attributes))
    ours = tuple(f"{root}/" for root in roots.values())
    for mount in proc.mounts("thread-self"):
        if _is_a_containers(mount) and not f"{mount.point}/".startswith(ours):
            with contextlib.suppress(OSError):  # one below another went with it
                libc.call("umount2", os.fsencode(mount.point), MNT_DETACH)


def _is_a_containers(mount: proc.Mount) -> bool:
    """Whether Docker has mounted it for a container: a network namespace, or the root.

    A copy would keep it in use for as long as a migration takes, though Docker has unmounted it: the veth pair of a
    container that is gone would stay, and so would its layers.
    """
    return mount.kind == "nsfs" or (mount.kind == "overlay" and mount.point.endswith(ROOTS))
