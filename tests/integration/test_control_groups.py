"""What a container sees of its control groups, and what it has made of them, is the same after a migration."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

SEE = r"""
import json, os, signal, subprocess, time

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
for top in tops:
    os.makedirs(f"{top}/out er/inner")
    for place in (f"{top}/out er", f"{top}/out er/inner"):
        for name in ("cpuset.cpus", "cpuset.mems"):
            if os.path.exists(f"{place}/{name}") and "cpuset/" in place:
                open(f"{place}/{name}", "w").write(open(f"{os.path.dirname(place)}/{name}").read())
    open(f"{top}/out er/inner/cgroup.procs", "w").write(str(child.pid))
for name, value in (("memory/out er/memory.limit_in_bytes", "67108864"), ("pids/out er/inner/pids.max", "33")):
    if os.path.exists(f"{ROOT}/{name}"):
        open(f"{ROOT}/{name}", "w").write(value)

def more():
    found = {}
    for top in tops:
        for place, _, _ in os.walk(f"{top}/out er"):
            for name in ("memory.limit_in_bytes", "pids.max", "cgroup.procs", "cpuset.cpus"):
                found[f"{place}/{name}"] = read(f"{place}/{name}")
    return {"inner": found, "alive": child.poll() is None}
"""
LOOP = r"""
number = 0
while True:
    print(json.dumps({"number": number, **see()}), flush=True)
    number += 1
    time.sleep(0.2)
"""


def last(hosts: Hosts, host: str) -> dict[str, Any]:
    """What the program sees from now on: of two lines, the later one was begun after the first was printed."""
    before = hosts.docker(host, "logs", "--tail", "1", "box")
    until = time.monotonic() + 30
    while (said := hosts.docker(host, "logs", "--tail", "1", "box")) == before or not said.startswith("{"):
        assert time.monotonic() < until, f"it prints nothing more: {said}"
        time.sleep(0.1)
    seen: dict[str, Any] = json.loads(said)
    del seen["number"]
    return seen


@pytest.mark.parametrize(
    ("strategy", "namespace"),
    [(Strategy.AUTO, "host"), (Strategy.POST_COPY, "host"), (Strategy.AUTO, "private")],
)
def test_limits_are_seen_as_they_were(hosts: Hosts, strategy: Strategy, namespace: str) -> None:
    options = ["--memory", "256m", "--pids-limit", "100", "--cpus", "0.5", "--cgroupns", namespace]
    hosts.python("box", SEE + LOOP, options=options)
    before = last(hosts, "source")
    assert before["limits"], "nothing is compared"
    hosts.engine("box", strategy=strategy)
    assert last(hosts, "destination") == before
    hosts.engine("box", source="destination", destination="source", strategy=strategy)
    assert last(hosts, "source") == before


def test_groups_that_the_container_has_made_come_along(hosts: Hosts) -> None:
    hosts.python("box", SEE + INNER + LOOP, options=["--cap-add", "SYS_ADMIN"])
    before = last(hosts, "source")
    assert len(before["inner"]) >= 4
    assert before["alive"]
    hosts.engine("box")
    assert last(hosts, "destination") == before
    hosts.engine("box", source="destination", destination="source")
    assert last(hosts, "source") == before
