"""What a container sees of its control groups, and what it makes of them: programs, and what they print."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hosts import Hosts

SEE = r"""
import json, os, re, subprocess, time

ROOT = "/sys/fs/cgroup"
LIMITS = (
    *("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"),
    *("memory.max", "pids.max", "cpu.max"),
)

def read(path):
    try:
        return open(path).read().strip()
    except OSError:
        return None

def see():
    return {
        "limits": {name: value for name in LIMITS if (value := read(f"{ROOT}/{name}")) is not None},
        "names": {kind: sorted(os.listdir(f"{ROOT}/{kind}")) for kind in sorted(os.listdir(ROOT))
                  if os.path.isdir(f"{ROOT}/{kind}")},
        **more(),
    }

def more():
    return {}
"""
INNER = r"""
import ctypes

REMOUNT, BIND = 32, 4096
tops = [top for name in ("memory", "pids", "freezer", "cpuset") if os.path.isdir(top := f"{ROOT}/{name}")] or [ROOT]
for top in tops:
    assert not ctypes.CDLL(None).mount(None, top.encode(), None, REMOUNT | BIND, None)
child = subprocess.Popen(["sleep", "100000"])
if tops == [ROOT]:  # version 2: only a group without processes of its own hands controllers down
    os.mkdir(f"{ROOT}/main")
    for pid in (os.getpid(), child.pid):
        open(f"{ROOT}/main/cgroup.procs", "w").write(str(pid))
    open(f"{ROOT}/cgroup.subtree_control", "w").write("+memory +pids")
for top in tops:
    os.makedirs(f"{top}/out er/inner")
    for place in (f"{top}/out er", f"{top}/out er/inner"):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if os.path.exists(f"{place}/{name}") and "cpuset/" in place:
                open(f"{place}/{name}", "w").write(open(f"{os.path.dirname(place)}/{name}").read())
    open(f"{top}/out er/inner/cgroup.procs", "w").write(str(child.pid))
    if top != ROOT:
        open(f"{top}/out er/cgroup.procs", "w").write(str(os.getpid()))
if tops == [ROOT]:
    open(f"{ROOT}/out er/cgroup.subtree_control", "w").write("+pids")
WANTED = (
    *(("memory/out er/memory.limit_in_bytes", "67108864"), ("pids/out er/inner/pids.max", "33")),
    *(("out er/memory.max", "67108864"), ("out er/inner/pids.max", "33")),
)
for name, value in WANTED:
    if os.path.exists(f"{ROOT}/{name}"):
        open(f"{ROOT}/{name}", "w").write(value)

def more():
    found = {}
    for top in tops:
        for place, _, _ in os.walk(f"{top}/out er"):
            for name in (
                *("memory.limit_in_bytes", "memory.max", "pids.max", "cgroup.procs", "cpuset.cpus"),
                "cgroup.subtree_control",
            ):
                found[f"{place}/{name}"] = read(f"{place}/{name}")
    own = re.sub("[0-9a-f]{64}", "ID", open("/proc/self/cgroup").read())
    return {"inner": found, "own": own, "alive": child.poll() is None}
"""
LOOP = r"""
number = 0
while True:
    print(json.dumps({"number": number, **see()}), flush=True)
    number += 1
    time.sleep(0.2)
"""


def seen(hosts: Hosts, host: str) -> dict[str, Any]:
    """What the program sees from now on: of two lines, the later one was begun after the first was printed."""
    before = hosts.docker(host, "logs", "--tail", "1", "box")
    until = time.monotonic() + 120
    while (said := hosts.docker(host, "logs", "--tail", "1", "box")) == before or not said.startswith("{"):
        assert time.monotonic() < until, f"it prints nothing more: {said}"
        time.sleep(0.1)
    seen: dict[str, Any] = json.loads(said)
    del seen["number"]
    return seen
