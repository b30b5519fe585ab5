"""The tar that CRIU packs file systems in memory with (`armed/tar`): what it brings over, when it starts nothing."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from importlib import resources
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.root

SHIMS = str(resources.files("sealift.machine") / "files/usr/libexec/sealift/armed")
CREATE = (
    *("--create", "--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links"),
    *("--preserve-permissions", "--sparse", "--numeric-owner", "--directory"),
)
"""CRIU's words (criu/filesystems.c), but for the directory."""

EXTRACT = ("--extract", "--gzip", "--no-unquote", "--no-wildcards", "--directory")
WRITTEN_NS, READ_NS = 1_700_000_000_123_456_789, 1_600_000_000_987_654_321
CAPABILITY = bytes.fromhex("0100000200040000" + 12 * "00")
"""linux/capability.h, vfs_cap_data: CAP_NET_BIND_SERVICE, in force."""

ACL = bytes.fromhex(
    "02000000 01000700ffffffff 02000500e8030000 04000500ffffffff 10000700ffffffff 20000000ffffffff"
)
"""acl(5), as linux/posix_acl_xattr.h has it: user 1000 may read and execute."""

HOLE_BYTES = 1 << 30


@pytest.fixture
def there(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two empty file systems in memory."""
    with ExitStack() as mounted:
        places = tmp_path / "source", tmp_path / "destination"
        for place in places:
            place.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "strictatime", "none", place], check=True)
            mounted.callback(subprocess.run, ["umount", place], check=True)
        yield places


def tar(words: Sequence[str], path: str = os.environ["PATH"], **files: int) -> None:
    subprocess.run([f"{SHIMS}/tar", *words], check=True, env={"PATH": f"{SHIMS}:{path}"}, **files)


def move(source: Path, destination: Path, archive: Path) -> None:
    """As CRIU does it: the directory is its standard input, or the archive."""
    place = os.open(source, os.O_RDONLY)
    with archive.open("wb") as packed:
        tar([*CREATE, "/proc/self/fd/0", "."], stdin=place, stdout=packed.fileno())
    os.close(place)
    with archive.open("rb") as packed:
        tar([*EXTRACT, str(destination)], stdin=packed.fileno())


def fill(root: Path) -> None:
    """One of everything that a file system in memory holds."""
    for name in ("plain", "capable", "set-id", "listed", "n" * 255, "\udcff\n=*\\n", "-dash"):
        (root / name).write_bytes(b"x")
    os.chown(root / "plain", 70_000, 3_000_000)
    (root / "set-id").chmod(0o6755)
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(root / "capable", "trusted.any", b"1\0=")
    (root / "inner").mkdir(mode=0o1777)
    (root / "empty").mkdir()
    os.setxattr(root / "listed", "system.posix_acl_access", ACL)
    os.setxattr(root / "inner", "system.posix_acl_default", ACL)
    os.link(root / "plain", root / "inner/again")
    (root / "inner/link").symlink_to("/etc/passwd")
    (root / "inner/dangling").symlink_to("../nowhere")
    os.mkfifo(root / "inner/fifo", 0o604)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"x")
        sparse.truncate(HOLE_BYTES)
    deep = root
    for _ in range(5):
        deep = deep / ("d" * 100)
        deep.mkdir()
    for order, path in enumerate([*sorted(root.rglob("*"), reverse=True), root]):
        os.utime(path, ns=(READ_NS + order, WRITTEN_NS + order), follow_symlinks=False)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """All that is to be known of what is in there, by name; looked at before anything is read."""
    seen = {}
    for path in [root, *sorted(root.rglob("*"))]:
        info = path.lstat()
        kept = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        # rglob reads directories, and readlink links.
        read = info.st_atime_ns if path.is_file() and not path.is_symlink() else 0
        leads = str(path.readlink()) if path.is_symlink() else ""
        size = 0 if path.is_dir() else info.st_size
        seen[str(path.relative_to(root))] = (
            *(info.st_mode, info.st_uid, info.st_gid, info.st_nlink, size, info.st_rdev),
            *(info.st_mtime_ns, read, leads, kept),
        )
    return seen


def test_all_of_a_file_system_in_memory_comes_over_with_its_times(
    there: tuple[Path, Path], tmp_path: Path
) -> None:
    source, destination = there
    fill(source)
    before = listing(source)
    move(source, destination, tmp_path / "archive")
    assert listing(source) == before
    assert listing(destination) == before
    assert (destination / "sparse").stat().st_blocks * 512 < HOLE_BYTES >> 10
    assert (destination / "plain").samefile(destination / "inner/again")


def test_the_root_of_the_file_system_keeps_what_it_has(there: tuple[Path, Path], tmp_path: Path) -> None:
    source, destination = there
    source.chmod(0o1770)
    os.chown(source, 7, 8)
    os.utime(source, ns=(READ_NS, WRITTEN_NS))
    move(source, destination, tmp_path / "archive")
    info = destination.stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o1770, 7, 8)
    assert (info.st_atime_ns, info.st_mtime_ns) == (READ_NS, WRITTEN_NS)


def test_what_is_empty_and_read_only_starts_no_program(there: tuple[Path, Path], tmp_path: Path) -> None:
    source, destination = there
    subprocess.run(["mount", "-o", "remount,ro", source], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tar").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "bin/tar").chmod(0o755)
    place = os.open(source, os.O_RDONLY)
    with (tmp_path / "archive").open("w+b") as packed:
        tar([*CREATE, "/proc/self/fd/0", "."], f"{tmp_path}/bin", stdin=place, stdout=packed.fileno())
        tar([*EXTRACT, str(destination)], f"{tmp_path}/bin", stdin=packed.fileno())
    os.close(place)
    assert (tmp_path / "archive").stat().st_size == 0
