"""Send the container's files from one host to the other, by rsync through the tunnel. `daemon` is the receiving end."""

from __future__ import annotations

import contextlib
import os
import re
import select
import stat
import subprocess
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import held
from ..constants import SINGLE
from ..criu import POLL_S, STANDSTILL_S, Progress
from ..wire import AgentError
from . import beneath, trapped
from .changes import TICK_NS, Changes, NotTold, is_of_a_dump
from .enclosure import Enclosure
from .opened import holds_lost, open_and_changed, written_through_mappings
from .walk import Stamp, stamps, touched_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# Overlayfs stores these attributes on a file: they name the lower file that it was copied from, by a handle of this
# host's file system.
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

PARTIAL, VANISHED = 23, 24
"""Rsync's exit statuses if not everything could be sent, and if only files that had disappeared were missing."""

COMPLAINT = re.compile(r"^(rsync: |ERROR: |(file|directory) has vanished: )")
RACE = re.compile(
    r"^(file|directory) has vanished: |failed verification|\[sender\] read errors mapping"
    r"|\[sender\] .*\((2|20|21|40|61|116)\)$|\[generator\] link .*\(2\)$"
)
"""Rsync's complaints if a program truncates, replaces or removes a file while it is read: ENOENT, ENOTDIR, EISDIR,
ELOOP, ENODATA and ESTALE (errno(3)). The change came after the pass had begun, so a later pass sends the file
again."""

MOVED = re.compile(r"\[sender\] .*\((20|40)\)$")
"""A directory was replaced, perhaps by a link, which is never followed. Names do not describe this change."""

FROZEN_RACE = re.compile(r"^(file|directory) has vanished: ")
"""During a dump CRIU makes names and removes them (`links`). And a volume may have users outside the container."""

SENT = re.compile(r"^Total bytes sent: (\d+)$", re.MULTILINE)
SAID_BYTES = 500
"""Bytes of a complaint that are passed on, since names in it may have any length."""

LIVE_STANDSTILL_S = 60
"""Seconds without progress after which a pass is ended while the container runs. In the freeze it is `STANDSTILL_S`."""


class View(NamedTuple):
    """A container as this host sees it: its root, as a directory, and its processes."""

    root: Path
    processes: Sequence[int]


