"""What the processes of a container hold that matters for a dump, from /proc: who holds what, by kinds.

A kind is a word for what CRIU tells apart: `anon_inode:[eventpoll]`, `socket:AF_INET/SOCK_RAW/1`, `device:10:200`,
`/secretmem`. Nothing is judged here: what can move is known to the controller.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import select
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cgroup, held, pidfd, proc, unread
from .constants import DROPPABLE, PAGE_BYTES, RESERVED, SHARED_CODE
from .files import beneath, pipe_ends, unlinked, watches
from .files.opened import is_lost, other_names
from .left_behind import Left
from .messages import printable
from .protocol import Uses
from .terminals import Terminals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

SO_PROTOCOL, SO_DOMAIN = 38, 39  # socket(7); Python has no names for them
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "time_for_children", "user", "uts")
ALL_HOSTS = socket.inet_aton("224.0.0.1")
UDP_CORK, TCP_ULP = 1, 31
O_PATH = 0o10000000
MAP_DROPPABLE = 0x08
DROPPED = re.compile(r"^VmFlags:.* dp\b", re.MULTILINE)
"""How /proc/PID/smaps marks such memory (Linux, fs/proc/task_mmu.c)."""
SPECULATES = ("Speculation_Store_Bypass", "SpeculationIndirectBranch")
SPECULATION = re.compile(r"(thread|conditional) (force )?(mitigated|disabled)")
"""What a program may ask for by prctl(PR_SET_SPECULATION_CTRL), as /proc/PID/status says it (fs/proc/array.c)."""
UNREAD_S = 0.3
"""How long something may wait to be read before it counts."""

SHARED_ANONYMOUS = "/dev/zero (deleted)"
"""Shared anonymous memory by the kernel's name. It is opened in /proc/PID/map_files; to CRIU it is a memfd."""

DELETED = "//deleted"
"""The end of a mount's root in mountinfo that has no name any more (fs/proc_namespace.c)."""

MEMORY_MAJOR = 1
"""/dev/null, /dev/zero and their like are on every host."""


def examine(pids: list[int], init: int, dockers: Collection[str] = ()) -> Uses:
    """What these processes hold. `init` is the first process of the container, whose namespaces are the container's.

    `dockers` are the pipes that Docker made for it, as /proc/PID/fd names them. It gets new ones at the destination.
    """
    own, groups = _namespaces(init), cgroup.paths(init)
    inside = {pid: is_in for pid in pids if (is_in := _descends(pid, init)) is not None}
    pids = [pid for pid, is_in in inside.items() if is_in]
    terminals = Terminals(init, pids)
    outward = pipe_ends.leading_out(pids, dockers)
    mounts = {number: kind for pid in pids for number, kind in _mounts(pid).items()}
    alive = {pid: (_name(pid), status) for pid in pids if (status := proc.status(pid))}  # others have ended

    opened = list(held.descriptors(alive))

    waits: dict[int, set[str]] = {}
    for one, word in unread.lasting(alive, UNREAD_S).items():
        waits.setdefault(one.pid, set()).add(word)

    watched = watches.find(init, alive)
    droppable = can_be_dropped()

    def descriptors(pid: int) -> Iterator[str]:
        yield from _descriptors(pid, terminals, mounts, outward)
        yield from waits.get(pid, ())
        if terminals.follows(pid):
            yield "terminal of a session"

    def held_by(kinds: Callable[[int], Iterable[str]]) -> dict[str, list[str]]:
        found: dict[str, set[str]] = {}
        for pid, (name, _) in alive.items():
            for kind in kinds(pid):
                found.setdefault(kind, set()).add(name)
        return {printable(kind): sorted(names) for kind, names in sorted(found.items())}

    return Uses(
        processes=len(alive),
        threads=sum(int(status.get("Threads", "1")) for _, status in alive.values()),
        opened=len(opened),
        sockets=len(held.sockets(opened)),
        areas=sum(len(proc.lines(pid, "maps")) for pid in alive),
        memory_bytes=sum(map(_resident_bytes, alive)),
        tmpfs_bytes=_tmpfs_bytes(init),
        locked_bytes=sum(_kilobytes(status, "VmLck") for _, status in alive.values()),
        huge_bytes=sum(_kilobytes(status, "HugetlbPages") for _, status in alive.values()),
        timers=sum(map(_timers, alive)),
        outside=sorted(_name(pid) for pid, is_in in inside.items() if not is_in),
        unwatchable=sorted(
            {f"{_name(pid)} ({what})" for pid in pids for what in watches.missing(pid, watched)}
        ),
        mounts=_file_systems(init),
        multicast=_multicast_groups(init),
        descriptors=held_by(descriptors),
        mappings=held_by(lambda pid: _mappings(pid, droppable)),
        namespaces=held_by(
            lambda pid: (kind for kind, its in _namespaces(pid).items() if own.get(kind) != its)
        ),
        groups=held_by(lambda pid: _groups(groups, cgroup.paths(pid))),
        states=held_by(lambda pid: _states(alive[pid][1])),
        profiles=held_by(_profile),
        unlinked=unlinked.find({pid: name for pid, (name, _) in alive.items()}),
    )


