"""What has changed in trees of files is told by name, or it is said that names do not tell it."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent.files import changes, rsync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a/b").mkdir(parents=True)
    for name in ("a/one", "a/two", "a/b/three", "linked"):
        (root / name).write_text(name)
    os.link(root / "linked", root / "a/linked too")
    return root


@pytest.fixture
def told(tree: Path) -> Iterator[changes.Changes]:
    found = changes.Changes({"layer": tree}, {})
    yield found
    found.close()


def test_nothing_has_changed_as_long_as_files_are_only_read(told: changes.Changes, tree: Path) -> None:
    (tree / "a/one").read_text()
    list((tree / "a").iterdir())
    assert told.names() == {}


def test_files_are_told_by_what_is_done_to_them(told: changes.Changes, tree: Path) -> None:
    (tree / "a/one").write_text("again")
    (tree / "a/two").unlink()
    (tree / "a/b/new").write_text("new")
    (tree / "a/b/three").chmod(0o600)
    assert told.names() == {"layer": {"a/one", "a/two", "a/b/new", "a/b/three"}}
    os.utime(tree / "a/b", ns=(1, 1))
    os.truncate(tree / "a/b/new", 1)
    (tree / "a/one").rename(tree / "renamed")
    assert told.names() == {"layer": {"a/one", "a/two", "a/b/new", "a/b/three", "a/b", "renamed"}}


def test_a_file_that_was_written_aside_and_put_in_place_is_told(told: changes.Changes, tree: Path) -> None:
    (tree / "a/.one").write_text("again")
    (tree / "a/.one").replace(tree / "a/one")
    assert told.names() == {"layer": {"a/one", "a/.one"}}


def test_what_was_written_through_a_mapping_is_told_when_it_is_closed(tree: Path) -> None:
    time.sleep(2 * changes.TICK_NS / 1e9)
    told = changes.Changes({"layer": tree}, {})
    (tree / "a/two").open("r+b").close()
    with (tree / "a/one").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert told.names() == {}
    mapped[:1] = b"w"
    mapped.close()
    assert told.names() == {"layer": {"a/one"}}
    told.close()


def make_directory(tree: Path) -> None:
    (tree / "new").mkdir()


def remove_directory(tree: Path) -> None:
    (tree / "a/b/three").unlink()
    (tree / "a/b").rmdir()


def move_directory(tree: Path) -> None:
    (tree / "a/b").rename(tree / "b")


def write_to_a_file_of_two_names(tree: Path) -> None:
    (tree / "linked").write_text("again")


def give_a_file_a_second_name(tree: Path) -> None:
    os.link(tree / "a/one", tree / "one more")


def write_to_a_file_that_lost_its_name(tree: Path) -> None:
    with (tree / "linked").open("a") as file:
        (tree / "linked").unlink()
        (tree / "linked").write_text("another one")
        file.write("more")


def overflow(tree: Path) -> None:
    for number in range(20_000):
        (tree / f"a/{number}").touch()


@pytest.mark.parametrize(
    "change",
    [
        make_directory,
        remove_directory,
        move_directory,
        write_to_a_file_of_two_names,
        give_a_file_a_second_name,
        write_to_a_file_that_lost_its_name,
        overflow,
    ],
)
def test_what_names_do_not_tell_is_said(
    told: changes.Changes, tree: Path, change: Callable[[Path], None]
) -> None:
    change(tree)
    with pytest.raises(changes.NotTold):
        told.names()


def test_a_file_that_had_lost_its_name_before_is_not_missed(tree: Path) -> None:
    with (tree / "linked").open("a", buffering=1) as file:
        (tree / "linked").unlink()
        told = changes.Changes({"layer": tree}, {})
        file.write("more\n")
        with pytest.raises(changes.NotTold):
            told.names()
        told.close()


def test_names_of_a_dump_are_none_of_the_container_s(told: changes.Changes, tree: Path) -> None:
    (tree / "a/link_remap.6").write_text("a program's own")
    told.begin_dump()
    os.link(tree / "a/one", tree / "a/link_remap.7")
    (tree / "a/link_remap.7").unlink()
    assert told.names() == {"layer": {"a/link_remap.6"}}


def test_trees_are_told_apart_also_where_one_is_seen_in_another(tmp_path: Path) -> None:
    for name in ("layer/inside", "volume", "shown"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shown/inside").symlink_to(tmp_path / "volume")
    told = changes.Changes(
        {"layer": tmp_path / "layer", "volume": tmp_path / "volume"}, {"layer": tmp_path / "shown"}
    )
    (tmp_path / "volume/file").touch()
    (tmp_path / "shown/file").touch()
    with pytest.raises(
        changes.NotTold
    ):  # the same file in both views, as on overlayfs, else it has lost its name
        told.names()
    (tmp_path / "layer/file").touch()
    assert told.names() == {"layer": {"file"}, "volume": {"file"}}
    told.close()


def test_a_host_that_allows_too_few_watches_is_walked(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = tmp_path / "most"
    most.write_text(f"{2 * changes.SHARE}\n")
    monkeypatch.setattr(changes, "MOST", most)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(changes.NotTold):
        changes.Changes({"layer": tree}, {})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_names_that_criu_makes_for_the_time_of_a_dump_are_not_sent_by_name() -> None:
    """A file that is mapped and has lost its name has such a one while CRIU dumps: gone, it failed the whole pass."""
    found = {"layer": {"var/tmp/link_remap.10", "var/tmp/a b/not gone"}, "volume-0": {"link_remap.3"}}
    assert rsync._lasting(found) == {"layer": {"var/tmp/a b/not gone"}}
    mine = {"layer": {"link_remap.conf", "link_remap.1x", "link_remap.1/file"}}
    assert rsync._lasting(mine) == mine
