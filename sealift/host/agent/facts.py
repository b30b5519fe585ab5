"""What a host is and has, and what a container on it uses: the raw material of the preflight."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cgroup, docker_api, limits
from .wire import Controller, serve

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN_DEVICES = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

WRAPPERS = ("runtime", "restore", "armed/criu", "armed/tar")
"""Programs of ours that a host must have, in /usr/libexec/sealift."""


def host() -> dict[str, Any]:
    """Kernel, CRIU, CPU, memory and space of this host."""
    cpu = re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    docker = Path("/var/lib/docker")
    return {
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cpu_flags": sorted(cpu.group(1).split()) if cpu else [],
        "memory_available_bytes": int(memory["MemAvailable"]) * 1024,
        "disk_free_bytes": shutil.disk_usage(docker if docker.exists() else "/").free,
        "criu": _criu_version(),
        "criu_problem": _criu_check(),
        "dirty_tracking": _criu("check", "--feature", "mem_dirty_track").returncode == 0,
        "lazy": _criu("check", "--feature", "uffd").returncode == 0,
        "rsync": shutil.which("rsync") is not None,
        "wrapper": all(os.access(f"/usr/libexec/sealift/{name}", os.X_OK) for name in WRAPPERS),
    }


def container(container: str) -> dict[str, Any]:
    """What the processes of a running container hold that matters for a dump, and how large they are."""
    state = docker_api.call("GET", f"/containers/{container}/json")["State"]
    group = cgroup.of_process(state["Pid"])
    found: dict[str, Any] = {
        "io_uring": [],
        "devices": [],
        "terminals": [],
        "memory_bytes": 0,
        "processes": 0,
    }
    pids = cgroup.pids(group)
    found["limits_unreadable"] = limits.unreadable(pids) and not limits.obtainable()
    for pid in pids:
        found["processes"] += 1
        found["memory_bytes"] += _resident_bytes(pid)
        name = _name(pid)
        for target in _open_files(pid):
            if target.startswith("anon_inode:[io_uring]"):
                found["io_uring"].append(name)
            elif target.startswith(("/dev/pts/", "/dev/tty")) or target == "/dev/console":
                found["terminals"].append(f"{name} ({target})")
            elif target.startswith("/dev/") and target not in PLAIN_DEVICES and not _ordinary(pid, target):
                found["devices"].append(f"{name} ({target})")
    return {key: sorted(set(value)) if isinstance(value, list) else value for key, value in found.items()}


def exists(paths: list[str]) -> list[bool]:
    """Which of these are directories on this host."""
    return [Path(path).is_dir() for path in paths]


def tree_bytes(paths: list[str]) -> int:
    """How much the directories hold, in bytes on disk."""
    total = 0
    for path in paths:
        done = subprocess.run(["du", "-sxB1", path], capture_output=True, text=True, check=False)
        total += int(done.stdout.split()[0]) if done.stdout[:1].isdigit() else 0
    return total


def _ordinary(pid: int, target: str) -> bool:
    """Whether something under /dev is a plain file or socket, as in /dev/shm."""
    try:
        mode = Path(f"/proc/{pid}/root{target}").stat().st_mode
    except OSError:
        return True  # deleted: it was a file
    return not (0o020000 <= mode & 0o170000 <= 0o060000 and mode & 0o170000 != 0o040000)


def _open_files(pid: int) -> list[str]:
    found = []
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                found.append(str(Path(entry.path).readlink()))
            except OSError:
                continue
    except OSError:
        pass
    return found


def _name(pid: int) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()}, pid {pid}"
    except OSError:
        return f"pid {pid}"


def _resident_bytes(pid: int) -> int:
    try:
        anonymous = re.search(
            r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
        )
    except OSError:
        return 0
    return int(anonymous.group(1)) * 1024 if anonymous else 0


def _criu(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["criu", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as missing:
        return subprocess.CompletedProcess(arguments, 127, "", str(missing))


def _criu_version() -> str | None:
    found = re.search(r"Version: ([\d.]+)", _criu("--version").stdout)
    return found.group(1) if found else None


def _criu_check() -> str | None:
    done = _criu("check")
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
    return "; ".join(lines[:3]) or f"`criu check` ended with status {done.returncode}"


def main(controller: Controller) -> None:
    """Serve one controller."""
    handlers: dict[str, Callable[..., Any]] = {
        "host": host,
        "container": container,
        "exists": exists,
        "tree_bytes": tree_bytes,
    }
    serve(handlers, controller, lambda: None)
