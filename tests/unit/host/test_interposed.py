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


MAPPED = """
import re
libc.mmap64.restype = libc.malloc.restype = ctypes.c_void_p
libc.mmap64.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.realloc.restype, libc.realloc.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
libc.memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

def memory_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10

def flags(place):
    text = open("/proc/self/smaps").read().partition("%x-" % place)[2]
    return re.search("VmFlags:(.*)", text)[1].split()
"""


@pytest.mark.parametrize(("protection", "counted"), [(2, False), (3, True)])
def test_what_is_mapped_for_writing_only_is_not_counted(
    library: Path, protection: int, counted: bool
) -> None:
    program = f"print('nr' in flags(libc.mmap64(None, 1 << 20, {protection}, 0x22, -1, 0)))"
    assert said(library, MAPPED + program) == str(not counted)


@pytest.mark.parametrize("scan", [None, 0], ids=["in one call", "page by page"])
def test_a_large_table_takes_the_memory_that_is_used_of_it(
    library: Path, monkeypatch: pytest.MonkeyPatch, scan: int | None
) -> None:
    """Also on kernels without PAGEMAP_SCAN."""
    if scan is not None:
        machine = os.uname().machine
        known = {machine: {**interposed.MACHINES[machine], "PAGEMAP_SCAN": scan}}
        monkeypatch.setattr(interposed, "MACHINES", known)
        library.unlink()
        interposed.library("restore")
    program = """
size = 64 << 30
table = libc.malloc(size)
for at in (0, 5 << 30, size - 8):
    ctypes.memmove(table + at, b"used%d" % (at >> 30), 6)
copy = libc.mmap64(None, size, 3, 0x4022, -1, 0)
libc.memcpy(copy, table, size)
for at in (0, 5 << 30, size - 8):
    print(ctypes.string_at(copy + at, 6) == ctypes.string_at(table + at, 6), end=" ")
print(memory_mb() < 500)
larger = libc.realloc(table, size + 4096)
print(ctypes.string_at(larger + (5 << 30), 5))
libc.free(larger)
print("%x-" % larger in open("/proc/self/maps").read())
"""
    assert said(library, MAPPED + program).splitlines() == ["True True True True", "b'used5'", "False"]


TRACED = """
import mmap, re, signal
libc.mmap64.restype = ctypes.c_void_p
libc.mmap64.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p]
ATTACH, DETACH, PEEK, POKE = 16, 17, 2, 5
child = os.fork()
if not child:
    if sys.argv[1:] != ["plain"]:
        place = libc.mmap64(0x200000, 4096, 5, 0x100021, -1, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(7)
os.waitpid(child, os.WUNTRACED)
maps = open(f"/proc/{child}/maps").read()
shared, private = (int(re.search(rf"([0-9a-f]+)-\\S+ ..x{kind}", maps)[1], 16) for kind in "sp")
assert shared < private
assert libc.ptrace(ATTACH, child, 0, None) == 0
os.waitpid(child, 0)
memory = open(f"/proc/{child}/mem", "rb", buffering=0)
def read(place):
    memory.seek(place)
    return int.from_bytes(memory.read(8), "little", signed=True)
before = read(private)
print(libc.ptrace(PEEK, child, shared, None) == before)
print(libc.ptrace(POKE, child, shared, 0x1234) == 0, read(private) == 0x1234, read(shared))
libc.ptrace(POKE, child, shared, ctypes.c_void_p(before))
libc.ptrace(DETACH, child, 0, None)
os.kill(child, signal.SIGCONT)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_code_goes_into_a_private_mapping_where_the_first_one_is_shared(library: Path) -> None:
    assert said(library, TRACED).splitlines() == ["True", "True True 0", "7"]


def test_a_host_without_a_compiler_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interposed, "_path", lambda: tmp_path / "interposed.so")
    monkeypatch.setattr(interposed, "COMPILERS", ())
    assert not interposed.obtainable()
    with pytest.raises(AgentError, match="install tcc"):
        interposed.library("restore")