class Sender:
    """The sending end of one migration. `directory` belongs to it alone.

    With a `view` of the container the kernel reports changes. Without it the trees are searched.
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
        self._silently = False
        self.live_options = [f"--bwlimit={max(1, bandwidth // 1024)}"] if bandwidth else []
        self.target = f"rsync://sealift@{address}:{port}"
        self.environment = {**os.environ, "RSYNC_PASSWORD": password, "LC_ALL": "C"}
        # A tree may be named by a link. The kernel shows the real names of open and mapped files.
        self.trees = {name: Path(os.path.realpath(path)) for name, path in trees.items()}
        self.suspects: dict[str, set[str]] = {}
        self._enclosure = Enclosure(directory, trees)
        self._roots = self._enclosure.roots
        self._sent: dict[str, dict[str, Stamp]] | None = None
        self._changes: Changes | None = None
        self._mapped: dict[str, set[str]] = {}

    def live_pass(self) -> int:
        """Send what differs while the container runs. Returns the bytes sent."""
        self._be_silent()
        return self._enclosure.run(self._live_pass)

    def _be_silent(self) -> None:
        """Read without events from now on if the container watches any files."""
        if self.view is not None and not self._silently:
            watching = held.notifiers(held.descriptors(self.view().processes))
            self._silently = bool(watching) and trapped.obtainable() and self._enclosure.cover()

    def _live_pass(self) -> int:
        started_ns = time.time_ns()
        self._watch()
        if self._changes is None:
            before = self._stamps()
            settled = all(
                stamp.ctime_ns < started_ns - TICK_NS for tree in before.values() for stamp in tree.values()
            )
            self._sent = before if settled else None
        # Removals are also sent if some file could not be read, since a later pass may get only names.
        options = ["--delete", "--ignore-errors", *self.live_options]
        sent = sum(self._end([(name, self._start(name, "./", *options))], live=True) for name in self._roots)
        self.suspects = {
            name: touched_since(path, started_ns - TICK_NS) for name, path in self._roots.items()
        }
        return sent

    def catch_up(self) -> int:
        """Make another live pass if anything has changed since the last, so that less is left for the final one."""
        self._be_silent()
        return self._enclosure.run(self._catch_up)

    def _catch_up(self) -> int:
        unchanged = self._sent == self._stamps() if self._changes is None else self._changed() == {}
        return 0 if unchanged else self._live_pass()

    def _watch(self) -> None:
        """Let the kernel report changes from now on, unless it can't, or a file is open that has lost its name."""
        self._forget()
        if self.view is None:
            return
        view = self.view()
        # A page that is mapped and dirty now may be written again and unmapped without a report.
        self._mapped = written_through_mappings(view.processes, self.trees)
        with contextlib.suppress(NotTold, OSError):
            self._changes = Changes(self._roots, {LAYER: view.root})
            if any(map(holds_lost, view.processes)):
                self._forget()

    def _changed(self, processes: Sequence[int] = ()) -> dict[str, set[str]] | None:
        """What has changed since the last pass began; None if that is unknown.

        With `processes`, this includes open files that have changed, and files that they may write through a shared
        mapping.
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
        """End the reports of changes and the private mounts."""
        self._forget()
        self._enclosure.close()

    def _forget(self) -> None:
        if self._changes is not None:
            self._changes.close()
        self._changes = self._sent = None

    def copy(self, module: str, files: Mapping[Path, str]) -> int:
        """Send single files under the given names. Links are followed. Returns the bytes sent."""
        return sum(
            self._end(
                [(module, self._start(module, str(path), "-L", *self.live_options, to=name))], live=True
            )
            for path, name in files.items()
        )

    def final_pass(self, processes: Sequence[int]) -> int:
        """Send the rest of a frozen container's files, all trees at once. Returns the bytes sent.

        In two cases size and time stamp do not show a change, so the contents are compared: a file was written again in
        the kernel tick of the last pass, or it was written through a shared mapping.
        """
        return self._enclosure.run(self._final_pass, processes)

    def _final_pass(self, processes: Sequence[int]) -> int:
        mapped = _together(self._mapped, _lasting(written_through_mappings(processes, self.trees)))
        if (changed := self._changed(processes)) is not None:
            changed = _together(changed, mapped)
            if not any(self._has_others(name, changed[name]) for name in changed):
                return self._send(changed)
        if not mapped and self._sent == self._stamps():
            return 0  # two rsyncs and their exchange would take longer than everything else in the freeze
        running = [(name, self._start(name, "./", "--delete")) for name in self._roots]
        for name, names in _together(self.suspects, mapped).items():
            if existing := [file for file, _ in self._files(name, names)]:
                # In place, since the other rsync on this tree would delete an unknown temporary file.
                again = ["--ignore-times", "--inplace", "--files-from=-", "--from0"]
                running.append((name, self._start(name, "./", *again, names=existing)))
        return self._end(running)

    def _has_others(self, tree: str, names: set[str]) -> bool:
        """Whether a file has several names. If it were sent alone, it would be separated from its other names."""
        return any(seen.st_nlink > 1 for _, seen in self._files(tree, names))

    def _files(self, tree: str, names: set[str]) -> Iterator[tuple[str, os.stat_result]]:
        """The names that belong to plain files, and the files' status."""
        with beneath.tree(self._roots[tree]) as top:
            for name in sorted(names):
                with contextlib.suppress(OSError):
                    if stat.S_ISREG((seen := beneath.lstat(top, name)).st_mode):
                        yield name, seen

    def _send(self, changed: Mapping[str, set[str]]) -> int:
        """Send files by name, all trees at once. Names that are gone here are removed there. Returns the bytes sent."""
        named = ["--ignore-times", "--delete-missing-args", "--files-from=-", "--from0"]
        running = [
            (tree, self._start(tree, "./", *named, names=sorted(names))) for tree, names in changed.items()
        ]
        return self._end(running)

    def _stamps(self) -> dict[str, dict[str, Stamp]]:
        return {name: stamps(path) for name, path in self._roots.items()}

    def _start(
        self, name: str, origin: str, *more: str, names: Sequence[str] = (), to: str = ""
    ) -> subprocess.Popen[bytes]:
        # It is a file, not a pipe. An rsync that waits for its peer would not read the pipe, and the writer would wait,
        # too.
        with os.fdopen(os.memfd_create("names"), "w+b") as listed:
            # Rsync takes a line that begins with `#` or `;` as a comment, with --from0, too.
            listed.write(b"\0".join(b"./" + os.fsencode(each) for each in names))
            listed.seek(0)
            # Nothing can be renamed to a mount point.
            in_place = ["--inplace"] if name.startswith(SINGLE) else []
            return trapped.start(
                ["rsync", *OPTIONS, *in_place, *more, origin, f"{self.target}/{name}/{to}"],
                silently=self._silently and name in self._roots,
                stdin=listed,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self._roots.get(name),
            )

    def _end(self, running: Sequence[tuple[str, subprocess.Popen[bytes]]], *, live: bool = False) -> int:
        """Wait for all of them. Returns the bytes sent.

        If one fails or makes no progress, ends all and raises AgentError.

        While the container is `live`, files may change during the transfer.
        """
        total = 0
        try:
            for name, process in running:
                said = _said(name, process, live=live)
                if any(map(MOVED.search, said.split("\n"))):
                    self._forget()
                found = SENT.findall(said)
                total += int(found[-1]) if found else 0
        finally:
            for _, process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return total


def _said(name: str, process: subprocess.Popen[bytes], *, live: bool) -> str:
    """Wait for an rsync, and return its output. AgentError if it fails or makes no progress."""
    bound_s = LIVE_STANDSTILL_S if live else STANDSTILL_S
    said = b""
    progress = Progress(None, process.pid, bound_s=bound_s)
    assert process.stdout is not None  # noqa: S101 - stdout is a pipe
    with process.stdout as output:
        while True:
            if select.select([output], [], [], POLL_S)[0]:
                if not (chunk := os.read(output.fileno(), 1 << 16)):
                    break
                said += chunk
            elif progress.stands_still():
                raise AgentError(f"rsync of the {name} tree has stood still for {bound_s} s", "sync")
    lines = os.fsdecode(said).split("\n")
    status = process.wait()
    if status and not (status in {PARTIAL, VANISHED} and _is_no_failure(lines, live=live)):
        words = ("rsync", "overflows")
        why = [each[:SAID_BYTES] for each in lines if COMPLAINT.match(each) or any(w in each for w in words)]
        raise AgentError(
            f"rsync of the {name} tree failed: {'; '.join(why[:3]) or os.fsdecode(said[-300:])}", "sync"
        )
    return os.fsdecode(said)


def _is_no_failure(lines: Sequence[str], *, live: bool) -> bool:
    """Whether all complaints of rsync are normal for a tree that is in use, or frozen."""
    allowed = RACE if live else FROZEN_RACE
    complaints = [line for line in lines if COMPLAINT.match(line)]
    return bool(complaints) and all(allowed.search(line) for line in complaints)


def _lasting(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the names that CRIU makes during a dump, which may be gone before they are sent."""
    lasting = {tree: {name for name in names if not is_of_a_dump(name)} for tree, names in found.items()}
    return {tree: names for tree, names in lasting.items() if names}


def _together(*found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """All names of each tree."""
    return {tree: set().union(*(one.get(tree, set()) for one in found)) for tree in {*chain(*found)}}
