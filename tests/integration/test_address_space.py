"""Programs whose address space CRIU by itself does not dump or restore: each moves there and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

COMMON = r"""
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PRIVATE, SHARED, ANONYMOUS, FIXED, NO_MEMORY = 0x2, 0x1, 0x20, 0x100000, 0x4000
SIZE = 1 << 20
"""
RESERVED = r"""
place = libc.mmap(None, 8 << 40, 0, PRIVATE | ANONYMOUS, -1, 0)
assert not libc.mprotect(place, SIZE, 3)
"""
READABLE = r"""
place = libc.mmap(None, 4 << 40, 3, PRIVATE | ANONYMOUS | NO_MEMORY, -1, 0)
"""
SHARED_CODE = r"""
place = libc.mmap(0x200000, SIZE, 7, SHARED | FIXED, os.open("/dev/zero", os.O_RDWR), 0)
assert place == 0x200000
"""
WRITE = r"""
for at in range(0, SIZE, 4096):
    ctypes.memmove(place + at, at.to_bytes(8, "little"), 8)
if place == 0x200000:
    assert not libc.mprotect(place, SIZE, 5)
print("up", flush=True)
while True:
    wrong = [at for at in range(0, SIZE, 4096) if ctypes.string_at(place + at, 8) != at.to_bytes(8, "little")]
    print("wrong" if wrong else "right", flush=True)
    time.sleep(0.1)
"""


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.POST_COPY])
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(RESERVED, id="8 TiB that can't be read"),
        pytest.param(READABLE, id="4 TiB without memory"),
        pytest.param(SHARED_CODE, id="first code is shared"),
    ],
)
def test_a_program_moves_with_the_memory_that_it_uses(hosts: Hosts, program: str, strategy: Strategy) -> None:
    hosts.python("box", COMMON + program + WRITE)
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done")
    for source, destination in (("source", "destination"), ("destination", "source")):
        hosts.engine("box", None, source, destination, strategy=strategy)
        before = hosts.docker(destination, "logs", "box")
        until = time.monotonic() + 60
        while (said := hosts.docker(destination, "logs", "box")) == before:
            assert time.monotonic() < until, "it does not go on"
            time.sleep(0.2)
        assert "wrong" not in said
