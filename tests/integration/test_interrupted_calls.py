"""A program that sleeps, polls or waits for a lock with a time limit does not notice that it was moved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from test_failures import BROKEN_CRIU

from sealift.errors import MigrationFailed
from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

CALLS = r"""
import ctypes, os, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
LONG = 100_000
span = (ctypes.c_long * 2)(LONG, 0)
word = ctypes.c_int(7)
FUTEX, WAIT = 202, 128
ended = []

def calls(name, call, *arguments):
    ended.append((name, call(*arguments), os.strerror(ctypes.get_errno())))

waits = {
    "nanosleep": (libc.nanosleep, ctypes.byref(span), None),
    "clock_nanosleep": (libc.clock_nanosleep, 1, 0, ctypes.byref(span), None),
    "poll": (libc.poll, None, 0, LONG * 1000),
    "epoll": (libc.epoll_wait, libc.epoll_create1(0), ctypes.create_string_buffer(64), 1, LONG * 1000),
    "select": (libc.select, 0, None, None, None, ctypes.byref((ctypes.c_long * 2)(LONG, 0))),
    "futex": (libc.syscall, FUTEX, ctypes.byref(word), WAIT, 7, ctypes.byref(span), None, 0),
}
for name, call in waits.items():
    if name in sys.argv[1:]:
        continue
    threading.Thread(target=calls, args=(name, *call), daemon=True).start()
shells = subprocess.Popen(["sleep", str(LONG)])
while True:
    print(ended, shells.poll(), flush=True)
    time.sleep(0.1)
"""


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    "strategy", [Strategy.AUTO, pytest.param(Strategy.POST_COPY, marks=pytest.mark.whole)]
)
def test_no_call_ends_before_its_time(hosts: Hosts, strategy: Strategy, *, paused: bool) -> None:
    # Two are left out after a pause. epoll_wait(2) ends with EINTR at each one (signal(7)). The kernel has continued
    # poll(2) by a number of its own, while this C library has the call's in a register only.
    left_out = ["epoll", "poll"] if paused else []
    hosts.python("box", CALLS, *left_out)
    hosts.sh("source", "until docker logs box | grep -q None; do sleep 0.1; done; sleep 0.5")
    if paused:  # the kernel continues the calls, and their numbers are gone
        hosts.docker("source", "pause", "box")
        hosts.docker("source", "unpause", "box")
    before = hosts.docker("source", "logs", "--tail", "1", "box")
    for source, destination in (("source", "destination"), ("destination", "source")):
        hosts.engine("box", None, source, destination, strategy=strategy)
        lines = len(hosts.docker(destination, "logs", "box").splitlines())
        until = time.monotonic() + 30
        while len(hosts.docker(destination, "logs", "box").splitlines()) < lines + 3:
            assert time.monotonic() < until, "it does not go on"
            time.sleep(0.1)
        assert hosts.docker(destination, "logs", "--tail", "1", "box") == before


def test_a_migration_that_is_rolled_back_ends_no_call(hosts: Hosts) -> None:
    def break_criu(_: Session) -> None:
        hosts["destination"].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)

    hosts.python("box", CALLS)
    hosts.sh("source", "until docker logs box | grep -q None; do sleep 0.1; done; sleep 0.5")
    before = hosts.docker("source", "logs", "--tail", "1", "box")
    try:
        with pytest.raises(MigrationFailed):
            hosts.engine("box", {"armed": break_criu})
    finally:
        hosts.sh("destination", "rm -f /usr/local/sbin/criu")
    time.sleep(1)
    assert hosts.docker("source", "logs", "--tail", "1", "box") == before
