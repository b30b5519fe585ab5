"""A container with a file open under a name that is gone stays as it was when its migration fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosts import untouched
from test_failures import BROKEN_CRIU

from sealift.errors import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

HOLD = """
import os, time
held = []
for directory in ("/home/workload", "/var/tmp"):
    held.append(open(f"{directory}/first", "w"))
    held[-1].write("here")
    held[-1].flush()
    os.link(f"{directory}/first", f"{directory}/second")
    os.unlink(f"{directory}/first")
print("held", flush=True)
time.sleep(1e9)
"""


def names(hosts: Hosts) -> list[str]:
    """What the container sees where the files are."""
    return hosts.docker("source", "exec", "box", "sh", "-c", "ls -a /home/workload /var/tmp").split()


def break_restore(hosts: Hosts) -> None:
    """The CRIU that is to restore fails."""
    hosts["destination"].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)


def take_room(hosts: Hosts) -> None:
    """The destination takes no more pages: the dump fails when it has been through the files."""
    hosts.sh("destination", "mount -o remount,size=1m /run/sealift/dumps")


@pytest.mark.parametrize(
    ("trouble", "step"), [(break_restore, "restore"), (take_room, "final dump")], ids=["restore", "dump"]
)
def test_no_name_of_the_dump_stays_where_the_container_goes_on(
    hosts: Hosts, trouble: Callable[[Hosts], None], step: str
) -> None:
    hosts.python("box", HOLD, options=["--volume", "box:/home/workload"])
    hosts.sh("source", "until docker logs box | grep -q held; do sleep 0.1; done")
    before = names(hosts)
    assert before.count("second") == 2
    try:
        with untouched(hosts, "box"), pytest.raises(MigrationFailed) as raised:
            hosts.engine("box", {"frozen": lambda _: trouble(hosts)})
    finally:
        hosts.sh("destination", "rm -f /usr/local/sbin/criu")
    assert raised.value.step == step
    assert names(hosts) == before
