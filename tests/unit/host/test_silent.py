"""Files are read, by this process and by programs that it starts, and who watches them is told nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from sealift_agent import libc, restored_watches, unread
from sealift_agent.files import beneath, silent, trapped
from sealift_agent.files.enclosure import Enclosure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    found = tmp_path / "tree"
    (found / "below").mkdir(parents=True)
    (found / "below" / "file").write_text("content")
    return found


@pytest.fixture
def watched(tree: Path) -> Iterator[int]:
    """An inotify that is told all of the tree."""
    handle = libc.call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)
    for place in (tree, tree / "below", tree / "below" / "file"):
        libc.call("inotify_add_watch", handle, os.fsencode(place), 0xFFF)
    yield handle
    os.close(handle)


def told(handle: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(handle, 1 << 16)
    return b""


def read_all(top: int) -> bytes:
    assert [name for name, _, _ in beneath.walk(top)] == ["", "below/"]
    opened = beneath.opened(top, "below/file", os.O_RDONLY)
    try:
        return os.read(opened, 100)
    finally:
        os.close(opened)


def test_a_tree_is_read_without_events(tree: Path, watched: int) -> None:
    with silent.tree(str(tree)) as top:
        assert read_all(top) == b"content"
        assert told(watched) == b""
    with beneath.tree(tree) as top:
        read_all(top)
    assert told(watched), "the test would see events"


def test_a_tree_is_read_without_events_as_a_process_sees_it(tree: Path, watched: int) -> None:
    with silent.view(os.getpid(), str(tree)) as top:
        assert read_all(top) == b"content"
    assert told(watched) == b""


def test_what_may_not_be_opened_is_still_an_error(tree: Path) -> None:
    with silent.tree(str(tree)) as top, pytest.raises(FileNotFoundError):
        beneath.opened(top, "below/nothing", os.O_RDONLY)


@pytest.mark.parametrize("silently", [True, False])
def test_a_program_reads_without_events_if_it_is_to_be_silent(
    tree: Path, watched: int, tmp_path: Path, silently: bool
) -> None:
    enclosure = Enclosure(tmp_path / "private", {"tree": str(tree)})
    try:
        if silently:
            assert enclosure.cover()

        def copy() -> tuple[int, bytes]:
            process = trapped.start(
                ["cp", "-R", ".", str(tmp_path / "copy")],
                silently=silently,
                cwd=enclosure.roots["tree"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            said, _ = process.communicate(timeout=30)
            return process.returncode, said

        assert enclosure.run(copy) == (0, b"")
    finally:
        enclosure.close()
    assert (tmp_path / "copy" / "below" / "file").read_text() == "content"
    assert (told(watched) == b"") is silently


def test_a_trapped_program_is_told_what_can_t_be_opened(tree: Path) -> None:
    done = trapped.start(
        ["cat", "nothing", "below/file"],
        silently=True,
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    said, complaint = done.communicate(timeout=30)
    assert said == b"content"
    assert b"nothing: No such file or directory" in complaint


def test_a_restored_queue_is_emptied(tree: Path, watched: int) -> None:
    (tree / "below" / "file").read_text()
    assert unread.size(watched)
    restored_watches.empty([os.getpid()])
    assert not unread.size(watched)
