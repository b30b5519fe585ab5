"""What a container writes through shared mappings comes along, whatever its files and volumes are called."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

PLACE = "/home/my data (deleted)"
WRITE = r"""
import mmap, os, sys, time
held = []
for place in ("/var/tmp", sys.argv[1]):
    os.makedirs(f"{place}/a b/c\nd", exist_ok=True)
    for name in ("a b/c\nd/one two", "a b/\\040\t\r#", "\udcff (deleted)", "gone", "moved"):
        with open(f"{place}/{name}", "w+b") as file:
            file.truncate(8192)
            held.append((name, mmap.mmap(file.fileno(), 8192)))
    os.link(f"{place}/gone", f"{place}/a b/not gone")
    os.unlink(f"{place}/gone")
    os.rename(f"{place}/moved", f"{place}/a b/mo ved")
print("up", flush=True)
number = 0
while True:
    for name, mapped in held:
        for at in (0, 4096):
            if int.from_bytes(mapped[at : at + 8], "little") != number:
                print("lost", ascii(name), flush=True)
    number += 1
    for name, mapped in held:
        mapped[0:8] = mapped[4096:4104] = number.to_bytes(8, "little")
    if number % 1000 == 0: print("at", number, flush=True)
    time.sleep(0.001)
"""


def test_nothing_written_through_a_mapping_is_lost_by_the_name_of_its_file(hosts: Hosts) -> None:
    hosts.python("box", WRITE, PLACE, options=["--volume", f"box:{PLACE}"])
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done")
    hosts.engine("box")
    before = hosts.docker("destination", "logs", "box")
    until = time.monotonic() + 60
    while (said := hosts.docker("destination", "logs", "box")) == before:
        assert time.monotonic() < until, "it does not go on"
        time.sleep(0.2)
    assert "lost" not in said
