"""The container's files, from one host to the other: rsync through the tunnel.

The destination runs an rsync daemon for the time of one migration, bound to its tunnel address, with a password
made for it; each tree (writable layer, volume, bind mount, log) is one of its modules.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import subprocess
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..criu import DIES_WITH_US
from ..wire import AgentError, listen
from . import beneath
from .changes import TICK_NS, Changes, NotTold
from .enclosure import Enclosure
from .opened import holds_lost, open_and_changed, written_through_mappings
from .walk import Stamp, stamps, touched_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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

VANISHED, PARTIAL = 24, 23
"""rsync's exit status when a file went away while it looked: expected of a tree in use; and when something failed."""

FAILED = re.compile(r"^rsync: .*\((\d+)\)$", re.MULTILINE)
""""rsync: [sender] opendir "/run/layer/a" failed: Not a directory (20)"; a name's own line ends are escaped."""

SENT = re.compile(r"^Total bytes sent: (\d+)$", re.MULTILINE)


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
            "auth users = sealift",
        ]
        lines += [f"secrets file = {secrets}", f"lock file = {directory}/rsyncd.lock"]
        # By links, whose names are ours: a path of the host's may hold what the file of settings has other uses for.
        (places := directory / "modules").mkdir()
        for name, path in modules.items():
            Path(path).mkdir(parents=True, exist_ok=True)
            (places / name).symlink_to(path)
            lines += [f"[{name}]", f"path = {places / name}"]
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
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._wait_until_it_listens(address)

    def _wait_until_it_listens(self, address: str) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection((address, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AgentError("the rsync daemon did not start", "sync")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class View(NamedTuple):
    """A container as this host sees it: its root, as a directory, and its processes."""

    root: Path
    processes: Sequence[int]


class Sender:
    """The sending end of one migration, which has a directory of its own.

    With a `view` of the container what changes is told, not searched for.
    """

    def __init__(
        self,
        address: str,
        port: int,
        password: str,
        trees: Mapping[str, str],
        directory: Path,
        bandwidth: int | None = None,
        view: Callable[[], View] | None = None,
    ) -> None:
        self.view = view
        self.live_options = [f"--bwlimit={max(1, bandwidth // 1024)}"] if bandwidth else []
        self.target = f"rsync://sealift@{address}:{port}"
        self.environment = {**os.environ, "RSYNC_PASSWORD": password}
        self.trees = {name: Path(path) for name, path in trees.items()}
        self.suspects: dict[str, set[str]] = {}
        self._enclosure = Enclosure(directory, trees)
        self._roots = self._enclosure.roots
        self._sent: dict[str, dict[str, Stamp]] | None = None
        self._changes: Changes | None = None
        self._mapped: dict[str, set[str]] = {}

    def live_pass(self) -> int:
        """Send what differs while the container runs. Returns the bytes sent."""
        return self._enclosure.run(self._live_pass)

    def _live_pass(self) -> int:
        started_ns = time.time_ns()
        self._watch()
        if self._changes is None:
            before = self._stamps()
            settled = all(
                stamp.ctime_ns < started_ns - TICK_NS for tree in before.values() for stamp in tree.values()
            )
            self._sent = before if settled else None
        sent = sum(
            self._end(name, self._start(name, "./", "--delete", *self.live_options), live=True)
            for name in self._roots
        )
        self.suspects = {
            name: touched_since(path, started_ns - TICK_NS) for name, path in self._roots.items()
        }
        return sent

    def catch_up(self) -> int:
        """Another live pass if anything has changed since the last, so that the final one may have nothing to do."""
        return self._enclosure.run(self._catch_up)

    def _catch_up(self) -> int:
        unchanged = self._sent == self._stamps() if self._changes is None else self._changed() == {}
        return 0 if unchanged else self._live_pass()

    def _watch(self) -> None:
        """From now on, what changes is told; unless that can't be had, or a file is open that has lost its name."""
        self._forget()
        if self.view is None:
            return
        view = self.view()
        # Of what is mapped now, a page that is dirty already may be written without a trace and then be mapped no more.
        self._mapped = written_through_mappings(view.processes, self.trees)
        with contextlib.suppress(NotTold, OSError):
            self._changes = Changes(self._roots, {LAYER: view.root})
            if any(map(holds_lost, view.processes)):
                self._forget()

    def _changed(self, processes: Sequence[int] = ()) -> dict[str, set[str]] | None:
        """What has changed since the last pass began; None if nobody can tell.

        With `processes`, also what they have open and have written by a shared mapping.
        """
        if self._changes is None:
            return None
        try:
            found = self._changes.names()
            return _together(found, open_and_changed(processes, self.trees, self._changes.since_ns))
        except NotTold:
            self._forget()
            return None

    def begin_dump(self) -> None:
        """The container is frozen, and a dump is about to begin."""
        if self._changes is not None:
            self._changes.begin_dump()

    def close(self) -> None:
        """Be told of changes no longer, and see the trees no longer."""
        self._forget()
        self._enclosure.close()

    def _forget(self) -> None:
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
        return self._enclosure.run(self._final_pass, processes)

    def _final_pass(self, processes: Sequence[int]) -> int:
        mapped = _together(self._mapped, written_through_mappings(processes, self.trees))
        if (changed := self._changed(processes)) is not None:
            changed = _together(changed, mapped)
            if not any(self._has_others(name, changed[name]) for name in changed):
                return self._send(changed)
        if not mapped and self._sent == self._stamps():
            return (
                0  # two rsyncs and what they say to each other would take longer than all else in the freeze
            )
        running = [(name, self._start(name, "./", "--delete")) for name in self._roots]
        for name, names in _together(self.suspects, mapped).items():
            if existing := [file for file, _ in self._files(name, names)]:
                # In place: the other rsync on this tree would delete a temporary file, which it knows nothing of.
                again = ["--ignore-times", "--inplace", "--files-from=-", "--from0"]
                running.append((name, self._start(name, "./", *again, names=existing)))
        return sum(self._end(name, process) for name, process in running)

    def _has_others(self, tree: str, names: set[str]) -> bool:
        """Whether a file has several names. One that is sent by itself would part from them."""
        return any(seen.st_nlink > 1 for _, seen in self._files(tree, names))

    def _files(self, tree: str, names: set[str]) -> Iterator[tuple[str, os.stat_result]]:
        """Those of the names that are a plain file's, and what it looks like."""
        with beneath.tree(self._roots[tree]) as top:
            for name in sorted(names):
                with contextlib.suppress(OSError):
                    if stat.S_ISREG((seen := beneath.lstat(top, name)).st_mode):
                        yield name, seen

    def _send(self, changed: Mapping[str, set[str]]) -> int:
        """Send files by their names, all trees at once; what is gone here goes there, too. Returns the bytes sent."""
        named = ["--ignore-times", "--delete-missing-args", "--files-from=-", "--from0"]
        running = [
            (tree, self._start(tree, "./", *named, names=sorted(names))) for tree, names in changed.items()
        ]
        return sum(self._end(tree, process) for tree, process in running)

    def _stamps(self) -> dict[str, dict[str, Stamp]]:
        return {name: stamps(path) for name, path in self._roots.items()}

    def _start(
        self, name: str, origin: str, *more: str, names: Sequence[str] = (), to: str = ""
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["rsync", *OPTIONS, *more, origin, f"{self.target}/{name}/{to}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=self._roots.get(name),
        )
        if process.stdin is not None:  # it was asked for
            with contextlib.suppress(BrokenPipeError):  # it has ended: its output says why
                # A line that begins with `#` or `;` is a comment to rsync, with --from0, too.
                process.stdin.write(b"\0".join(b"./" + os.fsencode(name) for name in names))
                process.stdin.close()
        return process

    def _end(self, name: str, process: subprocess.Popen[bytes], *, live: bool = False) -> int:
        """Wait for one. In a live pass it may have missed what was taken away under its hands: then names don't do."""
        output = os.fsdecode(process.stdout.read() if process.stdout is not None else b"")
        status = process.wait()
        why = {int(number) for number in FAILED.findall(output)}
        if live and status == PARTIAL and why and why <= {*beneath.RACES}:
            self._forget()
        elif status not in {0, VANISHED}:
            last = [line[:500] for line in output.split("\n") if "rsync" in line or "overflows" in line][:3]
            raise AgentError(f"rsync of the {name} tree failed: {'; '.join(last) or output[-300:]}", "sync")
        found = SENT.findall(output)
        return int(found[-1]) if found else 0


def _together(*found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """All names of each tree."""
    return {tree: set().union(*(one.get(tree, set()) for one in found)) for tree in {*chain(*found)}}
