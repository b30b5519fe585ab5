"""A directory with the key server's answers, one file for each address, which all runs on a machine share.

Its files are not trusted, and are parsed each time. A login page that was once kept instead of a certificate is
ignored.
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
_POLL_S = 0.05


def default_folder() -> Path:
    """The cache that all runs on a machine share."""
    return cache_dir() / "kds"


@dataclass(frozen=True, slots=True)
class Entry:
    """The cached answer of one address."""

    file: Path

    @classmethod
    def of(cls, cache: Path, path: str) -> Entry:
        """The entry of a path. Its file name is readable, and contains a hash of the whole path."""
        readable = re.sub(r"[^A-Za-z0-9]+", "_", path)[:80]
        return cls(cache / f"{readable}-{hashlib.sha256(path.encode()).hexdigest()[:16]}")

    def find(self, read: Callable[[bytes], T], *, since_ns: int = 0) -> T | None:
        """The cached answer, if `read` accepts it and it is not older than `since_ns`; else None."""
        try:
            if self.file.stat().st_mtime_ns < since_ns:
                return None
            return read(read_bounded(self.file, SIZE_LIMIT))
        except (OSError, UnusableInput):
            return None

    def keep(self, content: bytes) -> None:
        """Save an answer. It is written to a temporary file and renamed, so a reader never sees half a certificate."""
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
        """Make other runs wait that would fetch the same. After `patience_s` it proceeds without the lock."""
        lock = self.file.with_name(f"{self.file.name}.lock")
        deadline = time.monotonic() + patience_s
        held = self._lock(lock)
        while held is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
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
            # The last holder removed the file: a lock on a removed file excludes nobody.
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