def left_behind(pids: Iterable[int], init: int, dockers: Collection[str]) -> Left:
    """What the container's own processes have open of `docker exec` sessions. `init` and `dockers` as for `examine`."""
    inside = [pid for pid in pids if _descends(pid, init)]
    return Left(pipe_ends.leading_out(inside, dockers), Terminals(init, inside).left(inside))


def _name(pid: int) -> str:
    name = proc.read(pid, "comm").removesuffix("\n")
    shown = printable(name).replace("\n", "\\n").replace("\t", "\\t")
    return f"{shown}, pid {pid}" if name else f"pid {pid}"


def _kilobytes(status: dict[str, str], name: str) -> int:
    return int(status.get(name, "0").split()[0]) * 1024


def _resident_bytes(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB$", proc.read(pid, "smaps_rollup"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _tmpfs_bytes(init: int) -> int:
    """What the container's own tmpfs hold. Each counts once, wherever it is mounted."""
    found: dict[str, int] = {}
    for mount in proc.mounts(init):
        if mount.kind == "tmpfs" and mount.device not in found:
            with contextlib.suppress(OSError):
                told = os.statvfs(f"/proc/{init}/root{mount.point}")
                found[mount.device] = (told.f_blocks - told.f_bfree) * told.f_frsize
    return sum(found.values())


def _timers(pid: int) -> int:
    return proc.read(pid, "timers").count("ID:")


def _descends(pid: int, init: int) -> bool | None:
    """Whether the first process is an ancestor of this one: what CRIU dumps. `docker exec` starts others.

    None once it has ended. A child whose parent ends meanwhile has another one: then it is asked again.
    """
    above = pid
    while above not in {0, init}:
        parent = proc.status(above).get("PPid")
        if parent is None and above == pid:
            return None
        above = int(parent) if parent is not None else pid
    return above == init


def _states(status: dict[str, str]) -> Iterator[str]:
    if status.get("TracerPid", "0") != "0":
        yield "traced"
    if status.get("State", "").startswith("T"):
        yield "stopped"
    if status.get("Seccomp", "0") != "0":
        yield "seccomp"
    if any(SPECULATION.fullmatch(status.get(name, "")) for name in SPECULATES):
        yield "speculation"


def _groups(container: dict[str, str], process: dict[str, str]) -> set[str]:
    """Groups that a process is in outside of the container's own. `container` has those of its first process.

    One that is ending is in no group of version 1 any more: the kernel shows it in the root of every hierarchy.
    """
    outside: set[str] = set()
    if {path for hierarchy, path in process.items() if hierarchy} == {"/"}:
        return outside
    for hierarchy, path in process.items():
        own = cgroup.own(container.get(hierarchy, ""))
        if own is not None and not f"{path}/".startswith((f"{own}/", f"{own}{cgroup.ASIDE}/")):
            outside.add(path)
    return outside


def _profile(pid: int) -> list[str]:
    """The AppArmor profile, if there is one. Without AppArmor the file can't be read.

    Not attr/current: where there are two security modules, it is the other's.
    """
    with contextlib.suppress(OSError):
        found = proc.read(pid, "attr/apparmor/current").strip("\0\n ")
        return [found] if found and found != "unconfined" else []
    return []


def _namespaces(pid: int) -> dict[str, str]:
    found = {}
    for kind in NAMESPACES:
        with contextlib.suppress(OSError):
            found[kind] = str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    return found


def can_be_dropped() -> bool:
    """Whether this kernel has memory that it may drop when it needs it: Linux 6.11 (mmap(2), MAP_DROPPABLE)."""
    try:
        mmap.mmap(-1, PAGE_BYTES, flags=MAP_DROPPABLE).close()
    except OSError:
        return False
    return True


def _mappings(pid: int, droppable: bool) -> Iterator[str]:
    """Mapped things that are neither plain memory nor plain files, and what only our library brings through CRIU.

    `droppable`: whether this kernel has such memory, which it shows in a table that takes longer to read.
    """
    if droppable and DROPPED.search(proc.read(pid, "smaps")):
        yield DROPPABLE
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
    first = True
    with contextlib.suppress(OSError):
        for line in proc.lines(pid, "maps"):
            fields = line.split(maxsplit=5)
            name = fields[5] if len(fields) == 6 else ""
            where, rights = fields[:2]
            start, end = (int(address, 16) for address in where.split("-"))
            if end - start > memory_bytes and rights[1] != "w":
                yield RESERVED
            if rights[2] == "x" and first:
                first = False
                if rights[3] == "s":
                    yield SHARED_CODE
            if name.startswith(("anon_inode:", "/secretmem")):
                yield name.removesuffix(" (deleted)")
            elif re.match(r"/dev/(?!shm/|zero\b)", name):
                yield name


def _descriptors(pid: int, terminals: Terminals, mounts: dict[int, str], outward: set[str]) -> Iterator[str]:
    for path, target in _open_files(pid):
        with contextlib.suppress(OSError, LookupError):
            opened, info = path.stat(), proc.fdinfo(pid, path.name)
            if info["flags"] & O_PATH:
                yield from ["path of a socket"] if stat.S_ISSOCK(opened.st_mode) else []
            elif stat.S_ISSOCK(opened.st_mode):
                yield from _socket(pid, int(path.name))
            elif target.startswith(("anon_inode:", "/secretmem")):
                yield target.removesuffix(" (deleted)")
            elif stat.S_ISCHR(opened.st_mode) or stat.S_ISBLK(opened.st_mode):
                terminal = terminals.kind(pid, int(path.name), target, opened)
                yield from (
                    [terminal] if terminal else _device(target, opened, visible=info["mnt_id"] in mounts)
                )
            elif target.startswith("/"):
                yield from _file(pid, path, target, opened, mounts.get(info["mnt_id"]))
            elif target.startswith("pipe:"):
                if info["flags"] & os.O_DIRECT:
                    yield "packet pipe"
                if target in outward:
                    yield "pipe leading out"


def _file(pid: int, path: Path, target: str, opened: os.stat_result, kind: str | None) -> Iterator[str]:
    """CRIU finds a file by the file system that it was opened in, of this kind, and restores it under its name.

    What has lost its name and still counts one gets another. On overlayfs, where a file of an image is of this sort
    once it was removed, CRIU takes its content along if it can't have that.
    """
    if target.startswith("/memfd:") or target == SHARED_ANONYMOUS:
        return
    if kind is None:
        yield f"elsewhere:{target}"
    elif kind != "overlay" and is_lost(target, opened) and next(other_names(pid, path), None) is None:
        yield f"nameless:{target}"


def _device(target: str, opened: os.stat_result, *, visible: bool) -> Iterator[str]:
    major = os.major(opened.st_rdev) if stat.S_ISCHR(opened.st_mode) else 0
    if major != MEMORY_MAJOR:
        yield f"device:{target}"
    elif not visible:
        yield f"elsewhere:{target}"


def _open_files(pid: int) -> Iterator[tuple[Path, str]]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield Path(entry.path), str(Path(entry.path).readlink())


def _file_systems(pid: int) -> dict[str, str]:
    """What is mounted where: mount point to type of file system, but for the root.

    Further mounts of what is mounted already (`mount --bind`) are left out: CRIU mounts them from the first one. Of a
    directory or file that was deleted there it makes an empty one for that, so a file's content would be lost.
    """
    found = {}
    seen: list[proc.Mount] = []
    with contextlib.suppress(OSError):
        for mount in proc.mounts(pid):
            if mount.root.endswith(DELETED) and _has_content(pid, mount.point):
                found[printable(mount.point)] = "a file with content that was deleted where it was"
            elif not any(one.device == mount.device and _is_beneath(mount.root, one.root) for one in seen):
                found[printable(mount.point)] = mount.kind
            seen.append(mount)
    found.pop("/", None)
    return found


def _has_content(pid: int, point: str) -> bool:
    with contextlib.suppress(OSError), beneath.tree(f"/proc/{pid}/root/") as top:
        seen = beneath.lstat(top, point.lstrip("/"))
        return stat.S_ISREG(seen.st_mode) and seen.st_size > 0
    return False


def _is_beneath(path: str, above: str) -> bool:
    return f"{path}/".startswith(f"{above.rstrip('/')}/")


def _multicast_groups(pid: int) -> list[str]:
    """The IPv4 groups that a program of the container has joined (/proc/net/igmp, bytes in this host's order)."""
    lines = proc.lines(pid, "net/igmp")
    joined = {int(line.split()[0], 16).to_bytes(4, sys.byteorder) for line in lines[1:] if line[0].isspace()}
    return sorted(socket.inet_ntoa(group) for group in joined - {ALL_HOSTS})


def _mounts(pid: int) -> dict[int, str]:
    """What a process has mounted (proc(5), mountinfo): numbers, and kinds of file systems."""
    with contextlib.suppress(OSError):
        return {mount.number: mount.kind for mount in proc.mounts(pid)}
    return {}


def _socket(pid: int, number: int) -> Iterator[str]:
    """Kind and conditions of another process's socket: asked of the socket itself, by a descriptor of our own."""
    try:
        found = pidfd.borrow_socket(pid, number)
    except pidfd.UnnamedFamily:
        yield "socket:unknown"
        return
    except OSError:
        return
    with found:
        domain, kind, protocol = (
            found.getsockopt(socket.SOL_SOCKET, option) for option in (SO_DOMAIN, socket.SO_TYPE, SO_PROTOCOL)
        )
        family = _word(socket.AddressFamily, domain)
        yield f"socket:{family}/{_word(socket.SocketKind, kind)}/{protocol}"
        with contextlib.suppress(OSError):
            yield from _conditions(found, domain, kind, protocol)


def _conditions(found: socket.socket, domain: int, kind: int, protocol: int) -> Iterator[str]:
    """What of a socket's state a dump depends on."""
    if domain == socket.AF_PACKET and found.getsockname()[0] not in {"", "lo"}:
        yield "packet socket bound"
    if domain == socket.AF_PACKET and _readable(found):
        yield "packets unread"
    if domain == socket.AF_NETLINK and _readable(found):
        yield "netlink answer unread"
    if domain in {socket.AF_INET, socket.AF_INET6}:
        if (
            kind == socket.SOCK_DGRAM
            and protocol == socket.IPPROTO_UDP
            and found.getsockopt(protocol, UDP_CORK)
        ):
            yield "datagram corked"
        if kind == socket.SOCK_RAW and _readable(found):
            yield "packets unread"
        if (kind, protocol) == (socket.SOCK_STREAM, socket.IPPROTO_TCP) and found.getsockopt(
            protocol, TCP_ULP, 16
        ).strip(b"\0"):
            yield "kernel TLS"
    if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and _readable(found):
        yield "connection not accepted"


def _readable(found: socket.socket) -> bool:
    return bool(select.select([found], [], [], 0)[0])


def _word(names: Any, number: int) -> str:
    try:
        return str(names(number).name)
    except ValueError:
        return str(number)
