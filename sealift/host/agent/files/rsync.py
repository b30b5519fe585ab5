"""The container's files, from one host to the other: rsync through the tunnel.

The destination runs an rsync daemon for the time of one migration, bound to its tunnel address, with a password
made for it; each tree (writable layer, volume, bind mount, log) is one of its modules.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..criu import DIES_WITH_US
from ..wire import AgentError, listen
from .changes import TICK_NS, Changes, NotTold
from .opened import holds_lost, open_and_changed, written_through_mappings
from .walk import Stamp, stamps, touched_since

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Overlayfs notes on a file which lower file it was copied from, as a handle of this host's file system.
OVERLAY_NOTES = (
    "trusted.overlay.origin",
    "trusted.overlay.impure",
    "trusted.overlay.nlink",
    "trusted.overlay.uuid",
)
OPTIONS = ["-aHAXS", "--numeric-ids", "--modify-window=-1", "--stats", "--no-human-readable"]
OPTIONS += [f"--filter=-x {note}" for note in OVERLAY_NOTES]
LAYER = "layer"
"""The tree of the container's writable layer; the others are volumes and bind mounts."""

VANISHED = 24
"""rsync's exit status when a file went away while it looked: expected of a tree in use."""


class Daemon:
    """The receiving end. `modules` maps a module's name to the directory or file that it fills."""

    def __init__(self, directory: Path, address: str, password: str, modules: Mapping[str, str]) -> None:
        with listen(address) as probe:
            self.port = probe.getsockname()[1]
        secrets = directory / "rsyncd.secrets"
        secrets.touch(mode=0o600)
        secrets.write_text(f"sealift:{password}\n")
        lines = [
            "use chroot = yes",
            "reverse lookup = no",
            "uid = 0",
            "gid = 0",
            "read only = no",
            "list = no",
            "auth users = sealift",
        ]
        lines += [f"secrets file = {secrets}", f"lock file = {directory}/rsyncd.lock"]
        for name, path in modules.items():
            Path(path).mkdir(parents=True, exist_ok=True)
            lines += [f"[{name}]", f"path = {path}"]
        config = directory / "rsyncd.conf"
        config.write_text("\n".join(lines) + "\n")
        command = [
            *DIES_WITH_US,
            "rsync",
            "--daemon",
            "--no-detach",
            f"--config={config}",
            f"--address={address}",
        ]
        command += [f"--port={self.port}", f"--log-file={directory}/rsyncd.log"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        """Until it does, and not somebody who was quicker to take the port: rsync's client asks for no proof."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            if _listens(self.process.pid, self.port):
                return
            time.sleep(0.02)
        self.stop()
        raise AgentError("the rsync daemon did not start", "sync")

    def stop(self) -> None:
        """End it, and what it has started for each connection: one that is silent would keep its own for ever."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)


def _listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens at this port (proc(5), net/tcp: state 0A)."""
    ours = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed meanwhile
                ours.add(str(entry.readlink()))
    with Path("/proc/net/tcp").open() as table:
        for line in itertools.islice(table, 1, None):
            _, local, _, state, *rest = line.split()
            at_port = state == "0A" and int(local.rpartition(":")[2], 16) == port
            if at_port and f"socket:[{rest[5]}]" in ours:
                return True
    return False


class View(NamedTuple):
    """A container as this host sees it: its root, as a directory, and its processes."""

    root: Path
    processes: Sequence[int]


class Sender:
    """The sending end of one migration. With a `view` of the container what changes is told, not searched for."""

    def __init__(
        self,
        address: str,
        port: int,
        password: str,
        trees: Mapping[str, str],
        bandwidth: int | None = None,
        view: Callable[[], View] | None = None,
    ) -> None:
        self.view = view
        self.live_options = [f"--bwlimit={max(1, bandwidth // 1024)}"] if bandwidth else []
        self.target = f"rsync://sealift@{address}:{port}"
        self.environment = {**os.environ, "RSYNC_PASSWORD": password}
        self.trees = {name: Path(path) for name, path in trees.items()}
        self.suspects: dict[str, set[str]] = {}
        self._sent: dict[str, dict[str, Stamp]] | None = None
        self._changes: Changes | None = None
        self._mapped: set[str] = set()

    def live_pass(self) -> int:
        """Send what differs while the container runs. Returns the bytes sent."""
        started_ns = time.time_ns()
        self._watch()
        if self._changes is None:
            before = self._stamps()
            settled = all(
                stamp.ctime_ns < started_ns - TICK_NS for tree in before.values() for stamp in tree.values()
            )
            self._sent = before if settled else None
        sent = sum(
            self._end(name, self._start(name, f"{path}/", "--delete", *self.live_options))
            for name, path in self.trees.items()
        )
        self.suspects = {name: touched_since(path, started_ns - TICK_NS) for name, path in self.trees.items()}
        return sent

    def catch_up(self) -> int:
        """Another live pass if anything has changed since the last, so that the final one may have nothing to do."""
        unchanged = self._sent == self._stamps() if self._changes is None else self._changed() == {}
        return 0 if unchanged else self.live_pass()

    def _watch(self) -> None:
        """From now on, what changes is told; unless that can't be had, or a file is open that has lost its name."""
        self.close()
        if self.view is None:
            return
        view = self.view()
        # Of what is mapped now, a page that is dirty already may be written without a trace and then be mapped no more.
        self._mapped = written_through_mappings(view.processes)
        with contextlib.suppress(NotTold, OSError):
            self._changes = Changes(self.trees, {LAYER: view.root})
            if any(map(holds_lost, view.processes)):
                self.close()

    def _changed(self, processes: Sequence[int] = ()) -> dict[str, set[str]] | None:
        """What has changed since the last pass began; None if nobody can tell.

        With `processes`, also what they have open and have written by a shared mapping.
        """
        if self._changes is None:
            return None
        try:
            found = self._changes.names()
            for file in open_and_changed(processes, self._changes.since_ns):
                for name, path in self.trees.items():
                    if file.startswith(f"{path}/"):
                        found.setdefault(name, set()).add(os.path.relpath(file, path))
        except NotTold:
            self.close()
            return None
        return found

    def close(self) -> None:
        """Be told of changes no longer."""
        if self._changes is not None:
            self._changes.close()
        self._changes = self._sent = None

    def copy(self, module: str, files: Mapping[Path, str]) -> int:
        """Send single files, each under the name that it is to have. Returns the bytes sent."""
        return sum(
            self._end(module, self._start(module, str(path), *self.live_options, to=name))
            for path, name in files.items()
        )

    def final_pass(self, processes: Sequence[int]) -> int:
        """Send the rest of a frozen container's files, all trees at once.

        Size and time stamp don't tell a change from none in two cases, where contents are compared: a file written
        again in the kernel tick in which the last pass read it, and one written through a shared mapping.
        """
        mapped = self._mapped | written_through_mappings(processes)
        if (changed := self._changed(processes)) is not None:
            for name, path in self.trees.items():
                inside = {os.path.relpath(file, path) for file in mapped if file.startswith(f"{path}/")}
                if inside:
                    changed.setdefault(name, set()).update(inside)
            if not any(self._has_others(name, file) for name in changed for file in changed[name]):
                return self._send(changed)
        ours = any(file.startswith(f"{path}/") for file in mapped for path in self.trees.values())
        if not ours and self._sent == self._stamps():
            return (
                0  # two rsyncs and what they say to each other would take longer than all else in the freeze
            )
        for name, path in self.trees.items():
            inside = self.suspects.setdefault(name, set())
            inside |= {os.path.relpath(file, path) for file in mapped if file.startswith(f"{path}/")}
        running = [(name, self._start(name, f"{path}/", "--delete")) for name, path in self.trees.items()]
        for name, names in self.suspects.items():
            if existing := [n for n in sorted(names) if (self.trees[name] / n).exists()]:
                # In place: the other rsync on this tree would delete a temporary file, which it knows nothing of.
                again = ["--ignore-times", "--inplace", "--files-from=-", "--from0"]
                running.append((name, self._start(name, f"{self.trees[name]}/", *again, names=existing)))
        return sum(self._end(name, process) for name, process in running)

    def _has_others(self, tree: str, name: str) -> bool:
        """Whether a file has several names. One that is sent by itself would part from them."""
        try:
            seen = (self.trees[tree] / name).lstat()
        except OSError:
            return False
        return stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1

    def _send(self, changed: Mapping[str, set[str]]) -> int:
        """Send files by their names, all trees at once; what is gone here goes there, too. Returns the bytes sent."""
        named = ["--ignore-times", "--delete-missing-args", "--files-from=-", "--from0"]
        running = [
            (tree, self._start(tree, f"{self.trees[tree]}/", *named, names=sorted(names)))
            for tree, names in changed.items()
        ]
        return sum(self._end(tree, process) for tree, process in running)

    def _stamps(self) -> dict[str, dict[str, Stamp]]:
        return {name: stamps(path) for name, path in self.trees.items()}

    def _start(
        self, name: str, origin: str, *more: str, names: Sequence[str] = (), to: str = ""
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["rsync", *OPTIONS, *more, origin, f"{self.target}/{name}/{to}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            text=True,
            errors="surrogateescape",
        )
        if process.stdin is not None:  # it was asked for
            process.stdin.write("\0".join(names))
            process.stdin.close()
        return process

    def _end(self, name: str, process: subprocess.Popen[str]) -> int:
        output = process.stdout.read() if process.stdout is not None else ""
        if process.wait() not in {0, VANISHED}:
            last = [line for line in output.splitlines() if "rsync" in line][:3]
            raise AgentError(f"rsync of the {name} tree failed: {'; '.join(last) or output[-300:]}", "sync")
        found = re.search(r"Total bytes sent: (\d+)", output)
        return int(found.group(1)) if found else 0
