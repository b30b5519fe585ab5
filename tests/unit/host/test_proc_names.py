"""Names that a container chooses do not pass for fields or lines of /proc, nor for other files."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent import proc
from sealift_agent.files import paths
from sealift_agent.files.enclosure import MS_BIND, Enclosure
from sealift_agent.files.opened import open_and_changed, written_through_mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = [
    *(
        "a b",
        "a\tb",
        "a\nb",
        "a\\b",
        "\\040",
        "\\012",
        "a - b",
        " - ",
        "a,b",
        "x (deleted)",
        "a\rb",
        "a\x0bb",
    ),
    *("a\u2028b", "a\x85b", "a\xa0b", "\udcff", "#", "1-2 rw-s 0 0:0 1 x", "x\r7f00-7f01 rw-s 00 00:01 9 y"),
]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and map_files need root"),
]


@pytest.fixture
def enclosure(tmp_path: Path) -> Iterator[Enclosure]:
    """A thread with mounts of its own."""
    made = Enclosure(tmp_path, {})
    yield made
    made.close()


def test_mounts_of_any_name_are_told_as_they_are(tmp_path: Path, enclosure: Enclosure) -> None:
    libc = ctypes.CDLL(None)

    def bind(origin: Path, point: Path) -> None:
        for place in (origin, point):
            place.mkdir(parents=True)
        assert not libc.mount(os.fsencode(origin), os.fsencode(point), None, MS_BIND, None)

    for name in NAMES:
        enclosure.run(bind, tmp_path / "origin" / name, tmp_path / "point" / name)
    found = enclosure.run(proc.mounts, "thread-self")
    shown = {mount.point: mount for mount in found}
    for name in NAMES:
        point = str(tmp_path / "point" / name)
        assert shown[point].root.endswith(f"/origin/{name}")
        assert list(paths._seen_from_here(shown[point], proc.mounts("self")))[-1].endswith(f"/origin/{name}")
    # The enclosure leaves out what would keep network namespaces of others in use.
    own = [mount for mount in proc.mounts("self") if mount.kind != "nsfs"]
    assert len(found) == len(own) + len(NAMES)


def test_the_layer_of_an_overlay_is_found_whatever_its_path(tmp_path: Path, enclosure: Enclosure) -> None:
    folder = tmp_path / "a data root,\nwith = signs"
    memory = folder / "memory"
    memory.mkdir(parents=True)
    libc = ctypes.CDLL(None)

    def overlay() -> bool:
        assert not libc.mount(b"tmpfs", os.fsencode(memory), b"tmpfs", 0, None)
        for name in ("lower", "upper one", "work", "shown"):
            (memory / name).mkdir()
        os.chdir(memory)  # commas in a path as it stands would end the option
        given = b"lowerdir=lower,upperdir=upper one,workdir=work"
        return libc.mount(b"overlay", os.fsencode(memory / "shown"), b"overlay", 0, given) == 0

    if not enclosure.run(overlay):
        pytest.skip("no overlay can be mounted here")
    options = [
        mount.options for mount in enclosure.run(proc.mounts, "thread-self") if mount.kind == "overlay"
    ]
    assert options[-1]["upperdir"] == "upper one"


def mapped(path: Path) -> mmap.mmap:
    with path.open("w+b") as file:
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_mapped_is_found_by_any_name(tmp_path: Path, name: str) -> None:
    with mapped(tmp_path / name):
        assert written_through_mappings([os.getpid()], {"tree": tmp_path}) == {"tree": {name}}


def test_what_is_mapped_under_a_name_that_is_gone_is_found_by_the_others(tmp_path: Path) -> None:
    with mapped(tmp_path / "a b"):
        (tmp_path / "folder").mkdir()
        os.link(tmp_path / "a b", tmp_path / "folder/other\n")
        (tmp_path / "a b").unlink()
        (tmp_path / "a b (deleted)").touch()  # which it is said to be
        assert written_through_mappings([os.getpid()], {"tree": tmp_path}) == {"tree": {"folder/other\n"}}


def test_a_file_that_took_a_mapped_one_s_name_is_another(tmp_path: Path) -> None:
    with mapped(tmp_path / "one"):
        (tmp_path / "one").rename(tmp_path / "two")
        (tmp_path / "one").touch()
        assert written_through_mappings([os.getpid()], {"tree": tmp_path}) == {"tree": {"two"}}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_open_and_was_changed_is_found_by_any_name(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("w") as file:
        file.write("x")
        file.flush()
        assert open_and_changed([os.getpid()], {"tree": tmp_path}, 0)["tree"] == {name}


@pytest.mark.parametrize("name", ["x\rNSpid:\t7", "x\x0bNSpid:\t7", "\udcff"])
def test_a_process_name_is_no_line_of_its_status(name: str) -> None:
    libc = ctypes.CDLL(None)
    before = Path("/proc/thread-self/comm").read_bytes().rstrip(b"\n")
    assert not libc.prctl(15, os.fsencode(name), 0, 0, 0)
    try:
        found = proc.lines("thread-self", "status")
    finally:
        libc.prctl(15, before, 0, 0, 0)
    assert [line for line in found if line.startswith("NSpid:")] == [f"NSpid:\t{os.getpid()}"]
