"""Rounds of pre-dump that a writer outruns: slowed down if that may be, and kept to the freeze that was allowed.

Only a VM's kernel tracks dirty pages here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hosts import untouched

from benchmarks.engine import arrive, prepare
from sealift.errors import MigrationFailed
from sealift.migration import steps
from sealift.migration.session import Session
from sealift.model import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

    from sealift.model import Estimate, Report

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.whole, pytest.mark.timeout(900)]

SIZE_BYTES = 32 << 20
LINK_BYTES_S = 8_000_000
"""What the rounds may use: all of the memory takes four seconds, in which a writer at full speed dirties all of it."""

WRITER = f"""
import os, random, signal, struct, sys, time, zlib
pages, pause = {SIZE_BYTES} // 4096, [float(sys.argv[1])]
block, written = bytearray(os.urandom(4096)) * pages, [0] * pages
rest = zlib.crc32(block[8:4096])
for page in range(pages):
    struct.pack_into("<Q", block, page * 4096, 0)
signal.signal(signal.SIGUSR1, lambda *_: pause.__setitem__(0, 0.0))
print("up", flush=True)
while pause[0] < 0:
    time.sleep(0.1)
said = time.monotonic()
while True:
    for _ in range(64):
        page = random.randrange(pages)
        held, = struct.unpack_from("<Q", block, page * 4096)
        if held != written[page] or zlib.crc32(block[page * 4096 + 8:(page + 1) * 4096]) != rest:
            sys.exit(f"page {{page}} holds {{held}} instead of {{written[page]}}, or something else behind it")
        written[page] += 1
        struct.pack_into("<Q", block, page * 4096, written[page])
    if time.monotonic() - said > 1:
        print(sum(written), flush=True)
        said = time.monotonic()
    time.sleep(pause[0])
"""


def start_writer(hosts: Hosts, pause_s: float) -> None:
    """A container that writes 64 pages anywhere, then pauses; each page is looked at before it is written again.

    With a pause below zero it begins when it gets SIGUSR1, and writes without pausing.
    """
    hosts.python("writer", WRITER, str(pause_s))
    deadline = time.monotonic() + 60
    while "up" not in hosts.docker("source", "logs", "writer"):
        assert time.monotonic() < deadline, "the writer did not come up"
        time.sleep(0.2)


def check_writing(hosts: Hosts, host: str) -> None:
    """It writes on, and no page held anything but what was written last."""
    before = hosts.docker(host, "logs", "--tail", "1", "writer")
    time.sleep(5)
    after = hosts.docker(host, "logs", "--tail", "1", "writer")
    assert hosts.inspect(host, "writer")["State"]["Running"], after
    assert int(after) > int(before)


def quota(hosts: Hosts, host: str) -> str:
    """Of the container's control group, which is one of version 2."""
    pid = hosts.inspect(host, "writer")["State"]["Pid"]
    return hosts.sh(host, 'cat "/sys/fs/cgroup$(sed -n s/^0:://p /proc/$1/cgroup)/cpu.max"', str(pid))


def estimated(hosts: Hosts) -> Estimate:
    """What the preflight says of the writer."""
    with Session.open(hosts.inventory, hosts.request("writer")) as session:
        estimate = steps.preflight(session, arrive(session)).plan.estimate
        assert estimate is not None
        return estimate


def said(report: Report) -> str:
    rounds = ", ".join(
        f"{made.sent_bytes / 1e6:.1f} MB in {made.duration_ms:.0f} ms" for made in report.rounds
    )
    return f"{rounds}; last {report.last_bytes / 1e6:.1f} MB, frozen {report.frozen_ms:.0f} ms"


def test_a_writer_that_outruns_the_link_leaves_less_for_the_freeze_if_it_may_be_slowed_down(
    hosts: Hosts,
) -> None:
    start_writer(hosts, 0)
    limits = {"strategy": Strategy.PRE_COPY, "bandwidth": LINK_BYTES_S, "max_rounds": 8}
    free = hosts.engine("writer", **limits)
    print("left alone:", said(free))
    assert free.throttled_cpus is None
    assert len(free.rounds) == 2, "a second round shows that no other pays"
    assert free.last_bytes > SIZE_BYTES / 2
    for made in free.rounds:
        assert made.sent_bytes / made.duration_ms * 1000 < 1.1 * LINK_BYTES_S, "rounds keep to --bandwidth"
    check_writing(hosts, "destination")

    slowed = hosts.engine("writer", None, "destination", "source", throttle=True, **limits)
    print("slowed down:", said(slowed), f"to {slowed.throttled_cpus} CPUs")
    assert slowed.throttled_cpus is not None
    assert slowed.throttled_cpus < 1
    assert slowed.last_bytes < free.last_bytes / 2
    assert quota(hosts, "source").startswith("max"), "the copy has what Docker gave it"
    check_writing(hosts, "source")


def test_rounds_end_once_the_freeze_keeps_to_what_was_allowed(hosts: Hosts) -> None:
    start_writer(hosts, 0.2)
    estimate = estimated(hosts)
    allowed_s = (estimate.floor_ms + 20_000) / 1000
    report = hosts.engine("writer", strategy=Strategy.PRE_COPY, max_downtime=allowed_s, max_rounds=8)
    print(said(report))
    assert len(report.rounds) in {2, 3}, "the second tells of the dirty rate; a third may make up for arming"
    assert report.frozen_ms < 1000 * allowed_s
    check_writing(hosts, "destination")


def test_a_writer_that_speeds_up_after_the_preflight_is_not_frozen_for_longer_than_was_allowed(
    hosts: Hosts,
) -> None:
    start_writer(hosts, -1)
    estimate = estimated(hosts)
    assert estimate.link_bytes_s is not None
    half_of_it_ms = 1000 * SIZE_BYTES / 2 / estimate.link_bytes_s
    request = hosts.request(
        "writer",
        strategy=Strategy.PRE_COPY,
        max_downtime=(estimate.floor_ms + half_of_it_ms) / 1000,
        bandwidth=LINK_BYTES_S,
    )
    with untouched(hosts, "writer"), Session.open(hosts.inventory, request) as session:
        plan = prepare(session).plan
        hosts.docker("source", "kill", "--signal", "USR1", "writer")
        with pytest.raises(MigrationFailed, match="nothing was frozen"):
            steps.pre_dump(session, plan)
    check_writing(hosts, "source")
