"""A writer that was slowed down is given back what it had, whatever ends the migration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hosts import kill_agent

from sealift.errors import SealiftError
from sealift_agent.protocol import SlowDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

BUSY = "print('up', flush=True)\nwhile True: pass"
QUOTA = """
p=$(docker inspect -f '{{.State.Pid}}' "$1")
g=$(sed -n 's/^[0-9]*:\\(cpu\\|cpu,cpuacct\\)://p' /proc/$p/cgroup)
if [ -n "$g" ]; then cat "/sys/fs/cgroup/cpu$g/cpu.cfs_quota_us"
else cut -d' ' -f1 "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$p/cgroup)/cpu.max"; fi
"""


def busy(hosts: Hosts, name: str, *options: str) -> None:
    """A container that uses all of a processor."""
    hosts.python(name, BUSY, options=options)
    time.sleep(0.5)


def quota(hosts: Hosts, host: str, name: str) -> str:
    return hosts.sh(host, QUOTA, name)


def slowed(hosts: Hosts, seen: list[float | str | None]) -> Callable[[Session], None]:
    """A hook that slows the container down until it is at the least, and notes what it was left."""

    def hook(session: Session) -> None:
        left = session.sender.call(SlowDown())
        seen.append(left)
        seen.append(quota(hosts, "source", "box"))
        seen.append(session.sender.call(SlowDown()))

    return hook


def check_slowed(seen: list[float | str | None]) -> None:
    first, written, second = seen
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert 0.05 <= second < first <= 0.7
    assert int(str(written)) == pytest.approx(first * 100_000, abs=2)


def test_after_a_migration_the_copy_has_the_limits_that_docker_gave_it(hosts: Hosts) -> None:
    busy(hosts, "box", "--cpus", "1.5")
    assert quota(hosts, "source", "box") == "150000"
    seen: list[float | str | None] = []
    hosts.engine("box", {"armed": slowed(hosts, seen)})
    check_slowed(seen)
    assert quota(hosts, "destination", "box") == "150000"


@pytest.mark.parametrize("how", ["a failure", "a killed agent"])
def test_after_a_roll_back_the_source_has_what_it_had(hosts: Hosts, how: str) -> None:
    busy(hosts, "box")
    before = quota(hosts, "source", "box")
    seen: list[float | str | None] = []
    slow, role = slowed(hosts, seen), ("destination" if how == "a failure" else "source")

    def armed(session: Session) -> None:
        slow(session)
        kill_agent(hosts, role, role)(session)

    with pytest.raises(SealiftError):
        hosts.engine("box", {"armed": armed})
    check_slowed(seen)
    assert hosts.inspect("source", "box")["State"]["Running"]
    assert quota(hosts, "source", "box") == before
