"""Judge what the container's processes hold, by what CRIU 4.2 was seen to dump and to restore.

This is a pure function of the facts of `sealift_agent.processes`. What was never seen to be restored is no `yes`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sealift.migration.checks.finding import Findings, Resource
from sealift_agent.constants import DROPPABLE, RESERVED, SHARED_CODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sealift.migration.checks.finding import Finding
    from sealift_agent.protocol import HostFacts, Uses

    Held = Mapping[str, list[str]]

ANONYMOUS = {
    "[eventfd]",
    "[eventpoll]",
    "[fanotify]",
    "[pidfd]",
    "[signalfd]",
    "[timerfd]",
    "inotify",
}
"""Descriptors without a file that CRIU knows (criu/files.c)."""

SOCKETS = (
    r"AF_INET6?/SOCK_STREAM/6",
    r"AF_INET6?/SOCK_DGRAM/(17|136|1|58)",
    r"AF_INET6?/SOCK_RAW/\d+",
    r"AF_UNIX/SOCK_(STREAM|DGRAM|SEQPACKET)/\d+",
    r"AF_NETLINK/\w+/\d+",
    r"AF_PACKET/(SOCK_(RAW|DGRAM|PACKET)|10)/\d+",
)
GPU = re.compile(r"/dev/(nvidia|kfd|dri/)")
UNLINKED_BYTES = 1 << 30
"""`ghost-limit` of etc/criu/runc.conf. CRIU compares it with the bytes of a file on disk: holes do not count."""

LEADING_OUT, FOLLOWS = "pipe leading out", "terminal of a session"
CLOSE = "CRIU can't dump it: let the program close it, or change the program so that it does not need it"


def judge(host: str, uses: Uses, here: HostFacts, there: HostFacts | None) -> list[Finding]:
    """The findings of a container's processes, given the facts of the source and, if known, of the destination."""
    findings = Findings(host)
    _processes(findings, uses)
    _stopped(findings, uses.states.get("stopped", []), here)
    _groups(findings, uses.groups)
    _files(findings, uses.descriptors, uses.unwatchable, uses.unlinked)
    _sockets(findings, uses.descriptors, uses.multicast)
    _io_uring(findings, uses)
    _terminals(findings, uses.descriptors)
    _devices(findings, uses)
    _address_space(findings, uses, here, there)
    _droppable(findings, uses, there)
    _memory(findings, uses, there)
    _timers(findings, uses)
    findings.yes(Resource.PROCESSES, f"{uses.processes} processes")
    return findings.found


def warnings(uses: Uses) -> list[str]:
    """What will be otherwise afterwards."""
    said = []
    if uses.outside:
        said.append(
            f"processes of `docker exec` or a health check end at the source: {', '.join(uses.outside)}"
        )
    if left := [*uses.descriptors.get(LEADING_OUT, ()), *_holders_of(uses.descriptors, "left:")]:
        said.append(f"the `docker exec` session that they print to ends, and they move: {_holders(left)}")
    if follow := uses.descriptors.get(FOLLOWS):
        said.append(f"they can't open their terminal as /dev/tty any more: {_holders(follow)}")
    return said


def _of(held: Held, prefix: str) -> dict[str, list[str]]:
    return {kind.removeprefix(prefix): who for kind, who in held.items() if kind.startswith(prefix)}


