"""Post-copy: a container that runs before its memory is there, and what happens when the memory does not come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, counting, frozen, kill_agent, until_same, untouched

from sealift.errors import MigrationFailed, SealiftError
from sealift.host.agents import Agent
from sealift.migration.cutover import Cutover
from sealift.model import Strategy
from sealift_agent.protocol import Discard

if TYPE_CHECKING:
    from collections.abc import Callable

    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

SIGNAL_DAEMON = """
import os, signal, sys, time
from pathlib import Path

end = time.monotonic() + 20
while time.monotonic() < end:  # without a pause: before the commit it lives for some 60 ms
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            found = b"\\0pager\\0" in comm.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if found:
            os.kill(int(comm.parent.name), signal.Signals[sys.argv[1]])
            raise SystemExit(0)
raise SystemExit(1)
"""

FORKS = """
import os, signal, time
held = bytearray(b"here" * 1024 * 30_000)

def fork(*_):
    if os.fork() == 0:
        sum(held)
        os._exit(0)

signal.signal(signal.SIGUSR1, fork)
print("up", flush=True)
while True:
    time.sleep(0.01)
"""
"""On SIGUSR1 it has a child that reads all of its memory."""


def digest(hosts: Hosts, host: str) -> str:
    """Redis's own digest of all it holds but the client's counter."""
    hosts.docker(host, "exec", "redis", "redis-cli", "DEL", "counter")
    return hosts.docker(host, "exec", "redis", "redis-cli", "DEBUG", "DIGEST")


def running(hosts: Hosts) -> list[str]:
    """Hosts on which Docker says that the container runs."""
    return [h for h in DOCKER_HOSTS if hosts.docker(h, "ps", "-q", "--filter", "name=redis")]


def alive(hosts: Hosts, host: str) -> bool:
    """Whether the container on a host can execute an instruction."""
    pid = hosts.inspect(host, "redis")["State"]["Pid"]
    return pid > 0 and not frozen(hosts, pid)


def discard(hosts: Hosts, container: str) -> None:
    """Do away with the source's copy, which stays frozen as long as its memory is wanted."""
    with Agent(hosts["source"], "source") as broom:  # a frozen process dies for nobody else
        broom.call(Discard("none", container))


@pytest.mark.alone  # it sees how the kernel's limits for pipes are set, which all labs of a machine share
def test_memory_that_follows_is_the_memory_that_was(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=100)
    before, states = digest(hosts, "source"), {host: hosts.state(host) for host in DOCKER_HOSTS}
    huge_kb: list[int] = []

    def look(_: Session) -> None:
        pid = hosts.inspect("source", "redis")["State"]["Pid"]
        huge_kb.append(
            int(hosts.sh("source", f"awk '/AnonHugePages/ {{ print $2 }}' /proc/{pid}/smaps_rollup"))
        )

    with counting(hosts, address) as found:
        report = hosts.engine("redis", {"armed": look}, strategy=Strategy.POST_COPY)
        time.sleep(0.5)
    assert huge_kb[0] > 80_000, "most of it was put together before the freeze"
    print(found[0].summary(), f"frozen {report.frozen_ms:.0f} ms, cut {report.cut_ms:.0f} ms")
    assert found[0].intact, found[0].summary()
    assert report.strategy == Strategy.POST_COPY
    assert report.memory_bytes > 100_000_000, "the pages that were fetched are in the report"
    assert digest(hosts, "destination") == before
    assert running(hosts) == ["destination"]
    gone = frozenset(
        {"containers", "container directories", "layers", "writable layers", "runtime", "links", "routes"}
        | {"processes", "mounts"}
    )
    left = until_same(hosts, "source", states["source"], allow=gone)
    assert not left, left
    assert hosts.sh("source", "cat /proc/sys/fs/pipe-user-pages-soft") != "0"


def test_memory_filled_in_from_local_images_is_the_memory_that_was(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=100)
    before = digest(hosts, "source")
    seen: list[str] = []

    def look(_: Session) -> None:
        seen.append(hosts.sh("destination", "cat /run/sealift/restore/*/options"))

    def count(session: Session) -> None:
        assert isinstance(session.decision, Cutover)
        sent_in_freeze.append(session.decision.heard.dumped.file_bytes)

    sent_in_freeze: list[int] = []
    with counting(hosts, address) as found:
        hosts.engine("redis", {"restored": look, "dumped": count})
    assert seen == ["--lazy-pages"]
    assert sent_in_freeze == [0], (
        "no file has changed since the live pass, and no rsync was started to see that"
    )
    assert found[0].intact, found[0].summary()
    assert digest(hosts, "destination") == before


