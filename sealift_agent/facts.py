"""What a host is and has, and what a container on it uses: the raw material of the preflight."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import (
    cgroup,
    confinement,
    criu,
    docker_api,
    interposed,
    layers,
    limits,
    processes,
    protocol,
    volume_marks,
    writable_layer,
)
from .files import kinds, silent, trapped
from .memory import dirty
from .network import firewall, link, own
from .orders import Orders
from .protocol import ContainerFacts, HostFacts, LinkSample, Role, Surveyed
from .wire import AgentError, Controller

WRAPPERS = ("runtime", "restore", "armed/criu", "armed/tar")
"""Programs of ours that a host must have, in /usr/libexec/sealift."""


def host() -> HostFacts:
    """Kernel, CRIU, CPU, memory and space of this host."""
    cpu = re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    docker = Path("/var/lib/docker")
    return HostFacts(
        kernel=os.uname().release,
        machine=os.uname().machine,
        cpu_flags=sorted(cpu.group(1).split()) if cpu else [],
        memory_available_bytes=int(memory["MemAvailable"]) * 1024,
        disk_free_bytes=shutil.disk_usage(docker if docker.exists() else "/").free,
        cgroup=2 if (cgroup.ROOT / "cgroup.controllers").exists() else 1,
        profiles=confinement.profiles(),
        selinux=confinement.selinux(),
        huge_free_bytes=_huge_free_bytes(),
        criu=_criu_version(),
        criu_problem=_criu_check(),
        dirty_tracking=_criu("check", "--feature", "mem_dirty_track").returncode == 0,
        lazy=_criu("check", "--feature", "uffd").returncode == 0,
        rsync=shutil.which("rsync") is not None,
        guarded=firewall.is_loaded(),
        wrapper=all(os.access(f"/usr/libexec/sealift/{name}", os.X_OK) for name in WRAPPERS),
        interposable=interposed.obtainable(),
        droppable=processes.can_be_dropped(),
    )


def container(container: str) -> ContainerFacts:
    """What the processes of a running container hold that matters for a dump, and how large they are."""
    described = docker_api.call("GET", f"/containers/{container}/json")
    init = described["State"]["Pid"]
    pids = cgroup.pids(cgroup.of_process(init))
    return ContainerFacts(
        uses=processes.examine(pids, init, criu.descriptors(container)),
        limits_unreadable=limits.unreadable(pids) and not interposed.obtainable(),
        network=own.added(init, described),
    )


def survey(container: str, tracked: bool, endpoint: protocol.Endpoint | None) -> Surveyed:
    """What the container's processes dirty (`dirty.sample`), and meanwhile what the link to `endpoint` carries."""
    with ThreadPoolExecutor(1) as pool:
        rate = pool.submit(link.send, endpoint.address, endpoint.port, endpoint.token) if endpoint else None
        found = dirty.sample(container, tracked)
    try:
        return Surveyed(found, rate.result() if rate is not None else LinkSample())
    except AgentError as failed:
        return Surveyed(found, LinkSample(problem=str(failed)))


def tree_bytes(paths: list[str]) -> int:
    """How much directories and single files hold, in bytes on disk."""
    total = 0
    for path in paths:
        if Path(path).is_file():
            total += Path(path).stat().st_blocks * 512
            continue
        told = _told_of(path, "du", "-sxB1")
        total += int(told.split()[0]) if told[:1].isdigit() else 0
    return total


def too_deep(paths: list[str], name_bytes: int) -> list[str]:
    """Which of the directories hold a file whose name, relative to them, is longer than that."""
    found = []
    for path in paths:
        least = name_bytes // 256  # a slash and a name of 255 bytes
        names = _told_of(path, "find", "-xdev", "-mindepth", str(least), "-printf", "%P\\0")
        if any(len(name) > name_bytes for name in names.split(b"\0")):
            found.append(path)
    return found


def _told_of(path: str, *command: str) -> bytes:
    """What a program says of a directory, read so that nobody is told who watches it. Empty if there is none."""
    try:
        with silent.tree(path) as top:
            process = trapped.start(
                command,
                silently=trapped.obtainable(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=f"/proc/self/fd/{top}",
            )
            said, _ = process.communicate()
    except OSError:
        return b""
    return said


def _huge_free_bytes() -> int:
    """Free huge pages of all sizes; what may be added to them on demand counts too."""
    total = 0
    for pool in Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        size = int(pool.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        free, reserved = (int((pool / f"{word}_hugepages").read_text()) for word in ("free", "resv"))
        more = int((pool / "nr_overcommit_hugepages").read_text())
        total += max(0, free - reserved + more) * size
    return total


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
    orders = Orders(Role.FACTS)
    orders.on(protocol.DescribeHost, lambda _: host())
    orders.on(protocol.DescribeContainer, lambda order: container(order.container))
    orders.on(protocol.Survey, lambda order: survey(order.container, order.tracked, order.endpoint))
    orders.on(protocol.ReceiveRate, lambda order: link.receive(order.address))
    orders.on(protocol.FindLayer, lambda order: writable_layer.find(order.container))
    orders.on(protocol.DescribePaths, lambda order: kinds.describe(order.paths))
    orders.on(protocol.DescribeVolumes, lambda order: volume_marks.describe(order.names))
    orders.on(protocol.CountLayers, lambda order: layers.present(order.layers))
    orders.on(protocol.LayerBytes, lambda order: layers.sizes(order.layers))
    orders.on(protocol.TreeBytes, lambda order: tree_bytes(order.paths))
    orders.on(protocol.TooDeep, lambda order: too_deep(order.paths, order.name_bytes))
    orders.serve(controller, lambda: None)
