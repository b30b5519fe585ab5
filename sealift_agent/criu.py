"""How the agents start runc and CRIU, read their messages, and end them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import dumps, proc
from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SETTINGS = "CRIU_CONFIG_FILE"
"""The environment variable that names a file of settings in addition to the host's."""

NETWORK = "extRootNetNS"
"""The name by which a dump refers to a network namespace outside of it. runc uses the same word."""

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Programs of a migration end with the agent that started them, even if it is killed."""

STANDSTILL_S = 10
POLL_S = 1
"""Seconds without any progress after which a program is ended in the freeze, and seconds between two checks. Clients
wait meanwhile. Programs commonly give a connection up after 30 s and more."""


@contextlib.contextmanager
def end_of(process: subprocess.Popen[str]) -> Iterator[int]:
    """A descriptor that select(2) finds readable when a process ends."""
    handle = os.pidfd_open(process.pid)
    try:
        yield handle
    finally:
        os.close(handle)


def is_ready(process: subprocess.Popen[str], status: int) -> bool:
    """Wait until CRIU reports by its `--status-fd` that it listens. Returns False if it has ended instead.

    The pipe's end is no proof of that. While CRIU finds out what the kernel can do, it has a child that sleeps and has
    the pipe open, too (kerndat.c). If CRIU is killed then, the child stays. So the child is ended here.
    """
    with os.fdopen(status, "rb", buffering=0) as said, end_of(process) as ended:
        either: list[Any] = [said, ended]
        select.select(either, [], [])
        ready = bool(select.select([said], [], [], 0)[0] and said.read(1))
    if not ready:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return ready


class Progress:
    """Whether processes make progress: they use a processor, read or write, or a log or other file of theirs grows."""

    def __init__(self, log: Path | None, *pids: int, bound_s: float = STANDSTILL_S) -> None:
        self._pids, self._log, self._bound_s = pids, log, bound_s
        self._last: tuple[int, int] | None = None
        self._looked = self._since = time.monotonic()

    def stands_still(self) -> bool:
        """Whether nothing has changed for `bound_s`. It may be called at any time, and checks every `POLL_S`."""
        if time.monotonic() - self._looked < POLL_S:
            return False
        self._looked = time.monotonic()
        done = sum(_ticks(pid) + _transferred(pid) for first in self._pids for pid in tree(first))
        if (now := (done, _size(self._log) if self._log else 0)) != self._last:
            self._last, self._since = now, self._looked
        return self._looked - self._since > self._bound_s


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_bytes().split():
                found += tree(int(child))
    return found


def _ticks(pid: int) -> int:
    """Processor time of a process (proc(5), stat: utime and stime), in ticks."""
    _, fields = proc.stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _transferred(pid: int) -> int:
    """Bytes that a process has read and written (proc(5), io: rchar and wchar)."""
    with contextlib.suppress(OSError):
        return sum(int(line.split()[1]) for line in proc.lines(pid, "io")[:2])
    return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


CRIU_ROOT = re.compile(r"/tmp/\.criu\.mntns\.\w+")  # noqa: S108 - CRIU's name (criu/mount.c), read in its log


def kill_criu(directory: Path) -> list[int]:
    """Kill the CRIU that works in a directory (a child of the runc there) and the processes that it restores.

    Otherwise these processes would wait for CRIU forever, and runc for them. Returns the killed processes. A frozen one
    ends only when it is thawed.
    """
    children: dict[int, list[tuple[int, str]]] = {}
    for pid in proc.pids():
        name, fields = proc.stat(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append((pid, name))
    doomed = [
        pid for worker in dumps.workers(directory) for pid, name in children.get(worker, []) if name == "criu"
    ]
    for pid in doomed:  # the list grows: children come after their parents
        doomed += [child for child, _ in children.get(pid, [])]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return doomed


def clear_restore(container_id: str) -> None:
    """Remove what is left of a container that Docker has removed and does not know.

    A dockerd that dies during a start forgets the start. The processes and their shim in containerd go on, and the
    pipes for their output stay. A runc that is killed in a restore leaves the root that it mounted for CRIU. CRIU
    leaves the directory for the container's mounts, whose mount namespace is gone.
    """
    shutil.rmtree(Path("/run/docker/containerd") / container_id, ignore_errors=True)
    with contextlib.suppress(OSError):
        log = (Path("/run/sealift/restore") / container_id / "restore.log").read_text(errors="replace")
        for place in set(CRIU_ROOT.findall(log)):
            with contextlib.suppress(OSError):
                Path(place).rmdir()
    for state in _states(container_id):
        namespace = state.parent.name
        for words in (
            ["runc", "--root", str(state.parent), "delete", "--force", container_id],
            ["ctr", "--namespace", namespace, "tasks", "delete", "--force", container_id],
            ["ctr", "--namespace", namespace, "containers", "delete", container_id],
            ["umount", "--lazy", str(state / "criu-root")],
        ):
            subprocess.run(words, check=False, capture_output=True)
        shutil.rmtree(state, ignore_errors=True)


def _states(container_id: str) -> Iterator[Path]:
    """Where runc keeps the state of one of Docker's containers: runtime-NAME/NAMESPACE/ID.

    The namespace is Docker's in containerd: `moby`, or `moby-UID.GID` with `userns-remap` (moby, cmd/dockerd).
    """
    return Path("/run/docker").glob(f"runtime-*/*/{container_id}")


def runtime_root(container_id: str) -> Path:
    """The directory in which Docker's runtime keeps this container's state, for `runc --root`."""
    for state in _states(container_id):
        return state.parent
    raise AgentError(f"Docker's runtime has no container {container_id[:12]}, so it does not run")


def descriptors(container_id: str) -> list[str]:
    """The targets of the container's standard descriptors, which runc needs for a restore (`descriptors.json`)."""
    state = runtime_root(container_id) / container_id / "state.json"
    found: list[str] = json.loads(state.read_text())["external_descriptors"]
    return found


