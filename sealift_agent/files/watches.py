"""What a process watches (inotify, fanotify), and where CRIU finds it again.

Of a watched file the kernel shows only device, inode and, if the file system makes one, a handle. CRIU opens the handle
at a mount of that device. Otherwise it looks for the inode in a few directories and in those of its setting
`irmap-scan-path`. If it does not find a file, the dump ends ("Can't dump that handle"). On overlayfs, where a
container's own files are, there are no such handles.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .. import libc, proc
from . import beneath

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

HINTS = (
    "etc",
    "var/spool",
    "var/log",
    "usr/share/dbus-1/system-services",
    "var/lib/polkit-1/localauthority",
    "usr/share/polkit-1/actions",
    "lib/udev",
)
"""Directories in which CRIU looks for an inode (criu/irmap.c), and it also checks the root itself."""

GROUPS = ("cgroup", "cgroup2")
"""Kinds of file systems (proc(5), mountinfo)."""

UNSAID = re.compile(r"[\s\"'#]")
"""What a name in CRIU's configuration can't have: CRIU splits it into words and lines."""

SEARCHED_AT_MOST = 50_000
SCANNED_AT_MOST = 500_000
MARK = re.compile(
    r"^(inotify wd:\d+|fanotify) ino:(?P<ino>[0-9a-f]+) sdev:(?P<device>[0-9a-f]+).*?"
    r"fhandle-bytes:(?P<size>[0-9a-f]+) fhandle-type:(?P<type>[0-9a-f]+) f_handle:(?P<handle>[0-9a-f]+)",
    re.MULTILINE,
)


def unresolvable(pid: int) -> list[str]:
    """What the process watches and CRIU does not find, as "inotify on inode N"."""
    hidden = _hidden(pid)
    found = _scan(pid, set(hidden))
    lost = [
        f"{kind} on inode {inode}" for (device, inode), kind in hidden.items() if (device, inode) not in found
    ]
    return lost + [f"{kind} on a control group that was made inside" for kind in _on_inner_groups(pid)]


def _on_inner_groups(pid: int) -> list[str]:
    """Kinds of watches on what is not yet there when CRIU restores (systemd has them): see `inner_groups`."""
    marks = list(_marks(pid))
    devices = {_device(int(mark["device"], 16)) for mark in marks}
    made: set[tuple[int, int]] = set()
    with contextlib.suppress(OSError):
        points = [mount.point for mount in proc.mounts(pid) if mount.kind in GROUPS and devices]
        for point in points:
            with contextlib.suppress(OSError), beneath.tree(f"/proc/{pid}/root{point}") as top:
                device = os.fstat(top).st_dev
                if device in devices:
                    inner = (entries for name, _, entries in beneath.walk(top) if name)
                    made |= {(device, entry.inode()) for entries in inner for entry in entries}
    return [
        mark[1].split()[0]
        for mark in marks
        if (_device(int(mark["device"], 16)), int(mark["ino"], 16)) in made
    ]


def settings(pids: Sequence[int]) -> str:
    """The lines of CRIU's configuration that let it find what these processes watch."""
    paths = {path for pid in pids for path in _scan(pid, set(_hidden(pid))).values()}
    return "".join(f"irmap-scan-path {path}\n" for path in sorted(paths))


def _hidden(pid: int) -> dict[tuple[int, int], str]:
    """What the process watches and CRIU does not find by itself: device and inode to the kind of watch."""
    found = {}
    for mark in _marks(pid):
        device, inode = int(mark["device"], 16), int(mark["ino"], 16)
        if not (_opens(pid, mark, device) or _lies_in_a_hint(pid, device, inode)):
            found[_device(device), inode] = mark[1].split()[0]
    return found


