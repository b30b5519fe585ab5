"""A container's control groups: which processes are in it, and freezing them, on cgroup v1 and v2.

On v1 a process that a signal has stopped can't be traced while it is frozen: ptrace(2) waits for it to change from
stopped to traced, and it does not leave the freezer for that. CRIU, which traces what it dumps, waits with it. So such
processes are set aside, in a group beside the container's that is not frozen; who could have them go on is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import proc
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path("/sys/fs/cgroup")
FREEZE_TIMEOUT_S = 5
EMPTY_TIMEOUT_S = 2

PROCESSES = "cgroup.procs"

OWN = re.compile(r"(/.*)?/(docker-)?[0-9a-f]{64}(\.scope)?(?=/|$)")
"""The path of a container's own group, as Docker names it."""

ASIDE = ".stopped"
"""What the name of the group beside a container's ends in."""

STARTING = {"kernel_clone", "wait_for_vfork_done", "_do_fork"}
"""Where in the kernel a thread waits that has called vfork(2) (kernel/fork.c, by versions)."""

START_S = 0.002
ASK_AGAIN_S = 0.003

STOPPED = "do_signal_stop"
"""Where in the kernel a stopped process waits (proc(5), wchan). Its state does not tell any more once it is frozen."""


def paths(pid: int) -> dict[str, str]:
    """A process's groups by their controllers, as proc(5) has them; that of version 2 under the empty name.

    None once it has ended.
    """
    lines = (line.split(":", 2) for line in proc.lines(pid, "cgroup"))
    return {controllers: path for _, controllers, path in lines}


def is_first_version() -> bool:
    """Whether Docker uses version 1: a hierarchy for each controller."""
    return not (ROOT / "cgroup.controllers").exists()


def own(path: str) -> str | None:
    """The path of the container's own group, for a process in it or further inside. None if Docker made none."""
    found = OWN.match(path)
    return None if found is None else found[0]


def of_process(pid: int) -> Path:
    """The freezer group of a process's container, as a directory. ProcessLookupError once it has ended."""
    groups = paths(pid)
    if not groups:
        raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")
    path = groups["freezer"].removesuffix(ASIDE) if "freezer" in groups else groups[""]
    return (ROOT / "freezer" if "freezer" in groups else ROOT) / (own(path) or path).lstrip("/")


def pids(group: Path) -> list[int]:
    """All processes of a group and of the groups in it, and those that are set aside."""
    return _listed(group, "cgroup.procs") + _listed(_aside(group), "cgroup.procs")


def freeze(group: Path) -> None:
    """Freeze and wait until the kernel says that all are frozen. Polls tightly: every turn is downtime.

    Frozen between vfork(2) and the child's exec, a process can't be traced, and its child has its memory: no dump takes
    that. It is over in no time, so they run on for that, and are frozen again.
    """
    deadline = time.monotonic() + FREEZE_TIMEOUT_S
    while True:
        _freeze(group, deadline)
        if not _is_starting_another(group):
            return
        thaw(group)
        if time.monotonic() > deadline:
            raise AgentError(f"a process in {group} is starting another and does not end that", "final dump")
        time.sleep(START_S)


def _is_starting_another(group: Path) -> bool:
    """Whether a thread waits for the process that it has made with vfork(2), or posix_spawn(3)."""
    threads = _listed(group, "tasks" if (group / "tasks").exists() else "cgroup.threads")
    return any(proc.read(thread, "wchan") in STARTING for thread in threads)


def _freeze(group: Path, deadline: float) -> None:
    """Ask again and again: version 1 signals each thread once, when it is asked.

    One that is on its way into the wait of vfork(2) then sleeps without noticing the signal, and its child, which alone
    could wake it, is frozen (kernel 6.18: freezer_read does not look at who is not frozen yet, wait_for_vfork_done
    sleeps killable). Asked again, the kernel freezes it in its sleep.
    """
    _write(group, frozen=True)
    asked = time.monotonic()
    while not is_frozen(group):
        if time.monotonic() - asked > ASK_AGAIN_S:
            _write(group, frozen=True)
            asked = time.monotonic()
        if time.monotonic() > deadline:
            thaw(group)
            raise AgentError(
                f"the processes in {group} did not freeze within {FREEZE_TIMEOUT_S} s", "final dump"
            )
        time.sleep(0.0005)


def thaw(group: Path) -> None:
    """Let them run again, and have them all in one group; one that is gone needs nothing."""
    with _that_may_go():
        _write(group, frozen=False)
    _take_back(group)


def stopped(group: Path) -> list[int]:
    """Processes of a group of version 1, not frozen yet, that a signal has stopped."""
    if not (group / "freezer.state").exists():
        return []
    return [pid for pid in pids(group) if proc.stat(pid)[1][:1] == ["T"]]


def stand_in(group: Path, directory: Path) -> Path:
    """Make a directory that CRIU can take for the freezer group of all processes; freezing it freezes the real one."""
    directory.mkdir()
    (directory / "freezer.state").symlink_to(group / "freezer.state")
    return directory


def set_aside(group: Path, stopped: Sequence[int], directory: Path) -> None:
    """Of a frozen group of version 1, take those out that were stopped before and still are, until `thaw`.

    `directory`, as `stand_in` has made it, gets a list of all: CRIU traces who is listed.
    """
    aside = _aside(group)
    aside.mkdir(exist_ok=True)
    for pid in stopped:
        if proc.read(pid, "wchan") == STOPPED:
            with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                (aside / "cgroup.procs").write_text(str(pid))
    threads = _listed(group, "tasks") + _listed(aside, "tasks")
    (directory / "tasks").write_text("".join(f"{thread}\n" for thread in threads))


