"""Processes whose names are any bytes, and that end while they are looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent import cgroup, codec, criu, limits, proc, processes
from sealift_agent.files import opened, paths, watches
from sealift_agent.memory import dirty, hugepages
from sealift_agent.messages import AgentError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = (b"\xff\xfe) (", b"a\nb) S 1 1", b"\xc3", b"(((", b") R 1 2", b"\x1b[31m", b"\xe2\x80\xa8x")
HOLDS_A_FILE = """
import ctypes, mmap, os, sys, time
name, place = sys.argv[1].encode("utf-8", "surrogateescape"), os.fsencode(sys.argv[2])
handle = os.open(place, os.O_RDWR | os.O_CREAT)
os.ftruncate(handle, 4096)
mapped = mmap.mmap(handle, 4096)
ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
print("up", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def named(name: bytes, place: bytes) -> Iterator[int]:
    """A process of that name, which has a file mapped."""
    words = [sys.executable, "-c", HOLDS_A_FILE, name, place]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        process.kill()


@pytest.mark.parametrize("name", NAMES)
def test_a_process_is_looked_at_whatever_its_name(name: bytes, tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/\xff \xe2\x80\xa8\x85\x0c"
    with named(name, place) as pid:
        found = processes.examine([pid], pid)
        assert found.processes == 1
        assert found.outside == []
        assert found.memory_bytes > 0
        assert proc.stat(pid)[0] == name.decode("utf-8", "surrogateescape")
        assert proc.stat(pid)[1][1] == str(os.getpid())
        assert cgroup.paths(pid)
        assert cgroup.stopped(Path("/nowhere")) == []
        assert dirty.dump_bytes(pid) > 0
        list(hugepages.ranges(pid))
        hugepages.split([pid])
        assert limits.unreadable([pid]) is False
        assert watches.find(pid, [pid]) == {}
        assert watches.missing(pid, {}) == []
        assert criu.tree(pid) == [pid]
        assert not criu.Progress(tmp_path / "log", pid).stands_still()
        criu.kill_criu(tmp_path)  # looks at every process of this host
        assert proc.status(pid)["State"].startswith("S")
        assert "/" in paths.mounts(pid)
        opened.written_through_mappings([pid], {})
        said = json.loads(json.dumps({**codec.encode(found), "name": processes._name(pid)}))
        json.dumps(said, ensure_ascii=False).encode()  # no surrogates are left to whoever shows it
        assert said["name"].isprintable()


def test_a_process_that_has_ended_is_not_there_in_any_way() -> None:
    """Not even its zombie, of which the kernel has some files, refuses others, and has others empty."""
    process = subprocess.Popen(["true"])
    while proc.stat(process.pid)[1][:1] != ["Z"]:
        time.sleep(0.001)
    for pid in (process.pid, 1 << 22):
        with pytest.raises(ProcessLookupError):
            paths.mounts(pid)
        assert opened.written_through_mappings([pid], {}) == {}
        assert opened.open_and_changed([pid], {}, 0) == {}
        assert not opened.holds_lost(pid)
        assert watches.find(pid, [pid]) == {}
        assert watches.missing(pid, {}) == []
        assert list(hugepages.ranges(pid)) == []
        assert hugepages.split([pid]) is None
        assert hugepages.gather([pid]) == 0
        assert dirty.dump_bytes(pid) == 0
        processes.examine([os.getpid(), pid], os.getpid())
        assert processes._groups({"": "/"}, cgroup.paths(1 << 22)) == set()
    process.wait()
    with pytest.raises(ProcessLookupError):
        cgroup.of_process(1 << 22)


def test_processes_that_come_and_go_are_inside_or_not_looked_at(tmp_path: Path) -> None:
    """None of them is taken for one that `docker exec` has started, though its parent may end at any time."""
    churn = (
        "import os, time\n"
        "while True:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        if not os.fork(): time.sleep(0.002)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    adopts = f"import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\nimport signal\n{churn}"
    with subprocess.Popen([sys.executable, "-c", adopts]) as top:
        try:
            time.sleep(0.2)
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                found = processes.examine(criu.tree(top.pid), top.pid)
                assert found.outside == []
                opened.written_through_mappings(criu.tree(top.pid), {})
                watches.find(top.pid, criu.tree(top.pid))
        finally:
            os.kill(top.pid, signal.SIGKILL)


def test_messages_show_what_cannot_be_shown_as_escapes() -> None:
    odd = os.fsdecode(b"/a\xff\x1b[31mb\xe2\x80\xae\xc3\xa9")
    assert printable(odd) == "/a\\xff\\x1b[31mb\\u202e\xe9"
    assert str(AgentError(f"two\nlines of {odd}")) == "two\nlines of /a\\xff\\x1b[31mb\\u202e\xe9"


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("thread mitigated", True),
        ("thread force mitigated", True),
        ("thread vulnerable", False),
        ("not vulnerable", False),
        ("globally mitigated", False),
        ("conditional force disabled", True),
        ("conditional enabled", False),
        ("always disabled", False),
    ],
)
def test_only_what_a_program_has_asked_of_speculation_counts(said: str, asked: bool) -> None:
    for name in processes.SPECULATES:
        assert (list(processes._states({name: said})) == ["speculation"]) is asked
