"""What enters the cache is whole, and clearing up after a killed builder touches nothing that is not ours."""

import os
import threading

import pytest

from sealift.errors import SealiftError
from sealift.machine import cache
from sealift.machine.cache import only_builder, remove_folder


def test_a_second_builder_waits_for_the_first(tmp_path):
    said, order = [], []

    def second():
        with only_builder(tmp_path, said.append):
            order.append("second")

    with only_builder(tmp_path, pytest.fail):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join(5)
    assert order == ["first", "second"]
    assert "waiting" in said[0]


def test_what_a_killed_builder_left_is_removed(tmp_path):
    (tmp_path / "a.building/tree").mkdir(parents=True)
    with only_builder(tmp_path, pytest.fail):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["a folder", "\u00e4 folder", "a\rfolder", "a\\folder", "\udcff\nfolder"])
def test_a_folder_with_a_mount_below_it_is_not_removed(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    (folder / "dev").mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    place = (
        os.fsencode(folder / "dev").replace(b"\\", rb"\134").replace(b" ", rb"\040").replace(b"\n", rb"\012")
    )
    mounts.write_bytes(b"29 1 0:5 / %s rw,relatime shared:2 - devtmpfs devtmpfs rw\n" % place)
    monkeypatch.setattr(cache, "MOUNTS", mounts)
    with pytest.raises(SealiftError, match="is mounted below"):
        remove_folder(folder)
    assert (folder / "dev").is_dir()
