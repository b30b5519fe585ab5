"""What the agents know of files: mappings' host paths, the log's mark and tail, a bundle's links."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sealift_agent import proc
from sealift_agent.destination.bundle import follow_links
from sealift_agent.files import log, paths, printing
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path


def line(text: str, stream: str = "stdout") -> str:
    return json.dumps({"log": text, "stream": stream, "time": "2026-01-01T00:00:00Z"}) + "\n"


def rotate(path: Path, files: int, *, compress: bool = False) -> None:
    """As Docker does it (moby, daemon/logger/loggerutils/logfile.go)."""
    ending = ".gz" if compress else ""
    for number in range(files - 1, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}{ending}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number}{ending}"))
    if files < 2:
        path.unlink()
    else:
        first = path.with_name(f"{path.name}.1")
        path.rename(first)
        if compress:
            first.with_name(f"{first.name}.gz").write_bytes(gzip.compress(first.read_bytes()))
            first.unlink()
    path.touch()


def rest(kept: log.Log, most: int = log.PIECE_BYTES) -> str:
    return b"".join(iter(lambda: kept.take(most), b"")).decode()


def test_the_mark_stands_behind_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one\n") + '{"log":"tw')
    kept = log.Log(str(path))
    assert kept.mark() == len(line("one\n"))
    assert rest(kept) == ""
    path.write_text(line("one\n") + line("two\n"))
    assert rest(kept) == line("two\n")
    assert kept.behind() == 0


@pytest.mark.parametrize("most", [10, 100, 1 << 20])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("rotations", [1, 2, 4])
def test_lines_of_a_log_that_is_rotated_meanwhile_are_all_taken_once(
    tmp_path: Path, most: int, compress: bool, rotations: int
) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("old\n") * 3)
    rotate(path, 6, compress=compress)
    path.write_text(line("one\n") * 3)
    kept = log.Log(str(path))
    assert kept.mark() == len(line("one\n") * 3)
    assert sorted(kept.files().values()) == ["", ".1.gz" if compress else ".1"]
    sent = {ending: place.read_bytes() for place, ending in kept.files().items()}
    numbers = iter(range(100))
    printed = ""
    for _ in range(rotations):
        for place in (*[path] * 3, None):
            if place is None:
                rotate(path, 6, compress=compress)
            text = line(f"{next(numbers)}\n")
            printed += text
            with path.open("a") as file:
                file.write(text)
    assert kept.behind() > 0
    assert rest(kept, most) == printed
    assert rest(kept, most) == ""
    with path.open("a") as file:
        file.write(line("later\n"))
    assert rest(kept, most) == line("later\n")
    # By the names that it gives the files they are what they were at the mark, wherever they are now.
    assert {ending: place.read_bytes()[: len(sent[ending])] for place, ending in kept.files().items()} == sent
    kept.close()


def test_what_docker_has_thrown_away_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one\n"))
    kept = log.Log(str(path))
    kept.mark()
    for number in range(5):
        rotate(path, 1)
        path.write_text(line(f"{number}\n"))
    assert rest(kept) == line("4\n")


def test_a_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x-json.log"
    path.write_text(line("one\n") + "x" * 200_000)
    kept = log.Log(str(path))
    assert kept.mark() == len(line("one\n"))
    with path.open("a") as file:
        file.write("\n")
    assert rest(kept, 1000) == "x" * 200_000 + "\n"


def test_a_container_that_has_printed_nothing_has_no_tail(tmp_path: Path) -> None:
    kept = log.Log(str(tmp_path / "none"))
    assert kept.mark() == 0
    assert rest(kept) == ""
    (tmp_path / "none").write_text(line("first\n"))
    assert rest(kept) == line("first\n")


DOCKER = """
import os, sys, time
fifo = os.open(sys.argv[1], os.O_RDONLY)
print("up", flush=True)
time.sleep(0.2)
lines = os.read(fifo, 100)
until = time.monotonic() + 0.5
while time.monotonic() < until: pass
open(sys.argv[2], "wb").write(lines)
"""


@pytest.fixture
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Docker's pipes of a container, read by nobody yet."""
    monkeypatch.setattr(printing, "FIFOS", tmp_path)
    monkeypatch.setattr(printing, "BOUND_S", 0.5)
    (tmp_path / "box").mkdir()
    found = {}
    for stream in ("stdout", "stderr"):
        os.mkfifo(tmp_path / "box" / f"init-{stream}")
        found[stream] = os.open(tmp_path / "box" / f"init-{stream}", os.O_RDONLY | os.O_NONBLOCK)
    return found


