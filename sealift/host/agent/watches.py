"""What a process watches (inotify, fanotify), and whether CRIU will find it again.

The kernel tells of a watched file only its device, inode and, where the file system makes one, a handle. CRIU opens the
handle at a mount of that device, or looks for the inode in a few directories; a file that it finds in neither way stops
the dump ("Can't dump that handle"). On overlayfs, where a container's own files are, there are no such handles.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HINTS = (
    "etc",
    "var/spool",
    "var/log",
    "usr/share/dbus-1/system-services",
    "var/lib/polkit-1/localauthority",
    "usr/share/polkit-1/actions",
    "lib/udev",
)
"""Where CRIU looks for an inode (criu/irmap.c), besides the root itself."""

SEARCHED_AT_MOST = 50_000
MARK = re.compile(
    r"^(inotify wd:\d+|fanotify) ino:(?P<ino>[0-9a-f]+) sdev:(?P<device>[0-9a-f]+).*?"
    r"fhandle-bytes:(?P<size>[0-9a-f]+) fhandle-type:(?P<type>[0-9a-f]+) f_handle:(?P<handle>[0-9a-f]+)",
    re.MULTILINE,
)

_libc = ctypes.CDLL(None, use_errno=True)


def unresolvable(pid: int) -> list[str]:
    """What the process watches that CRIU will not find, as "inotify on inode N"."""
    found = []
    for mark in _marks(pid):
        device, inode = int(mark["device"], 16), int(mark["ino"], 16)
        if not (_opens(pid, mark, device) or _lies_in_a_hint(pid, device, inode)):
            found.append(f"{mark[1].split()[0]} on inode {inode}")
    return found


def _marks(pid: int) -> Iterator[re.Match[str]]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if Path(entry.path).readlink().name in {"anon_inode:inotify", "anon_inode:[fanotify]"}:
                    yield from MARK.finditer(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text())


def _opens(pid: int, mark: re.Match[str], device: int) -> bool:
    """Whether its handle leads to a file with a name, at some mount of the device."""
    handle = bytes.fromhex(mark["handle"])
    size = int(mark["size"], 16)
    given = size.to_bytes(4, "little") + int(mark["type"], 16).to_bytes(4, "little") + handle[:size]
    for point in _mount_points(pid, device):
        try:
            mount = os.open(f"/proc/{pid}/root{point}", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            opened = _libc.open_by_handle_at(mount, ctypes.create_string_buffer(given), os.O_PATH)
        finally:
            os.close(mount)
        if opened >= 0:
            named = not str(Path(f"/proc/self/fd/{opened}").readlink()).endswith(" (deleted)")
            os.close(opened)
            return named
    return False


def _mount_points(pid: int, device: int) -> list[str]:
    """Where a device is mounted; the kernel writes it here with 12 bits of major and 20 of minor number."""
    wanted = f"{device >> 20}:{device & 0xFFFFF}"
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [fields[4] for fields in map(str.split, lines) if fields[2] == wanted]


def _lies_in_a_hint(pid: int, device: int, inode: int) -> bool:
    root = Path(f"/proc/{pid}/root")
    wanted = (os.makedev(device >> 20, device & 0xFFFFF), inode)
    places = [root / hint for hint in HINTS]
    left = SEARCHED_AT_MOST
    if _identity(root) == wanted:
        return True
    while places and left:
        left -= 1
        place = places.pop()
        if _identity(place) == wanted:
            return True
        with contextlib.suppress(OSError):
            if place.is_dir() and not place.is_symlink():
                places += place.iterdir()
    return False


def _identity(place: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        seen = place.stat() if place.name == "root" else place.lstat()
        return seen.st_dev, seen.st_ino
    return None
