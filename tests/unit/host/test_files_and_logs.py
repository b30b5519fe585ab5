"""What the agents know of files: mappings' host paths, the log's mark and tail, a bundle's links."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from sealift.host.agent import procfs
from sealift.host.agent.destination import follow_links
from sealift.host.agent.files import log, paths


def line(text: str, stream: str = "stdout") -> str:
    return json.dumps({"log": text, "stream": stream, "time": "2026-01-01T00:00:00Z"}) + "\n"


def test_the_mark_stands_behind_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one\n") + '{"log":"tw')
    kept = log.Log(str(path))
    assert kept.mark() == len(line("one\n"))
    path.write_text(line("one\n") + line("two\n"))
    assert kept.tail() == line("two\n").encode()


def test_a_log_that_was_rotated_since_is_the_tail_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one\n") * 3)
    kept = log.Log(str(path))
    kept.mark()
    path.rename(tmp_path / "x-json.log.1")
    path.write_text(line("four\n"))
    assert kept.tail() == line("four\n").encode()
    assert sorted(kept.files().values()) == ["", ".1"]


def test_a_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one\n") + "x" * 200_000)
    assert log.Log(str(path)).mark() == len(line("one\n"))


def test_a_container_that_has_printed_nothing_has_no_tail(tmp_path: Path) -> None:
    kept = log.Log(str(tmp_path / "none"))
    assert kept.mark() == 0
    assert kept.tail() == b""


def test_the_tail_is_printed_again_through_the_streams_it_came_from() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 1)
        os.dup2(write, 2)
        threading.Event().wait(30)
        os._exit(0)
    try:
        os.close(write)
        tail = line("one\n") + line("two\n", "stderr") + "half of a li"
        import time

        while Path(f"/proc/{pid}/fd/1").readlink() != Path(f"/proc/{pid}/fd/2").readlink():
            time.sleep(0.01)
        log.print_again(tail.encode(), pid)
        assert os.read(read, 100) == b"one\ntwo\n"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(read)


def mount(device: str, root: str, point: str) -> procfs.Mount:
    return procfs.Mount(1, device, root, point, "ext4", {})


def test_a_file_in_a_volume_has_a_host_path_even_if_the_volume_s_file_system_is_mounted_elsewhere() -> None:
    own = [mount("0:73", "/docker", "/var/lib/docker"), mount("0:73", "/", "/mnt")]
    volume = mount("0:73", "/docker/volumes/v/_data", "/data")
    assert set(paths._seen_from_here(volume, own)) == {
        "/var/lib/docker/volumes/v/_data",
        "/mnt/docker/volumes/v/_data",
    }
    assert not set(paths._seen_from_here(mount("0:74", "/docker", "/x"), own))
    points = {"/": {"/upper"}, "/data": {"/var/lib/docker/volumes/v/_data"}}
    assert paths.host_paths("/data/file", points) == {"/var/lib/docker/volumes/v/_data/file"}
    assert paths.host_paths("/database", points) == {"/upper/database"}


def test_sources_of_bind_mounts_are_named_by_their_real_paths(tmp_path: Path) -> None:
    real, linked = tmp_path / "real", tmp_path / "linked"
    real.touch()
    linked.symlink_to(real)
    spec = {"mounts": [{"type": "bind", "source": str(linked)}, {"type": "tmpfs", "source": "tmpfs"}]}
    follow_links(spec)
    assert [mount["source"] for mount in spec["mounts"]] == [str(real), "tmpfs"]