def is_frozen(group: Path) -> bool:
    """Whether the kernel has all of its processes frozen."""
    state = group / "freezer.state"
    if state.exists():
        return state.read_text().strip() == "FROZEN"
    return "frozen 1" in (group / "cgroup.events").read_text()


def kill_frozen(group: Path) -> None:
    """Kill the processes of a frozen group without letting one of them run another instruction.

    A frozen process on cgroup v1 dies only after thawing, but it dies before it returns to user space.
    """
    for pid in pids(group):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def of_container(container: str) -> list[Path]:
    """The groups that Docker has made for a container, by its id: one, or one for each controller (version 1)."""
    names = {container, f"docker-{container}.scope"}
    return [Path(place, name) for place, inner, _ in os.walk(ROOT) for name in names.intersection(inner)]


def named_in_bundle(path: str) -> list[Path]:
    """The groups that a bundle's `linux.cgroupsPath` names: one, or one for each controller (version 1).

    It is a path below the root, or `SLICE:PREFIX:NAME` with the driver of systemd (runc, docs/systemd.md).
    """
    if path.count(":") == 2:
        parent, prefix, name = path.split(":")
        path = f"{_slice(parent)}/{prefix}-{name}.scope"
    inner = path.strip("/")
    return [top / inner for top in _tops()]


def _tops() -> list[Path]:
    if not is_first_version():
        return [ROOT]
    return [
        top for top in ROOT.iterdir() if top.is_dir() and not top.is_symlink() and (top / "tasks").exists()
    ]


def of_bundle(path: str) -> list[Path]:
    """Make the groups that a bundle names: see `named_in_bundle`."""
    groups = named_in_bundle(path)
    for group in groups:
        for place in reversed([group, *group.parents]):
            if place == ROOT or ROOT in place.parents:
                place.mkdir(exist_ok=True)
                fill(place)
    return groups


def fill(place: Path) -> None:
    """On version 1 a new group takes no process without processors and memory."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if is_first_version() and (place / setting).exists() and not (place / setting).read_text().strip():
            (place / setting).write_text((place.parent / setting).read_text())


def put(pid: int, group: Path) -> None:
    """Move a process into a group, of one controller with version 1."""
    (group / PROCESSES).write_text(str(pid))


def beside(group: Path, own: dict[str, str]) -> Path:
    """The group that a process with the groups `own` (`paths`) has in the same hierarchy as `group`."""
    top = group.relative_to(ROOT).parts[0]
    for controllers, path in own.items():
        if controllers and top in {controllers, controllers.removeprefix("name="), *controllers.split(",")}:
            return ROOT / top / path.lstrip("/")
    return ROOT / own[""].lstrip("/")


def _slice(name: str) -> str:
    """The path of a slice of systemd's: `a-b.slice` is in `a.slice` (systemd.slice(5))."""
    stem = (name or "system.slice").removesuffix(".slice")
    if stem == "-":  # the root
        return ""
    words = stem.split("-")
    return "/".join("-".join(words[: end + 1]) + ".slice" for end in range(len(words)))


def end_container(container: str, timeout_s: float) -> int:
    """Kill what Docker has forgotten of a container that it has removed, and remove its groups.

    Returns how many processes there were. AgentError if they do not end.
    """
    deadline = time.monotonic() + timeout_s
    seen: set[int] = set()
    groups = of_container(container)
    while left := {pid for group in groups for pid in pids(group)}:
        if time.monotonic() > deadline:
            raise AgentError(f"processes of the copy do not end: {sorted(left)}", "finish")
        seen |= left
        for group in groups:
            kill_frozen(group)
            with contextlib.suppress(OSError):  # not one of the freezer's, or gone
                if is_frozen(group):
                    thaw(group)
        time.sleep(0.02)
    for group in groups:
        for place, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # Docker's runtime has been faster, or needs it still
                Path(place).rmdir()
    return len(seen)


def _aside(group: Path) -> Path:
    return group.with_name(group.name + ASIDE)


def _take_back(group: Path) -> None:
    aside = _aside(group)
    deadline = time.monotonic() + EMPTY_TIMEOUT_S
    while aside.is_dir() and time.monotonic() < deadline:
        for pid in _listed(aside, "cgroup.procs"):
            with contextlib.suppress(OSError):  # it has just ended
                (group / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):  # one that was killed is not gone yet
            aside.rmdir()
            return
        time.sleep(0.005)


def _listed(group: Path, file: str) -> list[int]:
    found: list[int] = []
    for directory, _, names in os.walk(group):
        if file in names:
            with _that_may_go():
                found += [int(line) for line in (Path(directory) / file).read_text().split()]
    return found


@contextlib.contextmanager
def _that_may_go() -> Iterator[None]:
    """A group is removed when its last process has ended: its files are gone then, or if they are open, no device."""
    try:
        yield
    except OSError as gone:
        if gone.errno not in {errno.ENOENT, errno.ENODEV}:
            raise


def _write(group: Path, *, frozen: bool) -> None:
    state = group / "freezer.state"
    if state.exists():
        state.write_text("FROZEN" if frozen else "THAWED")
    else:
        (group / "cgroup.freeze").write_text("1" if frozen else "0")
