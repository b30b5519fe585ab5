"""What the processes of a container hold, judged: recorded facts of containers that CRIU was tried on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealift.errors import Refused
from sealift.migration.checks import processes
from sealift.migration.checks.finding import Answer, Finding, Findings, Resource
from sealift.migration.preflight import _without_contradictions, refuse
from sealift_agent.constants import RESERVED, SHARED_CODE
from sealift_agent.protocol import HostFacts, Uses

WHO = ["python3, pid 7"]
HERE = HostFacts(
    kernel="6.12.0",
    machine="x86_64",
    cpu_flags=[],
    memory_available_bytes=1 << 30,
    disk_free_bytes=1 << 30,
    cgroup=1,
    profiles=None,
    selinux="",
    huge_free_bytes=0,
    criu="4.2",
    criu_problem=None,
    dirty_tracking=False,
    lazy=False,
    rsync=True,
    guarded=True,
    wrapper=True,
    interposable=True,
    droppable=False,
)
THERE = replace(HERE, huge_free_bytes=4 << 20)
QUIET = Uses(
    processes=1,
    threads=1,
    opened=3,
    sockets=0,
    areas=20,
    memory_bytes=20_000_000,
    tmpfs_bytes=0,
    locked_bytes=0,
    huge_bytes=0,
    timers=0,
    outside=[],
    unwatchable=[],
    mounts={},
    multicast=[],
    descriptors={},
    mappings={},
    namespaces={},
    groups={},
    states={"seccomp": WHO},
    profiles={},
    unlinked={},
)


def uses(**facts: Any) -> Uses:
    """The facts of a quiet container, with changes."""
    return replace(QUIET, **facts)


def judged(**facts: Any) -> list[Finding]:
    return processes.judge("source", uses(**facts), HERE, THERE)


def answer(resource: Resource, **facts: Any) -> Answer:
    """The worst answer on one resource."""
    order = [Answer.YES, Answer.UNKNOWN, Answer.NO]
    return max((f.answer for f in judged(**facts) if f.resource is resource), key=order.index)


def test_every_resource_of_a_quiet_container_is_answered_with_yes() -> None:
    found = judged()
    assert {finding.answer for finding in found} == {Answer.YES}
    named = {finding.resource for finding in found}
    assert named >= {
        Resource.NAMESPACES,
        Resource.DEVICES,
        Resource.SOCKETS,
        Resource.IO_URING,
        Resource.TERMINALS,
        Resource.GPUS,
        Resource.LOCKED,
        Resource.TIMERS,
        Resource.HUGE_PAGES,
    }


@pytest.mark.parametrize(
    ("kind", "resource", "expected"),
    [
        ("anon_inode:[eventpoll]", Resource.FILES, Answer.YES),
        ("anon_inode:[timerfd]", Resource.TIMERS, Answer.YES),
        ("anon_inode:inotify", Resource.FILES, Answer.YES),
        ("anon_inode:[pidfd]", Resource.FILES, Answer.YES),
        ("anon_inode:bpf-map", Resource.FILES, Answer.NO),
        ("anon_inode:[perf_event]", Resource.FILES, Answer.NO),
        ("anon_inode:[userfaultfd]", Resource.FILES, Answer.NO),
        ("anon_inode:[io_uring]", Resource.IO_URING, Answer.NO),
        ("anon_inode:[io_uring]", Resource.FILES, Answer.YES),
        ("elsewhere:/q", Resource.FILES, Answer.NO),
        ("nameless:/tmp/d (deleted)", Resource.FILES, Answer.NO),
        ("packet pipe", Resource.FILES, Answer.NO),
        ("socket:AF_INET/SOCK_STREAM/6", Resource.SOCKETS, Answer.YES),
        ("socket:AF_INET6/SOCK_RAW/58", Resource.SOCKETS, Answer.YES),
        ("socket:AF_UNIX/SOCK_SEQPACKET/0", Resource.SOCKETS, Answer.YES),
        ("socket:AF_NETLINK/SOCK_RAW/16", Resource.SOCKETS, Answer.YES),
        ("socket:AF_PACKET/SOCK_RAW/768", Resource.SOCKETS, Answer.YES),
        ("socket:AF_INET/SOCK_STREAM/262", Resource.SOCKETS, Answer.NO),
        ("socket:AF_VSOCK/SOCK_STREAM/0", Resource.SOCKETS, Answer.NO),
        ("socket:unknown", Resource.SOCKETS, Answer.NO),
        ("packet socket bound", Resource.SOCKETS, Answer.NO),
        ("datagram corked", Resource.SOCKETS, Answer.NO),
        ("path of a socket", Resource.SOCKETS, Answer.NO),
        ("connection not accepted", Resource.SOCKETS, Answer.UNKNOWN),
        ("netlink answer unread", Resource.SOCKETS, Answer.UNKNOWN),
        ("packets unread", Resource.SOCKETS, Answer.UNKNOWN),
        ("end of a connection unread", Resource.SOCKETS, Answer.NO),
        ("events unread", Resource.FILES, Answer.NO),
        ("pty:/dev/pts/0", Resource.TERMINALS, Answer.YES),
        ("console:/dev/pts/0", Resource.TERMINALS, Answer.YES),
        ("terminal of a session", Resource.TERMINALS, Answer.UNKNOWN),
        ("left:/dev/pts/1", Resource.TERMINALS, Answer.UNKNOWN),
        ("terminal:/dev/tty1", Resource.TERMINALS, Answer.NO),
        ("session:/dev/tty", Resource.TERMINALS, Answer.NO),
        ("device:/dev/net/tun", Resource.DEVICES, Answer.NO),
        ("device:/dev/nvidia0", Resource.GPUS, Answer.NO),
        ("device:/dev/nvidia0", Resource.DEVICES, Answer.YES),
    ],
)
def test_descriptors_by_their_kind(kind: str, resource: Resource, expected: Answer) -> None:
    assert answer(resource, descriptors={kind: WHO}) is expected


@pytest.mark.parametrize(
    ("facts", "resource", "expected"),
    [
        ({"multicast": ["224.0.0.251"]}, Resource.SOCKETS, Answer.NO),
        ({"outside": WHO}, Resource.PROCESSES, Answer.UNKNOWN),
        ({"states": {"traced": WHO}}, Resource.PROCESSES, Answer.NO),
        ({"states": {"stopped": WHO}}, Resource.PROCESSES, Answer.YES),
        ({"groups": {"/made": WHO}}, Resource.PROCESSES, Answer.NO),
        ({"namespaces": {"net": WHO}}, Resource.NAMESPACES, Answer.NO),
        ({"namespaces": {"mnt": WHO}}, Resource.NAMESPACES, Answer.YES),
        ({"mappings": {"/secretmem": WHO}}, Resource.MEMORY, Answer.NO),
        ({"mappings": {"/dev/dri/card0": WHO}}, Resource.GPUS, Answer.NO),
        ({"mappings": {"anon_inode:[io_uring]": WHO}}, Resource.IO_URING, Answer.NO),
        ({"unwatchable": ["python3, pid 7 (inotify on inode 9)"]}, Resource.FILES, Answer.NO),
        ({"descriptors": {"pipe leading out": WHO}}, Resource.PROCESSES, Answer.UNKNOWN),
        ({"unlinked": {"/f (python3, pid 7)": processes.UNLINKED_BYTES}}, Resource.FILES, Answer.YES),
        ({"unlinked": {"/f (python3, pid 7)": processes.UNLINKED_BYTES + 512}}, Resource.FILES, Answer.NO),
        ({"locked_bytes": 65536}, Resource.LOCKED, Answer.YES),
        ({"huge_bytes": 4 << 20}, Resource.HUGE_PAGES, Answer.YES),
        ({"huge_bytes": 6 << 20}, Resource.HUGE_PAGES, Answer.NO),
    ],
)
def test_the_rest_of_what_processes_have(facts: dict[str, Any], resource: Resource, expected: Answer) -> None:
    assert answer(resource, **facts) is expected


@pytest.mark.parametrize(
    ("mapping", "here", "there", "expected"),
    [
        (RESERVED, True, True, Answer.YES),
        (RESERVED, False, True, Answer.NO),
        (RESERVED, True, False, Answer.NO),
        (SHARED_CODE, True, True, Answer.YES),
        (SHARED_CODE, False, True, Answer.NO),
        (SHARED_CODE, True, False, Answer.YES),  # only a dump needs it
    ],
)
def test_what_needs_the_library_in_criu(mapping: str, here: bool, there: bool, expected: Answer) -> None:
    found = processes.judge(
        "source",
        uses(mappings={mapping: WHO}),
        replace(HERE, interposable=here),
        replace(THERE, interposable=there),
    )
    against = [finding for finding in found if finding.answer is Answer.NO]
    assert bool(against) is (expected is Answer.NO)
    assert all("tcc" in (finding.remedy or "") and "python3, pid 7" in finding.what for finding in against)


def test_a_no_names_who_and_what_to_do() -> None:
    (against,) = [f for f in judged(mappings={"/secretmem": WHO}) if f.answer is Answer.NO]
    assert "python3, pid 7" in against.what
    assert against.remedy


def test_what_ends_at_the_source_is_named_beforehand() -> None:
    assert processes.warnings(QUIET) == []
    (warning,) = processes.warnings(uses(outside=WHO))
    assert WHO[0] in warning


def test_what_is_not_known_of_the_destination_is_no_yes() -> None:
    found = processes.judge("source", uses(huge_bytes=2 << 20), HERE, None)
    unknown = {finding.resource for finding in found if finding.answer is Answer.UNKNOWN}
    assert unknown == {Resource.HUGE_PAGES}


def test_a_refusal_carries_every_no_and_a_doubt_refuses_nothing() -> None:
    findings = Findings("source")
    findings.unknown(Resource.SOCKETS, "a doubt", "")
    refuse("box", findings.found)
    findings.no(Resource.DEVICES, "one thing", "Close it")
    findings.no(Resource.GPUS, "another", "Close it too")
    with pytest.raises(Refused, match="box can't be migrated") as raised:
        refuse("box", findings.found)
    assert raised.value.reasons == ("source: one thing. Close it", "source: another. Close it too")


def test_no_yes_stands_beside_a_no_on_the_same_resource_of_the_same_host() -> None:
    here, there = Findings("source"), Findings("destination")
    here.yes(Resource.CRIU, "4.2")
    there.yes(Resource.CRIU, "4.2")
    again = Findings("source")
    again.no(Resource.CRIU, "no limits", "Grant it")
    kept = _without_contradictions([*here.found, *there.found, *again.found])
    assert [(one.host, one.answer) for one in kept] == [("destination", Answer.YES), ("source", Answer.NO)]


def test_a_stopped_process_stands_in_the_way_where_rounds_would_wait_for_it() -> None:
    here = replace(HERE, dirty_tracking=True)
    found = processes.judge("source", uses(states={"stopped": WHO}), here, THERE)
    assert Answer.NO in {finding.answer for finding in found}
