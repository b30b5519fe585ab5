"""A container with a file open under a name that is gone stays as it was when its migration fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from stage import untouched
from test_failures import BROKEN_CRIU

from sealift.errors import MigrationFailed
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

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


@contextlib.contextmanager
def no_restore(stage: Stage) -> Iterator[None]:
    """Restores fail at the destination."""
    stage["destination"].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)
    yield
    stage.sh("destination", "rm -f /usr/local/sbin/criu")


@contextlib.contextmanager
def no_room(stage: Stage) -> Iterator[None]:
    """Dumps fail when all files have been dumped: the destination takes no pages."""
    dumps = "/run/sealift/dumps"
    stage.sh("destination", f"mkdir -p {dumps}; mount -t tmpfs -o size=1m full {dumps}; touch {dumps}/kept")
    yield
    stage.sh("destination", f"umount {dumps}", check=False)


@pytest.mark.parametrize("trouble", [no_restore, no_room])
def test_no_name_of_the_dump_stays_where_the_container_goes_on(
    stage: Stage, trouble: Callable[[Stage], AbstractContextManager[None]]
) -> None:
    tag = images.provide(stage["source"], images.PYTHON, say=print)
    run = ["run", "-d", "--name", "box", "--network", stage.network, "--ip", stage.address()]
    stage.docker("source", *run, "--volume", "box:/home/workload", tag, "python3", "-c", HOLD)
    stage.sh("source", "until docker logs box | grep -q held; do sleep 0.1; done")
    before = names(stage)
    assert before.count("second") == 2
    with untouched(stage, "box"), trouble(stage), pytest.raises(MigrationFailed):
        stage.engine("box")
    assert names(stage) == before
