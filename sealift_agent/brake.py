"""A writer that gets memory dirty faster than the link carries it, slowed down by its control group's CPU quota.

What the quota was before is written down first, in the migration's directory: whoever ends the migration puts it back.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from . import cgroup
from .wire import AgentError

RECORD = "quota"
PERIOD_US = 100_000
LEAST_CPUS = 0.05
"""Less than that of one processor, and the container would as good as stand still."""

WATCHED_S = 0.2


def slow_down(directory: Path, pid: int) -> float | None:
    """Halve what the group of a process may use of the CPUs. Returns how many it may use; None once it is at the least.

    AgentError where the kernel has no such quota.
    """
    group = _group(pid)
    file, record = _file(group), directory / RECORD
    if not record.exists():
        record.write_text(json.dumps({"file": str(file), "content": file.read_text().strip()}))
    used = _used_cpus(group)
    if used <= LEAST_CPUS:
        return None
    allowed = max(LEAST_CPUS, used / 2)
    _write(file, allowed)
    return allowed


def put_back(directory: Path) -> None:
    """The quota as it was, if it was changed; a group that is gone needs none."""
    record = directory / RECORD
    with contextlib.suppress(FileNotFoundError):
        found = json.loads(record.read_text())
        with contextlib.suppress(OSError):
            Path(found["file"]).write_text(found["content"])
        record.unlink()


def _group(pid: int) -> Path:
    for controllers, path in cgroup.paths(pid).items():
        if "cpu" in controllers.split(","):
            return cgroup.ROOT / "cpu" / path.lstrip("/")
    return cgroup.of_process(pid)


def _file(group: Path) -> Path:
    for name in ("cpu.cfs_quota_us", "cpu.max"):
        if (group / name).exists():
            return group / name
    raise AgentError(f"the kernel has no CPU quota for {group}", "pre-dump")


def _write(file: Path, cpus: float) -> None:
    if file.name == "cpu.max":
        file.write_text(f"{int(cpus * PERIOD_US)} {PERIOD_US}")
    else:
        period = int((file.parent / "cpu.cfs_period_us").read_text())
        file.write_text(str(int(cpus * period)))


def _used_cpus(group: Path) -> float:
    """How many processors the group uses right now."""
    before, started = _usage_s(group), time.monotonic()
    time.sleep(WATCHED_S)
    return (_usage_s(group) - before) / (time.monotonic() - started)


def _usage_s(group: Path) -> float:
    """CPU time used so far, in seconds (cgroup v2: cpu.stat; v1: cpuacct, mounted beside it or with it)."""
    statistics = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    if "usage_usec" in statistics:
        return int(statistics["usage_usec"]) / 1e6
    beside = cgroup.ROOT / "cpuacct" / group.relative_to(cgroup.ROOT / "cpu")
    return int((beside / "cpuacct.usage").read_text()) / 1e9
