"""In a container's tree nothing is reached through a link, and nothing is too deep."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent import proc
from sealift_agent.files import beneath, links
from sealift_agent.files.enclosure import Enclosure
from sealift_agent.files.walk import stamps, touched_since

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEP = "d" * 250


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a link to a place beside it, in each position."""
    for place in ("tree/a/b", "outside/b"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "outside/b/file").write_text("secret")
    (tmp_path / "tree/a/b/file").write_text("own")
    (tmp_path / "tree/absolute").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/a/relative").symlink_to("../../outside")
    (tmp_path / "tree/a/inside").symlink_to("b")
    return tmp_path / "tree"


@pytest.fixture
def top(tree: Path) -> Iterator[int]:
    with beneath.tree(tree) as opened:
        yield opened


@pytest.mark.parametrize(
    "name",
    [
        "absolute/b/file",
        "absolute/b",
        "a/relative/b/file",
        "a/inside/file",
        "a/relative",
        "a/../absolute/b/file",
    ],
)
def test_no_link_is_followed(top: int, name: str) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        beneath.opened(top, name, os.O_RDONLY)


@pytest.mark.parametrize("name", ["..", "a/../..", "../outside/b/file", "/etc/passwd"])
def test_nothing_leads_out(top: int, name: str) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        beneath.opened(top, name, os.O_RDONLY)


def test_links_themselves_are_seen(top: int) -> None:
    assert stat.S_ISLNK(beneath.lstat(top, "absolute").st_mode)
    assert stat.S_ISREG(beneath.lstat(top, "a/b/file").st_mode)


def test_a_walk_sees_links_and_goes_into_directories_only(tree: Path, top: int) -> None:
    assert {name for name, _, _ in beneath.walk(top)} == {"", "a/", "a/b/"}
    assert set(stamps(tree)) == {"", "absolute", "a/", "a/relative", "a/inside", "a/b/", "a/b/file"}
    assert touched_since(tree, 0) == {"a/b/file"}


def test_what_is_deeper_than_a_path_can_be_is_reached(tree: Path, top: int) -> None:
    here = os.getcwd()  # noqa: PTH109 - a place to come back to
    os.chdir(tree)
    try:
        for _ in range(40):
            Path(DEEP).mkdir()
            os.chdir(DEEP)
        Path("file").write_text("deep")
    finally:
        os.chdir(here)
    name = f"{DEEP}/" * 40 + "file"
    assert len(name) > 2 * 4096
    assert beneath.lstat(top, name).st_size == 4
    assert touched_since(tree, 0) == {name, "a/b/file"}


def test_names_of_a_dump_are_made_in_the_tree_only(tree: Path) -> None:
    links.make([links.Link("t", "a/new", "a/b/file")], {"t": str(tree)})
    assert (tree / "a/new").samefile(tree / "a/b/file")
    for wrong in (("absolute/b/new", "a/b/file"), ("a/new", "absolute/b/file"), ("a/../../new", "a/b/file")):
        with pytest.raises(OSError, match=f"{os.strerror(errno.ELOOP)}|{os.strerror(errno.EXDEV)}"):
            links.make([links.Link("t", *wrong)], {"t": str(tree)})


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_what_is_started_in_an_enclosure_sees_the_trees_follows_no_link_and_changes_nothing(
    tree: Path, tmp_path: Path
) -> None:
    enclosure = Enclosure(tmp_path / "own", {"t": str(tree)})
    place = enclosure.roots["t"]
    try:
        assert sorted(enclosure.run(os.listdir, place)) == ["a", "absolute"]
        assert enclosure.run(os.readlink, place / "absolute") == str(tmp_path / "outside")
        for name, why in (("absolute/b/file", errno.ELOOP), ("a/inside/file", errno.ELOOP)):
            with pytest.raises(OSError, match=os.strerror(why)):
                enclosure.run((place / name).read_text)
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            enclosure.run((place / "a/b/file").write_text, "else")
        assert not any(place.iterdir())  # nobody else sees it
    finally:
        enclosure.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_an_enclosure_keeps_no_container_s_network_and_no_root_of_one_in_use(
    tree: Path, tmp_path: Path
) -> None:
    network, merged, kept = (tmp_path / name for name in ("net", "merged", "kept"))
    network.touch()
    for name in ("merged", "kept", "lower", "upper", "work"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounts = (
        (network, ["mount", "--bind", "/proc/self/ns/net", network]),
        (merged, ["mount", "-t", "overlay", "-o", layers, "overlay", merged]),
        (kept, ["mount", "-t", "tmpfs", "tmpfs", kept]),
    )
    made: list[Path] = []
    try:
        for place, words in mounts:
            if subprocess.run(words, check=False, capture_output=True).returncode:
                pytest.skip(f"{words[2]} can't be mounted here")
            made.append(place)
        enclosure = Enclosure(tmp_path / "own", {"t": str(tree)})
        try:
            seen = {mount.point for mount in enclosure.run(proc.mounts, "thread-self")}
        finally:
            enclosure.close()
        assert {str(network), str(merged)}.isdisjoint(seen)
        assert {str(kept), str(enclosure.roots["t"])} <= seen
    finally:
        for place in made:
            subprocess.run(["umount", place], check=True)