def _scan(pid: int, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Look for files by device and inode in the file systems of those devices. Returns their paths in the process."""
    root = f"/proc/{pid}/root/"
    devices = {device for device, _ in wanted}
    found: dict[tuple[int, int], str] = {}
    places, left = [""] if wanted else [], SCANNED_AT_MOST
    with contextlib.suppress(OSError), beneath.tree(root) as top:
        for place in _mounted(pid, devices):
            with contextlib.suppress(OSError):
                seen = beneath.lstat(top, place.lstrip("/"))
                if _identity(seen) in wanted and not UNSAID.search(place):
                    found[_identity(seen)] = place
                places.append(place)
        while places and left > 0 and len(found) < len(wanted):
            place = places.pop()
            with contextlib.suppress(OSError), beneath.directory(top, place.lstrip("/")) as handle:
                for entry in os.scandir(handle):
                    left -= 1
                    path = f"{place}/{entry.name}"
                    with contextlib.suppress(OSError):
                        seen = entry.stat(follow_symlinks=False)
                        if _identity(seen) in wanted and not UNSAID.search(path):
                            found[_identity(seen)] = path
                        if entry.is_dir(follow_symlinks=False) and seen.st_dev in devices:
                            places.append(path)
    return found


def _mounted(pid: int, devices: Collection[int]) -> list[str]:
    """Where else than at the root these devices (of stat(2)) are mounted. Some have no handles (devpts, mqueue)."""
    with contextlib.suppress(OSError):
        numbers = {f"{os.major(device)}:{os.minor(device)}" for device in devices}
        return [mount.point for mount in proc.mounts(pid) if mount.device in numbers and mount.point != "/"]
    return []


def _device(number: int) -> int:
    """A device in the form of stat(2), from the kernel's own number: 12 bits of major, 20 of minor."""
    return os.makedev(number >> 20, number & 0xFFFFF)


def _marks(pid: int) -> Iterator[re.Match[str]]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if Path(entry.path).readlink().name in {"anon_inode:inotify", "anon_inode:[fanotify]"}:
                    yield from MARK.finditer(proc.read(pid, f"fdinfo/{entry.name}"))


def _opens(pid: int, mark: re.Match[str], device: int) -> bool:
    """Whether the handle leads to a file with a name, at some mount of the device."""
    handle = bytes.fromhex(mark["handle"])
    size = int(mark["size"], 16)
    given = size.to_bytes(4, "little") + int(mark["type"], 16).to_bytes(4, "little") + handle[:size]
    for point in _mount_points(pid, device):
        try:
            with beneath.tree(f"/proc/{pid}/root/") as top:
                mount = beneath.opened(top, point.strip("/"), os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            opened = libc.call("open_by_handle_at", mount, ctypes.create_string_buffer(given), os.O_PATH)
        except OSError:
            continue
        finally:
            os.close(mount)
        named = not str(Path(f"/proc/self/fd/{opened}").readlink()).endswith(" (deleted)")
        os.close(opened)
        return named
    return False


def _mount_points(pid: int, device: int) -> list[str]:
    """Where a device is mounted. Here the kernel writes 12 bits of major and 20 bits of minor number."""
    wanted = f"{device >> 20}:{device & 0xFFFFF}"
    with contextlib.suppress(OSError):
        return [mount.point for mount in proc.mounts(pid) if mount.device == wanted]
    return []


def _lies_in_a_hint(pid: int, device: int, inode: int) -> bool:
    wanted = (_device(device), inode)
    places, left = [*HINTS], SEARCHED_AT_MOST
    with contextlib.suppress(OSError), beneath.tree(f"/proc/{pid}/root/") as top:
        if _identity(os.fstat(top)) == wanted:
            return True
        while places and left:
            left -= 1
            place = places.pop()
            with contextlib.suppress(OSError):
                seen = beneath.lstat(top, place)
                if _identity(seen) == wanted:
                    return True
                if stat.S_ISDIR(seen.st_mode):
                    with beneath.directory(top, place) as handle:
                        places += [f"{place}/{entry.name}" for entry in os.scandir(handle)]
    return False


def _identity(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino
