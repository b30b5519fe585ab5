"""The journal of migrations, at the gateway: who has to put what right if everybody else dies.

One file for each migration that is not over, one line for each transition, each line on disk before what it announces
is done. With the gateway's decision (`gateway.Routes`) it is all that `recover` needs. Whoever runs a migration holds
its file locked; the kernel takes the lock back when he dies, and only then may another one take over.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any

from . import codec, durable, locks
from .protocol import Noted, Unfinished
from .wire import AgentError

STATE = Path("/var/lib/sealift/gateway/migrations")
NOTHING = Noted()
KNOWN = {each.name for each in dataclasses.fields(Unfinished)}
_NAME = re.compile(r"[0-9A-Za-z-]{1,64}")

PHASES: dict[str | None, frozenset[str]] = {
    None: frozenset({"opened"}),
    "opened": frozenset({"copied", "closed"}),
    "copied": frozenset({"armed", "closed"}),
    "armed": frozenset({"closed"}),
    "closed": frozenset(),
}
"""What may follow what. `opened`: the destination is about to get a copy; `copied`: it is there, by its id; `armed`:
the hosts may ask for the decision at any time; `closed`: nothing of the migration is left but its outcome."""


class Journal:
    """All migrations that are not over. One object in each agent; the locks go with the process."""

    def __init__(self, state: Path = STATE) -> None:
        self.state = state
        self._held: dict[str, int] = {}

    def note(self, migration: str, phase: str, facts: Noted = NOTHING) -> None:
        """Write a transition down. From the first one on the migration is this process's."""
        path = self._path(migration)
        before = _read(path)
        if phase not in PHASES[before["phase"] if before else None]:
            there = before["phase"] if before else "not on record"
            raise AgentError(f"migration {migration} is {there}: it can't become {phase!r} now")
        if migration not in self._held and not self._take(path):
            raise AgentError(f"migration {migration} is in the hands of somebody else")
        if phase == "closed":
            path.unlink()
            self._sync()
            os.close(self._held.pop(migration))
            return
        noted = {name: fact for name, fact in codec.encode(facts).items() if fact is not None}
        line = json.dumps({"phase": phase, **noted}).encode() + b"\n"
        # A line that was cut off by a crash announced nothing that was done: the next one takes its place.
        os.ftruncate(self._held[migration], _whole(path))
        os.lseek(self._held[migration], 0, os.SEEK_END)
        _write(self._held[migration], line)
        os.fsync(self._held[migration])
        self._sync()

    def unfinished(self) -> list[Unfinished]:
        """All that are on record, oldest first, with all facts noted."""
        if not self.state.is_dir():
            return []
        found = []
        for path in sorted(self.state.glob("*.jsonl")):
            facts = _read(path)
            if facts is None:
                path.unlink(missing_ok=True)  # its first line was never whole: nothing had been done
                continue
            found.append(_unfinished(path.stem, self._somebody_holds(path), facts))
        return found

    def take(self, migration: str) -> bool:
        """Take over a migration whose holder has died; False while he lives."""
        path = self._path(migration)
        if migration in self._held:
            return True
        if not path.exists() or not self._take(path):
            return False
        if path.exists():
            return True
        os.close(self._held.pop(migration))  # whoever had it closed it meanwhile
        return False

    def let_go(self) -> list[str]:
        """The controller is gone: whoever comes may take over what is on record. Returns what this process had."""
        mine = list(self._held)
        while self._held:
            os.close(self._held.popitem()[1])
        return mine

    def is_open(self, migration: str) -> bool:
        """Whether it is on record still."""
        return self._path(migration).exists()

    def _take(self, path: Path) -> bool:
        durable.folder(self.state)
        handle = locks.take(path)
        if handle is None:
            return False
        self._held[path.stem] = handle
        return True

    def _somebody_holds(self, path: Path) -> bool:
        if path.stem in self._held:
            return True
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return not locks.try_lock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def _path(self, migration: str) -> Path:
        if not _NAME.fullmatch(migration):
            raise AgentError(f"{migration[:80]!r} is no migration's name")
        return self.state / f"{migration}.jsonl"

    def _sync(self) -> None:
        durable.sync(self.state)


def _unfinished(migration: str, held: bool, facts: dict[str, Any]) -> Unfinished:
    """Facts that only another version notes are left out."""
    known = {name: fact for name, fact in facts.items() if name in KNOWN}
    record = {**known, "migration": migration, "held": held}
    found: Unfinished = codec.decode(Unfinished, record, f"the journal of migration {migration}")
    return found


def _whole(path: Path) -> int:
    """Length of the file up to its last complete line."""
    return path.read_bytes().rfind(b"\n") + 1


def _read(path: Path) -> dict[str, Any] | None:
    """What a journal says: its last phase, and all facts of all phases. None without a complete line."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    facts: dict[str, Any] = {}
    for line in lines:
        facts.update(json.loads(line))
    return facts or None


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
