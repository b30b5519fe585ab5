"""Address space that CRIU by itself does not bring through is found in /proc, of a real process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sealift_agent import processes
from sealift_agent.constants import RESERVED, SHARED_CODE

PROGRAM = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
assert libc.mmap(*eval(sys.argv[1])) not in (None, ctypes.c_void_p(-1).value)
print("up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("None, 8 << 40, 0, 0x22, -1, 0", {RESERVED}),
        ("None, 8 << 40, 3, 0x4022, -1, 0", set()),  # written to: CRIU has no trouble with it
        ("None, 1 << 20, 0, 0x22, -1, 0", set()),
        ("0x200000, 4096, 5, 0x100021, -1, 0", {SHARED_CODE}),
        ("0x200000, 4096, 5, 0x100022, -1, 0", set()),
        ("None, 4096, 5, 0x21, -1, 0", set()),  # behind the program's own code
    ],
)
def test_what_a_process_has_mapped(mapping: str, expected: set[str]) -> None:
    words = [sys.executable, "-c", PROGRAM, mapping]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            found = set(processes.examine([process.pid], process.pid).mappings)
            assert found & {RESERVED, SHARED_CODE} == expected
        finally:
            process.kill()
