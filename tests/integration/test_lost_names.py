"""A container with a file open under a name that is gone stays as it was when its migration fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stage import untouched
from test_failures import BROKEN_CRIU

from sealift.errors import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage

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


def names(stage: Stage) -> list[str]:
    """What the container sees where the files are."""
    return stage.docker("source", "exec", "box", "sh", "-c", "ls -a /home/workload /var/tmp").split()


def break_restore(stage: Stage) -> None:
    """The CRIU that is to restore fails."""
    stage["destination"].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)


def take_room(stage: Stage) -> None:
    """The destination takes no more pages: the dump fails when it has been through the files."""
    stage.sh("destination", "mount -o remount,size=1m /run/sealift/dumps")


@pytest.mark.parametrize(
    ("trouble", "step"), [(break_restore, "restore"), (take_room, "final dump")], ids=["restore", "dump"]
)
def test_no_name_of_the_dump_stays_where_the_container_goes_on(
    stage: Stage, trouble: Callable[[Stage], None], step: str
) -> None:
    stage.python("box", HOLD, options=["--volume", "box:/home/workload"])
    stage.sh("source", "until docker logs box | grep -q held; do sleep 0.1; done")
    before = names(stage)
    assert before.count("second") == 2
    try:
        with untouched(stage, "box"), pytest.raises(MigrationFailed) as raised:
            stage.engine("box", {"frozen": lambda _: trouble(stage)})
    finally:
        stage.sh("destination", "rm -f /usr/local/sbin/criu")
    assert raised.value.step == step
    assert names(stage) == before
