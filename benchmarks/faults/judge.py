"""What must be true after a fault: one live copy, reachable, with all acknowledged data, and no leftovers."""

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
"""How much more a daemon may have: open API connections, memory that is not collected yet. A megabyte that each
migration leaves can be seen after a hundred migrations."""

IMAGE = frozenset({"layers"})
"""A failed migration leaves only the image at the destination. It is no part of the container."""

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
"""When a kernel writes dirty pages unasked (admin-guide/sysctl/vm.rst)."""

KEEP = "docker exec $1 sh -c 'echo kept >/home/kept; sync'"
KEPT = "docker exec $1 cat /home/kept"
"""Write a file to the container's disk, and read it afterwards."""

ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), timeout=3) as redis:
    redis.sendall(b"INCRBY counter 0\\r\\n")
    print(int(redis.makefile("rb").readline()[1:]))
"""


def copies(container: str) -> dict[str, list[str]]:
    """The container's copies on each host: a word for each of its processes, and Docker's state of it."""
    return {host: inside(host, COPIES, container, check=False).stdout.splitlines() for host in DOCKER_HOSTS}


def one_live_copy(container: str, owner: str | None, *, lost: bool = False) -> list[str]:
    """What is wrong with the copies: there must be one, it must run, and the gateway must send its packets there.

    After its host lost power a copy is `lost`: Docker has it and can start it again. Docker may not have written that
    it was started.
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
    """The counter, over a new connection, as soon as it answers. None if it does not."""
    deadline = time.monotonic() + patience(REACH_S)
    while time.monotonic() < deadline:
        done = inside_run("client", ["python3", "-c", ASK, address], check=False, timeout_s=10)
        if done.status == 0:
            return int(done.stdout)
        time.sleep(0.3)
    return None


def keep(container: str, host: str) -> None:
    """Write a file to the container's disk. From then on VMs write dirty pages only when asked."""
    inside(host, KEEP, container)
    write_back(*NEVER)


def write_back(*when: str) -> None:
    """Let VMs write dirty pages only when asked, or as usual. Namespaced hosts share this machine's kernel."""
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
    """What is wrong with the acknowledged operations: `kept` is the counter at the end."""
    wrong = [] if found.intact else [f"the client: {found.summary()}"]
    if kept is None:
        return [*wrong, "it is not reachable"]
    if kept < found.operations:
        wrong.append(f"{found.operations} increments were acknowledged, and the counter is {kept}")
    return wrong


def state(host: str) -> State:
    """The state of a host, by sections."""
    script = files("benchmarks.faults").joinpath("host_state.py").read_text()
    sections: State = json.loads(inside_run(host, ["python3", "-"], stdin=script).stdout)
    return sections


def differences(
    before: State, after: State, *, allow: frozenset[str] = frozenset()
) -> dict[str, tuple[list[str], list[str]]]:
    """Sections that have changed: what is missing, what is new."""
    found = {}
    for name in before.keys() - allow:
        old, new = Counter(before[name]), Counter(after.get(name, []))
        slack = SLACK.get(name.split()[0])
        if slack is not None and name in after and int(after[name][0]) <= int(before[name][0]) + slack:
            continue
        if name == "agents":
            old &= new  # what ended with the fault itself is no leftover
        if old != new:
            found[name] = (list((old - new).elements()), list((new - old).elements()))
    return found


def leftovers(before: dict[str, State]) -> list[str]:
    """What the hosts have more or less than before, after some time to settle."""
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