def _said(kinds: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{name} ({kind})" for kind, who in kinds.items() for name in who)


def _holders_of(held: Held, prefix: str) -> list[str]:
    return [name for who in _of(held, prefix).values() for name in who]


def _holders(*lists: Iterable[str]) -> str:
    return ", ".join(sorted({name for names in lists for name in names}))


def _processes(findings: Findings, uses: Uses) -> None:
    states = uses.states
    if uses.outside:
        findings.unknown(
            Resource.PROCESSES,
            f"started from outside, by `docker exec` or a health check: {', '.join(uses.outside)}",
            "They do not move with the container: they end here",
        )
    if leading_out := uses.descriptors.get(LEADING_OUT):
        findings.unknown(
            Resource.PROCESSES,
            f"they have pipes whose other end is outside, as that of a `docker exec` session: {_holders(leading_out)}",
            "They move, and the session ends: what they print to it is seen nowhere, and what they read from it ends",
        )
    if traced := states.get("traced"):
        findings.no(
            Resource.PROCESSES,
            f"traced by a debugger: {_holders(traced)}",
            "CRIU has to trace them itself: detach the debugger",
        )
    if nested := {kind: who for kind, who in uses.namespaces.items() if kind != "mnt"}:
        findings.no(
            Resource.NAMESPACES,
            f"in namespaces of their own: {_said(nested)}",
            "Only those of the container itself are restored: change the program so that it needs no others",
        )
    findings.yes(Resource.NAMESPACES, "the container's own, and no others inside")


def _groups(findings: Findings, groups: Held) -> None:
    if groups:
        findings.no(
            Resource.PROCESSES,
            f"in control groups outside of the container's own: {_said(groups)}",
            "The container would not have them at the destination: move them back into its own",
        )


def _stopped(findings: Findings, stopped: list[str], here: HostFacts) -> None:
    """In rounds CRIU freezes by itself. On control groups of version 1 nobody takes stopped processes out for it."""
    if stopped and here.cgroup == 1 and here.dirty_tracking:
        findings.no(
            Resource.PROCESSES,
            f"stopped by a signal: {_holders(stopped)}",
            "On control groups of version 1 a round of pre-dump would wait for it: `kill -CONT` it",
        )


def _files(
    findings: Findings, descriptors: Held, unwatchable: list[str], unlinked: Mapping[str, int]
) -> None:
    if unwatchable:
        findings.no(
            Resource.FILES,
            f"watched where it can't be watched again: {', '.join(unwatchable)}",
            "Let the program end that watch, or start it again (systemd: run the service itself)",
        )
    unknown = {kind: who for kind, who in _of(descriptors, "anon_inode:").items() if kind not in ANONYMOUS}
    unknown.pop("[io_uring]", None)
    if unknown:
        findings.no(Resource.FILES, f"open: {_said(unknown)}", CLOSE)
    if elsewhere := _of(descriptors, "elsewhere:"):
        findings.no(Resource.FILES, f"open, in no file system of the container: {_said(elsewhere)}", CLOSE)
    if nameless := _of(descriptors, "nameless:"):
        findings.no(
            Resource.FILES,
            f"open by a name that was removed, with no other name in the container: {_said(nameless)}",
            "It can't be given a name again: let the program close it, or start it again",
        )
    if large := {file: size for file, size in unlinked.items() if size > UNLINKED_BYTES}:
        findings.no(
            Resource.FILES,
            "open and without a name, which goes over in the freeze: "
            + ", ".join(f"{file}, {size >> 20} MiB" for file, size in large.items()),
            f"CRIU takes {UNLINKED_BYTES >> 20} MiB of such a file at most: have the program close it or cut it short, "
            "or give it a name and start it again",
        )
    if packets := descriptors.get("packet pipe"):
        findings.no(Resource.FILES, f"a pipe in packet mode (O_DIRECT): {_holders(packets)}", CLOSE)
    if unread := descriptors.get("events unread"):
        findings.no(
            Resource.FILES,
            f"events of inotify or fanotify that nobody reads: {_holders(unread)}",
            "CRIU does not take them along: have the program read them, or close what it watches by",
        )
    findings.yes(Resource.FILES, "files, pipes and the like that CRIU knows")


def _sockets(findings: Findings, descriptors: Held, multicast: list[str]) -> None:
    if multicast:
        findings.no(
            Resource.SOCKETS,
            f"multicast groups have been joined: {', '.join(multicast)}",
            "CRIU does not restore a socket's groups, and the program would hear nothing more: leave them first",
        )
    kinds = _of(descriptors, "socket:")
    unknown = {
        kind: who for kind, who in kinds.items() if not any(re.fullmatch(known, kind) for known in SOCKETS)
    }
    multipath = {kind: unknown.pop(kind) for kind in list(unknown) if kind.endswith("/262")}
    if multipath:
        findings.no(
            Resource.SOCKETS,
            f"multipath TCP: {_said(multipath)}",
            "CRIU can't dump it: let the program use plain TCP (Go: GODEBUG=multipathtcp=0)",
        )
    if unknown:
        findings.no(Resource.SOCKETS, f"open: {_said(unknown)}", CLOSE)
    for condition, what in (
        ("path of a socket", "a socket opened as a path (O_PATH)"),
        ("packet socket bound", "a packet socket bound to an interface, which has another number there"),
        ("datagram corked", "a corked datagram socket"),
        ("kernel TLS", "TLS in the kernel"),
    ):
        if who := descriptors.get(condition):
            findings.no(Resource.SOCKETS, f"{what}: {_holders(who)}", CLOSE)
    for condition, what in (
        ("connection not accepted", "connections wait to be accepted right now"),
        ("netlink answer unread", "an answer of the kernel (netlink) waits to be read right now"),
    ):
        if who := descriptors.get(condition):
            findings.unknown(
                Resource.SOCKETS,
                f"{what}: {_holders(who)}",
                "If it is so at the freeze CRIU refuses and the migration is rolled back: try again then",
            )
    if who := descriptors.get("packets unread"):
        findings.unknown(
            Resource.SOCKETS,
            f"packets wait in a raw or packet socket right now: {_holders(who)}",
            "What is not read at the freeze is lost, as CRIU does not take it along",
        )
    if who := descriptors.get("end of a connection unread"):
        findings.no(
            Resource.SOCKETS,
            f"a connection was reset or has failed, and the program has not read that: {_holders(who)}",
            "CRIU restores it as one that has ended in order: have the program read or close it",
        )
    findings.yes(Resource.SOCKETS, f"{', '.join(sorted({kind.split('/')[0] for kind in kinds})) or 'none'}")


def _io_uring(findings: Findings, uses: Uses) -> None:
    rings = [held.get("anon_inode:[io_uring]", []) for held in (uses.descriptors, uses.mappings)]
    if any(rings):
        findings.no(
            Resource.IO_URING,
            f"io_uring is in use by {_holders(*rings)}",
            "CRIU can't dump it: switch it off in the program, or with `sysctl kernel.io_uring_disabled=2`",
        )
    findings.yes(Resource.IO_URING, "not in use")


def _terminals(findings: Findings, descriptors: Held) -> None:
    if outside := _of(descriptors, "terminal:"):
        findings.no(
            Resource.TERMINALS,
            f"a terminal is open whose other end is outside: {_said(outside)}",
            "CRIU can't restore it: let the program close it",
        )
    if left := _of(descriptors, "left:"):
        findings.unknown(
            Resource.TERMINALS,
            f"the terminal of a `docker exec` session is open: {_said(left)}",
            "They move, and the session ends: their terminal is hung up there",
        )
    if sessions := _of(descriptors, "session:"):
        findings.no(
            Resource.TERMINALS,
            f"the terminal of a session that was begun inside is open by this name: {_said(sessions)}",
            "CRIU restores it only for the session's first process: have the program close it",
        )
    if follow := descriptors.get(FOLLOWS):
        findings.unknown(
            Resource.TERMINALS,
            f"in a session that was begun inside on a terminal, and not its first process: {_holders(follow)}",
            "They keep what they have open, but can't open the terminal as /dev/tty any more",
        )
    known = {
        "console:": "the container's own",
        "pty:": "some with both ends inside",
        "system:": "the host's console",
    }
    kinds = [what for prefix, what in known.items() if _of(descriptors, prefix)]
    findings.yes(Resource.TERMINALS, ", ".join(kinds) or "none")


def _devices(findings: Findings, uses: Uses) -> None:
    devices = _of(uses.descriptors, "device:")
    mapped = {kind: who for kind, who in uses.mappings.items() if kind.startswith("/dev/")}
    every = {**devices, **mapped}
    gpus = {kind: every.pop(kind) for kind in list(every) if GPU.match(kind)}
    if gpus:
        findings.no(Resource.GPUS, f"a GPU is open: {_said(gpus)}", "A device can't move: close it")
    findings.yes(Resource.GPUS, "none")
    if every:
        findings.no(Resource.DEVICES, f"devices are open: {_said(every)}", "A device can't move: close it")
    findings.yes(Resource.DEVICES, "only such as every host has")


def _memory(findings: Findings, uses: Uses, there: HostFacts | None) -> None:
    if secret := uses.mappings.get("/secretmem") or uses.descriptors.get("/secretmem"):
        findings.no(
            Resource.MEMORY,
            f"memory that only its process may read (memfd_secret): {_holders(secret)}",
            CLOSE,
        )
    sockets = {kind: who for kind, who in uses.mappings.items() if kind.startswith("anon_inode:[perf")}
    if sockets:
        findings.no(Resource.MEMORY, f"mapped: {_said(sockets)}", CLOSE)
    findings.yes(Resource.MEMORY, f"{uses.memory_bytes / 1e6:.1f} MB")
    findings.yes(Resource.LOCKED, f"{uses.locked_bytes / 1e6:.1f} MB" if uses.locked_bytes else "none")
    huge = uses.huge_bytes
    if there is not None and huge > there.huge_free_bytes:
        findings.no(
            Resource.HUGE_PAGES,
            f"{huge >> 20} MiB of huge pages are in use, and the destination has {there.huge_free_bytes >> 20} MiB",
            "Reserve them there (`sysctl vm.nr_hugepages`)",
        )
    if there is None and huge:
        findings.unknown(
            Resource.HUGE_PAGES,
            f"{huge >> 20} MiB of huge pages are in use",
            "The destination must have as many free",
        )
    findings.yes(Resource.HUGE_PAGES, f"{huge >> 20} MiB" if huge else "none")


def _address_space(findings: Findings, uses: Uses, here: HostFacts, there: HostFacts | None) -> None:
    """What CRIU brings through only with the library that is loaded into it (`sealift_agent.interposed`)."""
    lacking = [
        where
        for where, facts in (("source", here), ("destination", there))
        if facts and not facts.interposable
    ]
    without = f"the {' and the '.join(lacking)} can't make the library that CRIU needs for it"
    reserved, shared = uses.mappings.get(RESERVED), uses.mappings.get(SHARED_CODE)
    if reserved and lacking:
        findings.no(
            Resource.MEMORY,
            f"more addresses are reserved than the host has memory, and {without}: {_holders(reserved)}",
            "Install tcc there, or have the program reserve less (MariaDB: `--innodb-buffer-pool-size-max`)",
        )
    watching = sorted(
        {*uses.descriptors.get("anon_inode:inotify", []), *uses.descriptors.get("anon_inode:[fanotify]", [])}
    )
    if watching and not here.interposable:
        findings.no(
            Resource.FILES,
            f"files are watched (inotify, fanotify), and {without}: {_holders(watching)}",
            "Install tcc there: of a container's own files CRIU finds none again by itself",
        )
    if shared and not here.interposable:
        findings.no(
            Resource.MEMORY,
            f"the first code of a process is shared memory, and {without}: {_holders(shared)}",
            "Install tcc there, or have the program make no code at run time (PHP: `opcache.jit_buffer_size=0`)",
        )


def _droppable(findings: Findings, uses: Uses, there: HostFacts | None) -> None:
    """The C library keeps random numbers in such memory, from glibc 2.41 on. Seen: CRIU's mmap(2) fails with EINVAL."""
    if not (who := uses.mappings.get(DROPPABLE)):
        return
    said = f"memory is in use that the kernel may drop (MAP_DROPPABLE, as glibc uses it): {_holders(who)}"
    if there is None:
        findings.unknown(Resource.MEMORY, said, "The destination must have Linux 6.11 or later")
    elif not there.droppable:
        findings.no(
            Resource.MEMORY,
            f"{said}; and the destination's Linux {there.kernel} has no such memory",
            "Take a destination with Linux 6.11 or later",
        )


def _timers(findings: Findings, uses: Uses) -> None:
    armed = "[timerfd]" in _of(uses.descriptors, "anon_inode:")
    parts = [f"{uses.timers} POSIX timers"] if uses.timers else []
    findings.yes(Resource.TIMERS, ", ".join([*parts, *(["timerfd"] if armed else [])]) or "none")
