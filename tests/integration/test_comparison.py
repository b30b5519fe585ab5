"""What can be seen of a container's processes is the same after a migration, but for a short list with reasons."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from menagerie import PORT
from test_menagerie import WAIT

from sealift.lab import images
from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

MAY_DIFFER = {
    r"/network/filter": "Docker's own rules for its resolver have other ports",
    r"/sysctls/ipc/\d": "times and numbers of processes, as the host sees them, of System V objects",
    r"/sysctls//proc/sys/kernel/(random/uuid|ns_last_pid|pty/nr)": "made anew at each reading, or the host's",
    r".*/timens_offsets": "what a time namespace is for: the clocks inside are the same",
    r".*/info/\d+": "numbers of events and of processes as the host sees them; flags that open(2) adds",
    r".*/SOL_SOCKET (17|77)": "peers' numbers as the host sees them; a counter of the kernel",
    r".*/SOL_SOCKET 59": "supplementary groups of a peer: CRIU makes the socket before it takes the process's groups",
    r".*/SOL_SOCKET 49": "the processor that a packet came in on",
    r".*/IPPROTO_TCP (2|21)": "the size of segments until the next packet; left over of the repair mode",
    r".*/IPPROTO_IP 33": "see network.options: of an accepted connection it can't be set",
    r".*/names/(own|peer)": "an accepted Unix socket has no name after CRIU: its listener has it",
    r".*/mounts/\d+/[24]/?\d*": "masked files are bind mounts of the host's /dev/null, whose options they show",
    r".*/areas(/\d+/3)?": "the kernel merges neighbouring maps of one file; shared memory is named memfd by CRIU",
    r".*/threads/\d+/status/VmLck": "not of a thread",
    r".*/status/Speculation\w+": "only a process itself can ask for it; `check` says so (see LIMITATIONS)",
}
MORE = r"""
import ctypes, os, resource, socket, subprocess, sys, time

def child(prepare):
    if os.fork() == 0:
        prepare()
        while True:
            time.sleep(1)

def write(name, value):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(value)

def nobody():
    os.setgroups([7, 8])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)

def limited():
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o027)

def scheduled():
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.nice(7)
    os.sched_setaffinity(0, {0})

PR_SET_KEEPCAPS, PR_SET_TIMERSLACK, PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 8, 29, 36, 1, 4

def controlled():
    for option, value in ((PR_SET_TIMERSLACK, 70000), (PR_SET_CHILD_SUBREAPER, 1), (PR_SET_PDEATHSIG, 10)):
        assert not ctypes.CDLL(None).prctl(option, value, 0, 0, 0)

IOPRIO_SET, IOPRIO_GET, BEST_EFFORT = 251, 252, 2

def reads_late():
    assert not ctypes.CDLL(None).syscall(IOPRIO_SET, 1, 0, BEST_EFFORT << 13 | 6)

PR_SET_SPECULATION_CTRL, STORE_BYPASS, DISABLE, PR_SET_THP_DISABLE = 53, 0, 4, 41

def careful():
    ctypes.CDLL(None).prctl(PR_SET_SPECULATION_CTRL, STORE_BYPASS, DISABLE, 0, 0)
    assert not ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

def spared_of_parent():
    write("oom_score_adj", "300")
    child(lambda: write("oom_score_adj", "0") if os.geteuid() == 0 else None)

for prepare in (
    nobody, limited, scheduled, controlled, reads_late, careful, spared_of_parent,
    lambda: write("oom_score_adj", "500"), lambda: write("coredump_filter", "0x7f"), os.setsid,
):
    child(prepare)
pairs = [socket.socketpair() for _ in range(3)]
listener = socket.create_server(("127.0.0.1", 7001))
print("up", flush=True)
while True:
    time.sleep(1)
"""


def observed(hosts: Hosts, host: str) -> Any:
    script = (Path(__file__).parents[1] / "observe.py").read_bytes()
    first = str(hosts.inspect(host, "box")["State"]["Pid"])
    return json.loads(hosts[host].run(["python3", "-", first], stdin=script, timeout_s=100).stdout)


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from differences(one.get(name), other.get(name), f"{path}/{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (each, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(each, its, f"{path}/{number}")
    elif one != other:
        yield path, f"{str(one)[:300]!r} -> {str(other)[:300]!r}"


def compare(hosts: Hosts, strategy: Strategy) -> None:
    before = observed(hosts, "source")
    restless = {path for path, _ in differences(before, observed(hosts, "source"))}
    hosts.engine("box", strategy=strategy)
    found = {
        path: how
        for path, how in differences(before, observed(hosts, "destination"))
        if path not in restless and not any(re.fullmatch(known, path) for known in MAY_DIFFER)
    }
    assert found == {}
    assert len(before["processes"]) > 5, "little is compared"


@pytest.mark.parametrize(
    "strategy", [Strategy.AUTO, pytest.param(Strategy.POST_COPY, marks=pytest.mark.whole)]
)
def test_processes_of_all_kinds_look_the_same(hosts: Hosts, strategy: Strategy) -> None:
    hosts.python("box", MORE, options=["--init"])
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done; sleep 1")
    compare(hosts, strategy)


def test_the_menagerie_looks_the_same(hosts: Hosts) -> None:
    script = (Path(__file__).parents[1] / "menagerie.py").read_text()
    options = ["--init", "--volume", "menagerie-data:/home/workload"]
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    network = ["--network", hosts.network, "--ip", hosts.address()]
    hosts.docker(
        "source", "run", "-d", "--name", "box", *network, *options, tag, "python3", "-u", "-c", script
    )
    hosts.docker("source", "exec", "box", "python3", "-c", WAIT, str(PORT))
    time.sleep(1)
    compare(hosts, Strategy.AUTO)
