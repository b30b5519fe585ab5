"""What of open files a dump takes along, and which pipes lead out of a container: by real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from sealift.migration.checks.processes import UNLINKED_BYTES
from sealift_agent import processes
from sealift_agent.files import pipe_ends, unlinked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root
HOLDER = """
import mmap, os, sys
home = sys.argv[1]
def gone(name):
    file = os.open(f"{home}/{name}", os.O_RDWR | os.O_CREAT)
    os.unlink(f"{home}/{name}")
    return file
opened, mapped, sparse = gone("opened"), gone("mapped"), gone("sparse")
os.write(opened, bytes(8192))
twice = os.dup(opened)
os.write(mapped, bytes(16384))
memory = mmap.mmap(mapped, 16384)
os.close(mapped)
os.truncate(sparse, 1 << 40)
os.write(os.memfd_create("no file"), bytes(4096))
shared = mmap.mmap(-1, 4096)
named = open(f"{home}/named", "w")
print("ready", flush=True)
sys.stdin.read()
"""
SLEEPER = ("sh", "-c", "echo ready; exec sleep 60")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL  # pytest's own output has no name either
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_files_without_a_name_are_found_with_what_they_have_on_disk(holder: int, tmp_path: Path) -> None:
    found = unlinked.find({holder: "python3, pid 7"})
    assert found == {
        f"{tmp_path}/opened (python3, pid 7)": 8192,
        f"{tmp_path}/mapped (python3, pid 7)": 16384,
        f"{tmp_path}/sparse (python3, pid 7)": 0,
    }
    assert sorted(processes.examine([holder], holder).unlinked.values()) == [0, 8192, 16384]


def test_what_is_refused_is_what_criu_is_told_to_refuse() -> None:
    settings = (resources.files("sealift.machine") / "files/etc/criu/runc.conf").read_text()
    assert re.findall(r"^ghost-limit (\d+)$", settings, re.MULTILINE) == [str(UNLINKED_BYTES)]


def test_a_pipe_whose_other_end_is_outside_leads_out() -> None:
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        ends = [f"pipe:[{os.fstat(one.fileno()).st_ino}]" for one in (process.stdin, process.stdout)]
        assert pipe_ends.leading_out([process.pid], []) == set(ends)
        assert pipe_ends.leading_out([process.pid], ends[:1]) == set(ends[1:])
        assert pipe_ends.leading_out([process.pid, os.getpid()], []).isdisjoint(ends)
        assert "pipe leading out" in processes.examine([process.pid], process.pid).descriptors
        assert "pipe leading out" not in processes.examine([process.pid], process.pid, ends).descriptors
        for one in (process.stdin, process.stdout):
            one.close()
        # Nobody is at the other end, here as there: nothing will be otherwise.
        assert pipe_ends.leading_out([process.pid], []) == set()
        process.kill()


def test_a_pipe_between_processes_of_the_container_leads_nowhere() -> None:
    words = ("sh", "-c", "echo ready; sleep 60 | cat")
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stdout = f"pipe:[{os.fstat(process.stdout.fileno()).st_ino}]"
        while len(inside := _tree(process.pid)) < 3:
            pass
        assert pipe_ends.leading_out(inside, [stdout]) == set()
        os.killpg(process.pid, 9)


def _tree(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [pid, *map(int, found.split())]
