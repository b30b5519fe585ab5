"""A namespaced host: processes on this kernel, with namespaces of their own and the Debian tree as their root.

A host's mounts and interfaces exist as long as its processes. When its first process is killed, the kernel removes all
of them. Only its disk stays: the lab's switch process keeps it.
"""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MARK = "SEALIFT_LAB"
"""A variable in the environment of every process that a lab starts. `lab down` finds the processes by it."""

CGROUPS = Path("/sys/fs/cgroup")
READY_TIMEOUT_S = 20
SWITCH = "switch"
DISK = "disk"

KEEP_DISKS = """
while [ $# -gt 0 ]; do
	mkdir -p "$1"
	mount -t tmpfs -o "$2" disk "$1"
	shift 2
done
printf ready
exec sleep infinity >/dev/null 2>&1
"""

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child")


@dataclass(frozen=True)
class NamespacedHost:
    """A started host. `pid` is its first process, by its number outside of the host."""

    name: str
    process: subprocess.Popen[str]
    pid: int

    def release(self) -> None:
        """Let the host start its init. Its interfaces must exist."""
        if self.process.stdin is None:
            return
        with suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
        self.process.stdin.close()


def start(
    name: str,
    *,
    lower: str,
    directory: Path,
    mark: str,
    tmpfs_mib: int,
    docker: bool,
    switch: int,
    binds: Sequence[tuple[Path, str]] = (),
) -> NamespacedHost:
    """Start a host, up to the point where it waits for its interfaces. Raises CommandFailed if it does not get there.

    `lower` lists the overlay's layers, topmost first, separated by colons. `switch` is the process that keeps the
    host's disk. `binds` are pairs of a path outside and a path in the host.
    """
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        MARK: mark,
        "LOWER": lower,
        "HOST": name,
        "TMPFS_MIB": str(tmpfs_mib),
        "DISK": str(directory / DISK),
        "BINDS": " ".join(f"{here}:{there}" for here, there in binds),
        "SEALIFT_LAB_DOCKER": "yes" if docker else "no",
    }
    groups = " ".join(str(group) for group in _make_cgroups(name, mark))
    with as_file(files("sealift.lab") / "enter-host") as script:
        # The shell joins the host's control groups before the cgroup namespace is made, so they become its root.
        join = (
            f'for g in {groups}; do echo $$ >"$g/cgroup.procs"; done; exec nsenter --mount="$0" unshare "$@"'
        )
        process = subprocess.Popen(
            ["/bin/sh", "-c", join, f"/proc/{switch}/ns/mnt", *NAMESPACES, "/bin/sh", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(directory / "init.log").open("w"),
            text=True,
            env=environment,
            start_new_session=True,
        )
        pid = _wait_until_ready(name, process, directory)
    return NamespacedHost(name, process, pid)


def start_switch(mark: str, disks: Mapping[Path, int]) -> subprocess.Popen[bytes]:
    """Start the process that keeps two namespaces: of network for the lab's bridges, of mounts for its hosts' disks.

    `disks` maps a host's directory to the size of its disk in MiB. A disk's content stays when the host's processes
    end. Raises CommandFailed if the process does not start.
    """
    words = [
        word for directory, mib in disks.items() for word in (str(directory / DISK), f"size={mib}m,mode=755")
    ]
    process = subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-ec", KEEP_DISKS, "switch", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={MARK: mark, "HOST": SWITCH, "PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        start_new_session=True,
    )
    if process.stdout is not None and process.stdout.read(5) != b"ready":
        process.wait()
        raise CommandFailed("the lab's switch did not start", step="lab up")
    return process


def _wait_until_ready(name: str, process: subprocess.Popen[str], directory: Path) -> int:
    if process.stdout is None:  # never: Popen was given PIPE
        raise AssertionError
    readable, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT_S)
    line = process.stdout.readline().strip() if readable else ""
    process.stdout.close()
    if line != "ready":
        log = (directory / "init.log").read_text(errors="replace").strip()
        process.kill()
        raise CommandFailed(f"the namespaced host did not start: {log or 'it printed nothing'}", host=name)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def _controllers() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _cgroup_prefix(mark: str) -> str:
    """Labs with different run directories (and network namespaces) have different prefixes."""
    return f"sealift-{hashlib.sha256(mark.encode()).hexdigest()[:8]}-"


def _make_cgroups(name: str, mark: str) -> list[Path]:
    made = []
    for controller in _controllers():
        group = controller / f"{_cgroup_prefix(mark)}{name}"
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # A cpuset accepts processes only when both are set. On cgroup v1 both are empty at first.
            if controller != CGROUPS and (group / setting).exists():
                (group / setting).write_text((controller / setting).read_text())
        made.append(group)
    return made


def cgroups(mark: str, name: str = "") -> list[Path]:
    """The control groups of all namespaced hosts of a lab, or of one, the innermost first."""
    return [
        Path(directory)
        for controller in _controllers()
        for top in controller.glob(f"{_cgroup_prefix(mark)}{name or '*'}")
        for directory, _, _ in os.walk(top, topdown=False)
    ]


def marked_processes() -> dict[int, str]:
    """All processes that have a lab's mark, with its value.

    Anybody can set the mark. So a process also has to be in the lab's control groups, or run as this user with this
    root directory.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    if variable.startswith(f"{MARK}=".encode()):
                        mark = os.fsdecode(variable.partition(b"=")[2])
                        if _is_in_group(entry, mark) or _is_beside(entry):
                            found[int(entry.name)] = mark
    return found


def _is_in_group(process: Path, mark: str, name: str = "") -> bool:
    """Whether a process is in the control groups of a lab's hosts, or of one host. Only root can put it there."""
    beginning = f"{_cgroup_prefix(mark)}{name}".encode()
    parts = [part for line in (process / "cgroup").read_bytes().splitlines() for part in line.split(b"/")]
    return beginning in parts if name else any(part.startswith(beginning) for part in parts)


def _is_beside(process: Path) -> bool:
    """Whether a process is this user's and has this root directory, so that it is in no container."""
    return process.stat().st_uid == os.geteuid() and (process / "root").samefile("/")


def first_process(name: str, mark: str) -> int | None:
    """The first process of a lab's host, by its number outside of the host. None if the host does not run."""
    for pid in _processes_of(name, mark):
        with suppress(OSError):
            numbers = (
                Path(f"/proc/{pid}/status").read_bytes().partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
            )
            if len(numbers) > 1 and numbers[-1] == b"1" and _is_in_group(Path(f"/proc/{pid}"), mark, name):
                return pid
    return None


def switch_of(mark: str) -> int:
    """The process that keeps a lab's bridges and disks."""
    return next(pid for pid in _processes_of(SWITCH, mark) if _is_beside(Path(f"/proc/{pid}")))


def _processes_of(name: str, mark: str) -> Iterator[int]:
    for pid, value in marked_processes().items():
        if value == mark:
            with suppress(OSError):
                if f"HOST={name}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    yield pid
