"""What a program watches moves with it, on overlayfs, too; and it is told of nothing that Sealift does itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hosts import untouched
from test_check import against, look
from test_lost_names import break_restore

from sealift.errors import MigrationFailed, SealiftError

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

WATCHES = """
import ctypes, os, select, struct, sys
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
for place in ("/app/first", "/volume/inside", "/dev/shm/memory"):
    os.makedirs(place)
os.rename("/app/first", "/app/with a blank # and \\"")
places = ["/app", "/app/with a blank # and \\"", "/usr", "/usr/bin", os.path.realpath(sys.executable), "/volume",
          "/volume/inside", "/dev/shm", "/dev/shm/memory", "/etc"]
names = {libc.inotify_add_watch(watch, os.fsencode(place), 0xfff): place for place in places}
assert len(names) == len(places) and min(names) > 0
print("watches", flush=True)
while True:
    if sys.argv[1] == "never":
        select.select([], [], [], 60)
    select.select([watch], [], [])
    data = os.read(watch, 65536)
    while data:
        number, mask, _, length = struct.unpack_from("iIII", data)
        name = data[16:16 + length].rstrip(b"\\0").decode()
        data = data[16 + length:]
        print("told of", hex(mask), os.path.join(names[number], name), flush=True)
"""
EXPECTED = ["/app/", '/app/with a blank # and "/', "/usr/", "/volume/", "/volume/inside/", "/dev/shm/memory/"]


def watching(hosts: Hosts, mode: str = "reads") -> None:
    """A program that watches files of all sorts in all ways, and says what it is told."""
    hosts.python("box", WATCHES, mode, options=["--volume", "box:/volume"])
    hosts.sh("source", "until docker logs box 2>&1 | grep -q watches; do sleep 0.1; done")
    time.sleep(0.5)


def told(hosts: Hosts, host: str = "source") -> list[str]:
    """What it was told so far."""
    time.sleep(0.5)
    return [line for line in hosts.docker(host, "logs", "box").split("\n") if line.startswith("told of")]


def write(hosts: Hosts, host: str) -> None:
    """Make a file in each of the places."""
    script = "; ".join(f"echo x >'{place}new'" for place in EXPECTED)
    hosts.docker(host, "exec", "box", "sh", "-c", script)


def test_a_check_tells_a_program_nothing_of_the_files_that_it_watches(hosts: Hosts) -> None:
    watching(hosts)
    before = told(hosts)
    with untouched(hosts, "box"):
        assert against(look(hosts, "box")) == {}
    assert told(hosts) == before


@pytest.mark.parametrize("strategy", ["stop-and-copy", pytest.param("post-copy", marks=pytest.mark.whole)])
def test_a_migration_that_is_rolled_back_tells_it_nothing(hosts: Hosts, strategy: str) -> None:
    watching(hosts)
    before = told(hosts)
    try:
        with untouched(hosts, "box"), pytest.raises(MigrationFailed) as raised:
            hosts.engine("box", {"frozen": lambda _: break_restore(hosts)}, strategy=strategy)
    finally:
        hosts.sh("destination", "rm -f /usr/local/sbin/criu")
    assert raised.value.step == "restore"
    assert told(hosts) == before


@pytest.mark.parametrize("strategy", ["stop-and-copy", pytest.param("post-copy", marks=pytest.mark.whole)])
def test_its_watches_go_on_with_their_numbers_and_there_is_nothing_in_between(
    hosts: Hosts, strategy: str
) -> None:
    watching(hosts)
    before = told(hosts)
    hosts.engine("box", strategy=strategy)
    assert told(hosts, "destination") == before
    write(hosts, "destination")
    made = [line.split(" ", 3)[3] for line in told(hosts, "destination") if line.split(" ")[2] == "0x100"]
    assert made == [f"{place}new" for place in EXPECTED]


def test_events_that_a_program_never_reads_are_named_beforehand_and_stay(hosts: Hosts) -> None:
    watching(hosts, "never")
    write(hosts, "source")
    found = against(look(hosts, "box"))
    assert any("nobody reads" in what for what in found.values())
    with untouched(hosts, "box"), pytest.raises(SealiftError, match="nobody reads"):
        hosts.engine("box")
