"""A directory that keeps what the key server said, one file an address: shared by all runs on a machine.

What lies there is trusted no more than what a stranger sends, and is read anew each time: a page that once was kept in
a certificate's place counts as nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sealift.errors import UnusableInput
from sealift.files import read_bounded
from sealift.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

SIZE_LIMIT = 64 * 1024
_LOOK_S = 0.05


def default_folder() -> Path:
    """The cache that all runs on a machine share."""
    return cache_dir() / "kds"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one address."""

    file: Path

    @classmethod
    def of(cls, cache: Path, path: str) -> Entry:
        """That of a path: readable, and bound to the whole path whatever characters that has."""
        readable = re.sub(r"[^A-Za-z0-9]+", "_", path)[:80]
        return cls(cache / f"{readable}-{hashlib.sha256(path.encode()).hexdigest()[:16]}")

    def find(self, read: Callable[[bytes], T], *, since_ns: int = 0) -> T | None:
        """What is kept, if `read` takes it and it is not older; else None."""
        try:
            if self.file.stat().st_mtime_ns < since_ns:
                return None
            return read(read_bounded(self.file, SIZE_LIMIT))
        except (OSError, UnusableInput):
            return None

    def keep(self, content: bytes) -> None:
        """Keep it. Written aside and renamed: a reader never sees half a certificate."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.file.parent, delete=False) as aside:
                aside.write(content)
            Path(aside.name).chmod(0o644)  # certificates are public, temporary files are not
            Path(aside.name).replace(self.file)
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def alone(self, patience_s: float) -> Iterator[None]:
        """Hold off other runs that would fetch the same. After `patience_s` it goes on beside whoever hangs."""
        lock = self.file.with_name(f"{self.file.name}.lock")
        deadline = time.monotonic() + patience_s
        held = self._lock(lock)
        while held is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            held = self._lock(lock)
        try:
            yield
        finally:
            if held is not None:
                lock.unlink(missing_ok=True)
                os.close(held)

    def _lock(self, lock: Path) -> int | None:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it removed it: a lock on a file without a name holds nobody off.
            if os.fstat(handle).st_ino == lock.stat().st_ino:
                return handle
        except OSError:
            pass
        os.close(handle)
        return None

    def _unwritable(self, error: OSError) -> UnusableInput:
        return UnusableInput(
            f"the cache {self.file.parent} cannot be written: {error.strerror}",
            remedy="Name another with --cache or SEALIFT_CACHE",
        )
