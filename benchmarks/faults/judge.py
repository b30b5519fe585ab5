"""What has to hold after a fault: one live copy, reachable, with everything that was acknowledged; and no leftovers."""

from __future__ import annotations

import json
import time
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING

from benchmarks.faults.hosts import inside, inside_run, is_virtual, patience
from benchmarks.testbed import DOCKER_HOSTS
from sealift.lab import lab

if TYPE_CHECKING:
    from benchmarks.workloads.client import Findings

    State = dict[str, list[str]]

INSPECTED = (*DOCKER_HOSTS, "gateway")
SETTLE_S = 15
REACH_S = 20

SLACK = {"descriptors": 3, "megabytes": 48}
"""How much more a daemon may have: API connections that it has not closed yet, garbage that it has not collected.

A megabyte that stays behind with each migration shows in a hundred of them.
"""

IMAGE = frozenset({"layers"})
"""What a migration leaves at the destination even if it fails: the image, which is no part of the container."""

LOST = [["docker says exited"], ["docker says created"]]

COPIES = """
for p in /proc/[0-9]*; do
	read -r name <"$p/comm" 2>/dev/null || continue
	[ "$name" = redis-server ] || continue
	g=$(sed -n 's/^[0-9]*:freezer://p' $p/cgroup)
	if [ -n "$g" ]; then state=$(cat "/sys/fs/cgroup/freezer$g/freezer.state")
	else state=$(cat "/sys/fs/cgroup$(sed -n 's/^0:://p' $p/cgroup)/cgroup.freeze"); fi
	case $state in THAWED | 0) echo live ;; *) echo frozen ;; esac
done
docker ps -a --filter "name=^$1$" --format 'docker says {{.State}}'
"""

LAZY = "sysctl -qw vm.dirty_writeback_centisecs=$1 vm.dirty_expire_centisecs=$2"
NEVER, USUAL = ("0", "360000"), ("500", "3000")
"""When a kernel writes what nobody has asked it to write (admin-guide/sysctl/vm.rst)."""

KEEP = "docker exec $1 sh -c 'echo kept >/home/kept; sync'"
KEPT = "docker exec $1 cat /home/kept"
"""A file that the container has on its disk, and what it has there afterwards."""

ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), timeout=3) as redis:
    redis.sendall(b"INCRBY counter 0\\r\\n")
    print(int(redis.makefile("rb").readline()[1:]))
"""


def copies(container: str) -> dict[str, list[str]]:
    """What there is of the container on each host: a word for each of its processes, and what Docker says of it."""
    return {host: inside(host, COPIES, container, check=False).stdout.splitlines() for host in DOCKER_HOSTS}


def one_live_copy(container: str, owner: str | None, *, lost: bool = False) -> list[str]:
    """What is wrong with the copies: there must be one, it must run, and where the gateway sends its packets.

    One that was `lost`, since its host's power went, is there for Docker to start again. Docker may not have come to
    note that it had been started.
    """
    found = copies(container)
    wrong = []
    for host, words in found.items():
        there = LOST if lost else [["live", "docker says running"]]
        if words not in (there if host == owner else [[]]):
            wrong.append(
                f"{host} has {', '.join(words) or 'no copy'}" + (" and the address" if host == owner else "")
            )
    return wrong


def counter(address: str) -> int | None:
    """The counter, over a connection of its own, as soon as it answers; None if it does not."""
    deadline = time.monotonic() + patience(REACH_S)
    while time.monotonic() < deadline:
        done = inside_run("client", ["python3", "-c", ASK, address], check=False, timeout_s=10)
        if done.status == 0:
            return int(done.stdout)
        time.sleep(0.3)
    return None


def keep(container: str, host: str) -> None:
    """Give the container a file, written through to its host's disk. VMs write nothing by themselves from then on."""
    inside(host, KEEP, container)
    write_back(*NEVER)


def write_back(*when: str) -> None:
    """Have VMs write what is dirty when they are told, or as usual. Namespaced hosts share this machine's kernel."""
    if is_virtual(lab.running()):
        for host in DOCKER_HOSTS:
            inside(host, LAZY, *when)


def kept(container: str, host: str) -> list[str]:
    """What is wrong with that file."""
    found = inside(host, KEPT, container, check=False)
    return (
        [] if found.stdout == "kept\n" else [f"what was on its disk is not: {found.stderr or found.stdout!r}"]
    )


def acknowledged(found: Findings, kept: int | None) -> list[str]:
    """What is wrong with what a client was told: `kept` is the counter at the end."""
    wrong = [] if found.intact else [f"the client: {found.summary()}"]
    if kept is None:
        return [*wrong, "it is not reachable"]
    if kept < found.operations:
        wrong.append(f"{found.operations} increments were acknowledged, and the counter is {kept}")
    return wrong


def state(host: str) -> State:
    """What is on a host, by sections."""
    script = files("benchmarks.faults").joinpath("host_state.py").read_text()
    sections: State = json.loads(inside_run(host, ["python3", "-"], stdin=script).stdout)
    return sections


def differences(
    before: State, after: State, *, allow: frozenset[str] = frozenset()
) -> dict[str, tuple[list[str], list[str]]]:
    """Sections that are not as they were: what went, what came."""
    found = {}
    for name in before.keys() - allow:
        old, new = Counter(before[name]), Counter(after.get(name, []))
        slack = SLACK.get(name.split()[0])
        if slack is not None and name in after and int(after[name][0]) <= int(before[name][0]) + slack:
            continue
        if name == "agents":
            old &= new  # one that ended with the fault that was made is no leftover
        if old != new:
            found[name] = (list((old - new).elements()), list((new - old).elements()))
    return found


def leftovers(before: dict[str, State]) -> list[str]:
    """What is on the hosts that was not there before, or the other way round, given time to settle."""
    deadline = time.monotonic() + patience(SETTLE_S)
    while True:
        found = {host: differences(old, state(host), allow=IMAGE) for host, old in before.items()}
        if not any(found.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return [
        f"{host}, {section}: " + "; ".join([*(f"-{line}" for line in went), *(f"+{line}" for line in came)])
        for host, sections in found.items()
        for section, (went, came) in sorted(sections.items())
    ]
