"""Names that CRIU needs for files that lost theirs: found by its images and /proc, made where the files are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from protobuf import field

from sealift_agent.files import links
from sealift_agent.files.opened import is_lost
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

REMAP, NEW_NAME, GHOST = 7, 8, 1


@pytest.fixture
def tree() -> Iterator[Path]:
    """A directory in a file system that has its files where it says, as an overlay's root has not."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture
def opened(tree: Path) -> Iterator[BinaryIO]:
    """A file that was opened as `below/first` and is called `second` by now."""
    (tree / "below").mkdir()
    with (tree / "below/first").open("w+b") as file:
        file.write(b"here")
        file.flush()
        os.link(tree / "below/first", tree / "second")
        (tree / "below/first").unlink()
        yield file


def image(path: Path, *messages: bytes) -> None:
    path.write_bytes(bytes(8) + b"".join(len(m).to_bytes(4, "little") + m for m in messages))


def dump(images: Path, tree: Path, kind: int = links.LINKED) -> None:
    """What CRIU writes of it, without the descriptors."""
    image(images / "remap-fpath.img", field(1, REMAP) + field(2, NEW_NAME) + field(3, kind))
    name = os.fsencode(tree / "below/link_remap.8")
    image(
        images / "files.img",
        field(1, 1)
        + field(2, REMAP)
        + field(3, field(1, REMAP) + field(6, os.fsencode(tree / "below/first"))),
        field(1, 1) + field(2, NEW_NAME) + field(3, field(1, NEW_NAME) + field(5, b"owner") + field(6, name)),
    )
    image(images / f"ids-{os.getpid()}.img", field(1, 1) + field(2, 5))


def test_a_file_by_its_descriptor(tmp_path: Path, tree: Path, opened: BinaryIO) -> None:
    dump(tmp_path, tree)
    image(
        tmp_path / "fdinfo-5.img",
        *(field(1, n) + field(4, fd) for n, fd in ((1, 0), (REMAP, opened.fileno()))),
    )
    found = links.needed(tmp_path, [os.getpid()], {"other": tree / "nowhere", "data": tree})
    assert found == [links.Link("data", "below/link_remap.8", "second")]


def test_what_lies_in_no_tree_is_not_ours(tmp_path: Path, tree: Path, opened: BinaryIO) -> None:
    dump(tmp_path, tree)
    image(tmp_path / "fdinfo-5.img", field(1, REMAP) + field(4, opened.fileno()))
    assert not links.needed(tmp_path, [os.getpid()], {"data": tree / "nowhere"})


def test_a_file_whose_content_is_in_the_images_needs_no_name(
    tmp_path: Path, tree: Path, opened: BinaryIO
) -> None:
    dump(tmp_path, tree, GHOST)
    image(tmp_path / "fdinfo-5.img", field(1, REMAP) + field(4, opened.fileno()))
    assert not links.needed(tmp_path, [os.getpid()], {"data": tree})


def test_a_dump_without_lost_names(tmp_path: Path, tree: Path) -> None:
    assert not links.needed(tmp_path, [os.getpid()], {"data": tree})


def test_a_file_whose_other_name_does_not_travel_stops_the_migration(
    tmp_path: Path, tree: Path, opened: BinaryIO
) -> None:
    dump(tmp_path, tree)
    image(tmp_path / "fdinfo-5.img", field(1, REMAP) + field(4, opened.fileno()))
    with pytest.raises(AgentError, match="no other name"):
        links.needed(tmp_path, [os.getpid()], {"data": tree / "below"})


def test_the_name_is_made_beside_the_file_that_has_come(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "second").write_text("here")
    (tmp_path / "below/link_remap.8").write_text("met half-way by rsync")
    links.make([links.Link("data", "below/link_remap.8", "second")], {"data": str(tmp_path)})
    assert (tmp_path / "below/link_remap.8").samefile(tmp_path / "second")


def test_other_name_is_told_from_none(tree: Path, opened: BinaryIO) -> None:
    handle = Path(f"/proc/{os.getpid()}/fd/{opened.fileno()}")
    assert is_lost(str(handle.readlink()), handle.stat())
    assert tree / "second" in links.other_names(os.getpid(), handle)
    (tree / "second").unlink()
    assert not is_lost(str(handle.readlink()), handle.stat())
