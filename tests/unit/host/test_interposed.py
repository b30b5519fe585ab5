"""The library that is loaded into CRIU, in a process that makes the same system calls."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sealift_agent import interposed
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

CALLS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
CLONE3, CLONE_NEWPID = 435, 0x20000000

def clone(flags, inner):
    ids = (ctypes.c_int * 1)(inner)
    words = (ctypes.c_uint64 * 11)()
    words[0], words[4], words[8], words[9] = flags, 17, ctypes.addressof(ids), 1
    pid = libc.syscall(CLONE3, words, ctypes.sizeof(words))
    if pid == 0:
        os._exit(os.getpid())
    if pid < 0:
        return "errno %d" % ctypes.get_errno()
    return [pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

def free():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.geteuid() != 0:
        pytest.skip("process ids are root's to choose")
    monkeypatch.setattr(interposed, "_path", lambda: tmp_path / "interposed.so")
    if not interposed.obtainable():
        pytest.skip("this machine has no C compiler")
    return interposed.library("restore")


def said(library: Path, program: str, **more: str) -> str:
    env = {**os.environ, "LD_PRELOAD": str(library), **more}
    words = [sys.executable, "-c", CALLS + program]
    return subprocess.run(
        words, capture_output=True, text=True, check=True, env=env, timeout=60
    ).stdout.strip()


def test_the_first_process_of_a_new_namespace_gets_the_id_that_is_wanted(library: Path) -> None:
    program = """
wanted = free()
os.environ["SEALIFT_ROOT_PID"] = str(wanted)  # putenv(3), too
print(clone(CLONE_NEWPID, 1) == [wanted, 1])
"""
    assert said(library, program) == "True"


def test_an_id_that_somebody_has_is_an_error(library: Path) -> None:
    assert said(library, "print(clone(CLONE_NEWPID, 1))", SEALIFT_ROOT_PID="1") == "errno 17"


def test_other_processes_get_the_id_that_was_asked_for(library: Path) -> None:
    program = "wanted = free(); found = clone(0, wanted); print(found[0] == wanted)"
    assert said(library, program, SEALIFT_ROOT_PID="1") == "True"


def test_without_a_wanted_id_the_call_is_as_it_was(library: Path) -> None:
    assert said(library, "print(clone(CLONE_NEWPID, 1)[1])") == "1"


def test_limits_of_another_user_s_process_are_read(library: Path) -> None:
    program = """
child = os.fork()
if not child:
    import time
    time.sleep(60)
import resource, signal
resource.prlimit(child, resource.RLIMIT_NOFILE, (100, 200))
found = (ctypes.c_uint64 * 2)()
answer = libc.syscall(302 if os.uname().machine == "x86_64" else 261, child, resource.RLIMIT_NOFILE, None, found)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(answer, *found)
"""
    assert said(library, program) == "0 100 200"


def test_a_host_without_a_compiler_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interposed, "_path", lambda: tmp_path / "interposed.so")
    monkeypatch.setattr(interposed, "COMPILERS", ())
    assert not interposed.obtainable()
    with pytest.raises(AgentError, match="install tcc"):
        interposed.library("restore")
