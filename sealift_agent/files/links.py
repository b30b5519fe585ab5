"""Files that are open by a name that was removed, while they have another name.

For the time of a dump CRIU (`link-remap`) gives such a file a name, `link_remap.N` in the directory of the removed one.
It removes the name if the processes live on. A restore needs this name: the destination makes it as a hard link to the
other name, which was transferred. CRIU removes it when the file is open.

Numbers of fields are those of CRIU's images/*.proto.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import proc
from ..images import messages
from ..protobuf import fields
from ..wire import AgentError
from . import beneath
from .opened import other_names
from .paths import host_paths, mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ORIGINAL, NEW, TYPE, LINKED = 1, 2, 3, 0  # remap_file_path_entry
FILE_ID, FILE, FILE_NAME = 2, 3, 6  # file_entry, reg_file_entry
TABLE = 2  # task_kobj_ids_entry: files_id
DESCRIPTOR_ID, DESCRIPTOR = 1, 4  # fdinfo_entry
PROGRAM, MAPPINGS = 12, 14  # mm_entry
START, END, MAPPED_ID = 1, 2, 4  # vma_entry


class Link(NamedTuple):
    """A name that CRIU needs, and another name of the same file. Both are relative to the tree `tree`."""

    tree: str
    name: str
    other: str


def needed(images: Path, pids: Sequence[int], trees: Mapping[str, Path]) -> list[Link]:
    """The names that a dump of these frozen processes has made, in the trees that are transferred.

    Files of a file system in memory are in the images.
    """
    wanted = dict(_remaps(images))
    if not wanted:
        return []
    names = dict(_file_names(images))
    found = {}
    for number, pid, handle in _held(images, pids):
        if number in wanted and number not in found:
            found[number] = list(_links(pid, handle, names[wanted[number]], trees))
    return [link for links in found.values() for link in links]


def _links(pid: int, handle: Path, name: str, trees: Mapping[str, Path]) -> Iterator[Link]:
    for path in host_paths(name, mounts(pid)):
        for tree, root in trees.items():
            if not path.startswith(f"{root}/"):
                continue
            other = next((path for path in other_names(pid, handle) if path.is_relative_to(root)), None)
            if other is None:
                raise AgentError(
                    f"{handle.readlink()} has no other name in the files that are transferred", "final dump"
                )
            yield Link(tree, os.path.relpath(path, root), str(other.relative_to(root)))
            return


def _remaps(images: Path) -> Iterator[tuple[int, int]]:
    """The number of each file that was given a name, and the number of the entry that has the name."""
    for message in messages(images / "remap-fpath.img"):
        entry = dict(fields(message))
        if entry.get(TYPE, LINKED) == LINKED:
            yield int(entry[ORIGINAL]), int(entry[NEW])


def _file_names(images: Path) -> Iterator[tuple[int, str]]:
    for message in messages(images / "files.img"):
        entry = dict(fields(message))
        if isinstance(file := entry.get(FILE), bytes):
            name = dict(fields(file)).get(FILE_NAME, b"")
            yield int(entry[FILE_ID]), os.fsdecode(name if isinstance(name, bytes) else b"")


def _held(images: Path, pids: Sequence[int]) -> Iterator[tuple[int, int, Path]]:
    """A file's number in the images, and its entry in /proc: an open file, a mapped file, or the program itself."""
    for pid in pids:
        inside = proc.number_inside(pid)
        for kinds in messages(images / f"ids-{inside}.img"):
            table = int(dict(fields(kinds))[TABLE])
            for message in messages(images / f"fdinfo-{table}.img"):
                entry = dict(fields(message))
                yield int(entry[DESCRIPTOR_ID]), pid, Path(f"/proc/{pid}/fd/{int(entry[DESCRIPTOR])}")
        for memory in messages(images / f"mm-{inside}.img"):
            for number, value in fields(memory):
                if number == PROGRAM:
                    yield int(value), pid, Path(f"/proc/{pid}/exe")
                elif number == MAPPINGS and isinstance(value, bytes):
                    area = dict(fields(value))
                    place = f"{int(area[START]):x}-{int(area[END]):x}"
                    yield int(area[MAPPED_ID]), pid, Path(f"/proc/{pid}/map_files/{place}")


def make(links: Sequence[Link], trees: Mapping[str, str]) -> None:
    """Make the names at the destination. `trees` has the directories of the trees."""
    for link in links:
        with contextlib.ExitStack() as stack:
            top = stack.enter_context(beneath.tree(trees[link.tree]))
            there, name = stack.enter_context(_place(top, link.name))
            here, other = stack.enter_context(_place(top, link.other))
            with contextlib.suppress(FileNotFoundError):  # a pass of rsync during the dump may have sent it
                os.unlink(name, dir_fd=there)
            os.link(other, name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)


@contextlib.contextmanager
def _place(top: int, name: str) -> Iterator[tuple[int, str]]:
    """The open directory of a name, and its last part. No link is followed, since the container has made both."""
    above, _, last = name.rpartition("/")
    with beneath.directory(top, above) as handle:
        yield handle, last
