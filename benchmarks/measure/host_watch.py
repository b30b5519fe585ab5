"""Watches one host until standard input ends: processor time, memory, traffic.

Runs on the host with the standard library only. Argument: the period of the samples, in seconds. Prints `ready`, then
one JSON object: `cpu_s` spent by all processes of the host meanwhile, `peak_bytes` of memory above what was in use at
the beginning, `interfaces` with the bytes and packets that each interface has sent and received meanwhile.

A namespaced host shares its kernel with others, so it is its processes that are looked at: those of this process
namespace, with the children that they have waited for, and the images that rest on tmpfs. What the kernel itself does
for the host is not in it.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
DUMPS = ("/run/sealift/dumps", "/run/sealift/peer")


def cpu_s() -> dict[int, float]:
    """Seconds of each process: its own (utime, stime) and that of the children it has waited for (proc_pid_stat(5))."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        found[int(stat.parent.name)] = sum(map(int, fields[11:15])) * TICK_S
    return found


def used_bytes() -> int:
    """Anonymous memory of all processes, and the images on tmpfs."""
    total = 0
    for statm in Path("/proc").glob("[0-9]*/statm"):
        try:
            _, resident, shared, *_ = map(int, statm.read_text().split())
        except (OSError, ValueError):
            continue
        total += (resident - shared) * PAGE
    for folder in DUMPS:
        if os.path.ismount(folder):
            fs = os.statvfs(folder)
            total += (fs.f_blocks - fs.f_bfree) * fs.f_frsize
    return total


def interfaces() -> dict[str, list[int]]:
    """Bytes and packets received, bytes and packets sent, by interface (proc_net_dev)."""
    found = {}
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        found[name.strip()] = [numbers[0], numbers[1], numbers[8], numbers[9]]
    return found


def main(period: str) -> None:
    """Sample until standard input ends."""
    first_cpu, first_interfaces, base = cpu_s(), interfaces(), used_bytes()
    peak = base
    began = time.monotonic()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], float(period))[0]:
        peak = max(peak, used_bytes())
    peak = max(peak, used_bytes())
    own = os.getpid()
    # A process that has ended meanwhile is counted by its parent, which has waited for it.
    spent = sum(seconds - first_cpu.get(pid, 0.0) for pid, seconds in cpu_s().items() if pid != own)
    after = interfaces()
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - began,
                "cpu_s": round(max(spent, 0.0), 3),
                "peak_bytes": peak - base,
                "interfaces": {
                    name: [now - then for now, then in zip(after[name], before, strict=True)]
                    for name, before in first_interfaces.items()
                    if name in after
                },
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