def test_lines_are_printed_again_through_the_streams_they_came_from(pipes: dict[str, int]) -> None:
    printer = printing.Printer("box")
    tail = line("one\n") + line("two\n", "stderr") + "null\n[]\n" + "half of a li"
    printer.print(tail.encode())
    assert os.read(pipes["stdout"], 100) == b"one\n"
    assert os.read(pipes["stderr"], 100) == b"two\n"
    printer.close()


def test_more_than_a_pipe_holds_is_printed_as_it_is_read_and_given_up_if_it_is_not(
    pipes: dict[str, int],
) -> None:
    printer = printing.Printer("box")
    text = "".join(line(f"{number:0>1000}\n") for number in range(5000))
    got = bytearray()

    def read() -> None:
        while len(got) < 5000 * 1001:
            with contextlib.suppress(BlockingIOError):
                got.extend(os.read(pipes["stdout"], 1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    printer.print(text.encode())
    reader.join()
    assert got.decode() == "".join(f"{number:0>1000}\n" for number in range(5000))
    with pytest.raises(AgentError, match="Docker has not read"):
        printer.print(text.encode())
    printer.close()


def test_what_docker_has_not_written_down_yet_is_waited_for(
    pipes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fifo = tmp_path / "log", tmp_path / "box/init-stdout"
    write = os.open(fifo, os.O_WRONLY)
    monkeypatch.setattr(printing, "BOUND_S", 20)
    with subprocess.Popen([sys.executable, "-c", DOCKER, fifo, path], stdout=subprocess.PIPE) as docker:
        assert docker.stdout
        docker.stdout.readline()
        monkeypatch.setattr(printing, "PROCESS_ID", tmp_path / "pid")
        (tmp_path / "pid").write_text(f"{docker.pid}\n")
        os.write(write, b"one\n")
        printing.Drained("box", os.getpid(), [], path).wait()
        assert path.read_text() == "one\n"
    monkeypatch.setattr(printing, "BOUND_S", 0.5)
    os.write(write, b"two\n")
    with pytest.raises(AgentError, match="Docker has not written"):
        printing.Drained("box", os.getpid(), [], path).wait()
    os.close(write)


def test_a_docker_that_is_busy_with_other_containers_is_not_waited_for(
    pipes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.open(tmp_path / "box/init-stdout", os.O_WRONLY)
    monkeypatch.setattr(printing, "PROCESS_ID", tmp_path / "pid")
    monkeypatch.setattr(printing, "BOUND_S", 20)
    busy = [sys.executable, "-c", "print('up', flush=True)\nwhile True: pass"]
    with subprocess.Popen(busy, stdout=subprocess.PIPE) as docker:
        try:
            assert docker.stdout
            docker.stdout.readline()
            (tmp_path / "pid").write_text(f"{docker.pid}\n")
            began = time.monotonic()
            printing.Drained("box", os.getpid(), [], tmp_path / "log").wait()
            assert printing.STILL_S < time.monotonic() - began < printing.BOUND_S
        finally:
            docker.kill()
    os.close(write)


def mount(device: str, root: str, point: str) -> proc.Mount:
    return proc.Mount(1, device, root, point, "ext4", {})


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