def first_process(container_id: str) -> int:
    """The first process of a running container, as Docker's runtime knows it."""
    state = runtime_root(container_id) / container_id / "state.json"
    return int(json.loads(state.read_text())["init_process_pid"])


def forget_checkpoint(container_id: str) -> None:
    """Remove runc's record of a dump, for a container that runs on."""
    with contextlib.suppress(AgentError):  # it has ended
        (runtime_root(container_id) / container_id / "checkpoint").unlink(missing_ok=True)


def checkpoint(
    container_id: str,
    images: Path,
    *options: str,
    env: dict[str, str] | None = None,
    freezer: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Start `runc checkpoint`. Returns the process. `finish` waits for it.

    `freezer` is the group that CRIU uses as the container's freezer group, of control groups version 1.
    """
    images.mkdir(parents=True, exist_ok=True)
    root = runtime_root(container_id)
    if freezer is not None:
        root = _root_with(container_id, freezer)
    command = ["runc", "--root", str(root), "checkpoint", "--image-path", str(images)]
    command += ["--work-path", str(images), "--tcp-established", "--file-locks", *options, container_id]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**(env or os.environ), **_asked(images, options)},
        pass_fds=pass_fds,
    )


ASKED = "asked.places"
"""The file, beside the images of a dump, that lists what CRIU has asked the page server for: see `interposed.c`."""


def _asked(images: Path, options: Sequence[str]) -> dict[str, str]:
    """Where the library in CRIU finds what the round before has asked for, and notes what this one asks for."""
    before = ""
    if "--parent-path" in options:
        before = str(images / options[options.index("--parent-path") + 1] / ASKED)
    return {"SEALIFT_ASKED": str(images / ASKED), "SEALIFT_ASKED_BEFORE": before}


def _root_with(container_id: str, freezer: Path) -> Path:
    """Copy runc's state of the container and change its freezer group, which CRIU takes from there."""
    root = freezer.with_name("runc")
    state = json.loads((runtime_root(container_id) / container_id / "state.json").read_text())
    state["cgroup_paths"]["freezer"] = str(freezer)
    (root / container_id).mkdir(parents=True, mode=0o700)
    (root / container_id / "state.json").write_text(json.dumps(state))
    return root


def finish(process: subprocess.Popen[str], step: str, log: Path, *, bounded: bool = False) -> None:
    """Wait for a checkpoint or page server. If it fails, AgentError has CRIU's own reason.

    If it is `bounded`, it is killed when it makes no progress.
    """
    progress, output = Progress(log, process.pid), None
    while output is None:
        try:
            output, _ = process.communicate(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            if bounded and progress.stands_still():
                process.kill()
                raise AgentError(f"CRIU has stood still for {STANDSTILL_S} s", step) from None
    if process.returncode != 0:
        raise AgentError(reason(log) or output.strip()[-500:] or f"exit status {process.returncode}", step)


STAMP = re.compile(r"^\(\d+\.\d+\)")
NO_CONNECTION = "Can't connect to server"
HARMLESS = re.compile(r"RLIMIT_NOFILE|Unable to detach from \d+: No such process")
"""CRIU calls these errors, but they are none. Without CAP_SYS_RESOURCE it can't raise its own limit of open files.
If it gives up before it has stopped a process, it still tries to detach from it."""

ABSENT = re.compile(r"No (\S+) image$")
NAMELESS = "(empty-image)"
"""CRIU reads a missing image as an empty one, and then says that it ends too early."""


def reason(log: Path) -> str:
    """CRIU's first lines of error in a log, or an empty string."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    errors = []
    absent = NAMELESS
    for line in lines:
        if found := ABSENT.search(line):
            absent = found[1]
        if ("Error" in line or NO_CONNECTION in line) and not HARMLESS.search(line):
            why = STAMP.sub("", line.split("Error ", 1)[-1]).strip()
            errors.append(why.replace(NAMELESS, absent))
    return "; ".join(errors[:3])


def page_server(images: Path, connection: int, previous: Path | None = None) -> subprocess.Popen[str]:
    """Start CRIU's page server for one dump on a connected socket. It ends by itself when the whole dump has come."""
    images.mkdir(parents=True, exist_ok=True)
    command = [*DIES_WITH_US, "criu", "page-server", "--images-dir", str(images)]
    command += ["--ps-socket", str(connection), "-o", "page-server.log", "-v1"]
    if previous is not None:
        command += ["--prev-images-dir", os.path.relpath(previous, images)]
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [*command, "--status-fd", str(write_end)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=[write_end, connection],
        start_new_session=True,
    )
    os.close(write_end)
    if not is_ready(process, read_end):
        finish(process, "transfer", images / "page-server.log")
        raise AgentError("the page server ended before it was ready", "transfer")
    return process
