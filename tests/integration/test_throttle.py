"""A writer that was slowed down is given back what it had, whatever ends the migration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from stage import kill_agent

from sealift.errors import SealiftError
from sealift_agent.protocol import SlowDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

BUSY = "print('up', flush=True)\nwhile True: pass"
QUOTA = """
p=$(docker inspect -f '{{.State.Pid}}' "$1")
g=$(sed -n 's/^[0-9]*:\\(cpu\\|cpu,cpuacct\\)://p' /proc/$p/cgroup)
if [ -n "$g" ]; then cat "/sys/fs/cgroup/cpu$g/cpu.cfs_quota_us"
else cut -d' ' -f1 "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$p/cgroup)/cpu.max"; fi
"""


def busy(stage: Stage, name: str, *options: str) -> None:
    """A container that uses all of a processor."""
    stage.python(name, BUSY, options=options)
    time.sleep(0.5)


def quota(stage: Stage, host: str, name: str) -> str:
    return stage.sh(host, QUOTA, name)


def slowed(stage: Stage, seen: list[float | str | None]) -> Callable[[Session], None]:
    """A hook that slows the container down until it is at the least, and notes what it was left."""

    def hook(session: Session) -> None:
        left = session.parties.source.agent.call(SlowDown())
        seen.append(left)
        seen.append(quota(stage, "source", "box"))
        seen.append(session.parties.source.agent.call(SlowDown()))

    return hook


def check_slowed(seen: list[float | str | None]) -> None:
    first, written, second = seen
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert 0.05 <= second < first <= 0.7
    assert int(str(written)) == pytest.approx(first * 100_000, abs=2)


def test_after_a_migration_the_copy_has_the_limits_that_docker_gave_it(stage: Stage) -> None:
    busy(stage, "box", "--cpus", "1.5")
    assert quota(stage, "source", "box") == "150000"
    seen: list[float | str | None] = []
    stage.engine("box", {"armed": slowed(stage, seen)})
    check_slowed(seen)
    assert quota(stage, "destination", "box") == "150000"


@pytest.mark.parametrize("how", ["a failure", "a killed agent"])
def test_after_a_roll_back_the_source_has_what_it_had(stage: Stage, how: str) -> None:
    busy(stage, "box")
    before = quota(stage, "source", "box")
    seen: list[float | str | None] = []
    slow, role = slowed(stage, seen), ("destination" if how == "a failure" else "source")

    def armed(session: Session) -> None:
        slow(session)
        kill_agent(stage, role, role)(session)

    with pytest.raises(SealiftError):
        stage.engine("box", {"armed": armed})
    check_slowed(seen)
    assert stage.inspect("source", "box")["State"]["Running"]
    assert quota(stage, "source", "box") == before