@pytest.mark.parametrize(
    ("host", "moment"),
    [
        pytest.param("source", "armed", marks=pytest.mark.whole),
        ("source", "frozen"),
        pytest.param("destination", "armed", marks=pytest.mark.whole),
        ("destination", "sent"),
    ],
)
def test_agent_is_killed_before_the_commit(hosts: Hosts, host: str, moment: str) -> None:
    address = hosts.redis("redis", memory_mb=20)
    before = digest(hosts, "source")
    with untouched(hosts, "redis", address), pytest.raises(SealiftError):
        hosts.engine("redis", {moment: kill_agent(hosts, host, host)}, strategy=Strategy.POST_COPY)
    assert hosts.owner(address) == "source"
    assert digest(hosts, "source") == before


@pytest.mark.parametrize("host", DOCKER_HOSTS)
def test_agent_is_killed_after_the_commit_and_memory_still_follows(hosts: Hosts, host: str) -> None:
    address = hosts.redis("redis", memory_mb=100)
    before = digest(hosts, "source")
    with counting(hosts, address) as found:
        kill = kill_agent(hosts, host, host)
        try:
            hosts.engine("redis", {"committed": kill}, strategy=Strategy.POST_COPY)
        except SealiftError as lost:
            print(lost)
        time.sleep(0.5)
    assert found[0].intact, found[0].summary()
    assert digest(hosts, "destination") == before
    assert running(hosts) == ["destination"]
    assert hosts.sh(host, "ls /run/sealift/dumps 2>/dev/null", check=False) == ""


@pytest.mark.parametrize("strategy", [Strategy.POST_COPY, Strategy.STOP_AND_COPY])
def test_daemon_for_pages_is_killed_before_the_commit(hosts: Hosts, strategy: Strategy) -> None:
    address = hosts.redis("redis", memory_mb=50)

    def lie_in_wait(_: Session) -> None:
        kill = 'python3 -c "$1" SIGKILL >/dev/null 2>&1 </dev/null &'
        hosts.sh("destination", kill, SIGNAL_DAEMON)

    with untouched(hosts, "redis", address), pytest.raises(MigrationFailed) as raised:
        hosts.engine("redis", {"armed": lie_in_wait}, strategy=strategy)
    assert raised.value.step == "restore"


def test_a_restore_that_stands_still_is_given_up_and_leaves_nothing(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=50)

    def stop(_: Session) -> None:
        hosts.sh("destination", 'python3 -c "$1" SIGSTOP', SIGNAL_DAEMON)

    with (
        untouched(hosts, "redis", address),
        pytest.raises(MigrationFailed, match="has stood still") as raised,
    ):
        hosts.engine("redis", {"frozen": stop}, strategy=Strategy.POST_COPY)
    assert (raised.value.host, raised.value.step) == ("destination", "restore")


def test_daemon_for_pages_is_killed_after_the_commit_and_nobody_reads_zeroes(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=300)
    died: list[Callable[..., object]] = []

    def kill(_: Session) -> None:
        hosts.sh("destination", 'python3 -c "$1" SIGKILL', SIGNAL_DAEMON)
        died.append(kill)

    container = hosts.inspect("source", "redis")["Id"]
    with counting(hosts, address) as found, pytest.raises(SealiftError, match="memory can't be completed"):
        hosts.engine("redis", {"committed": kill}, strategy=Strategy.POST_COPY)
    assert died
    assert not found[0].faults, "an answer from a memory with holes"
    assert hosts.owner(address) == "destination"
    assert not alive(hosts, "destination")
    assert not alive(hosts, "source")
    discard(hosts, container)


def test_a_child_waits_for_pages_that_nobody_will_bring(hosts: Hosts) -> None:
    hosts.python("box", FORKS)
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done")

    def kill(_: Session) -> None:
        agent = "pkill -$1 -f 'agent-[0-9a-f]*.pyz destination'"
        parent = hosts.sh("destination", "pgrep -f '^python3 -c .import os, signal, time'")
        hosts.sh("destination", 'kill -USR1 "$1"; sleep 0.1', parent)
        hosts.sh("destination", agent, "STOP")  # it would end the container at once
        hosts.sh("destination", 'python3 -c "$1" SIGKILL', SIGNAL_DAEMON)
        time.sleep(0.5)
        seen.append(hosts.sh("destination", 'ps --ppid "$1" -o stat=', parent))
        hosts.sh("destination", agent, "CONT")

    container = hosts.inspect("source", "box")["Id"]
    seen: list[str] = []
    with pytest.raises(SealiftError, match="memory can't be completed"):
        hosts.engine("box", {"committed": kill}, strategy=Strategy.POST_COPY)
    discard(hosts, container)
    assert [state[:1] for state in seen] == ["S"], "neither read nor crashed over zeroes"
