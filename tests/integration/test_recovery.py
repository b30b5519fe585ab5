"""Everybody who could put a migration right is killed; `recover` does it from the gateway's record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, counting

from benchmarks.faults.controllers import InProcess
from benchmarks.faults.faults import kill_everybody
from benchmarks.faults.moments import moment
from benchmarks.faults.orchestrator import Orchestrator
from benchmarks.faults.trial import Trial
from sealift.lab import lab
from sealift.migration import recovery
from sealift_agent.points import HOLD

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]


def doomed(hosts: Hosts, container: str) -> None:
    """A migration whose controller and agents die when the container is frozen, so that they can put nothing away."""
    log = lab.lab_dir() / "migration.log"
    with (
        Orchestrator.ready() as unused,
        InProcess.of(container, moment("frozen"), "engine", log) as migration,
    ):
        assert migration.arrive(), log.read_text()
        kill_everybody(Trial(hosts.inventory, migration, unused))
    hosts.sh("source", f"rm -r {HOLD}")


def running(hosts: Hosts, container: str) -> list[str]:
    """The hosts on which it runs, not frozen or cut off: those that answer a command in it."""
    return [host for host in DOCKER_HOSTS if hosts.docker(host, "ps", "-q", "--filter", f"name={container}")]


def test_a_migration_that_somebody_is_at_is_left_alone(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=10)
    seen = []
    with counting(hosts, address) as found:
        hosts.engine("redis", {"frozen": lambda _: seen.append(recovery.recover(hosts.inventory))})
    assert found[0].intact, found[0].summary()
    assert seen == [[]]
    assert hosts.owner(address) == "destination"


def test_a_host_that_is_away_keeps_the_record_open_until_it_is_back(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=5)
    with counting(hosts, address) as found:
        doomed(hosts, "redis")
        away = hosts.inventory.hosts["destination"].model_copy(update={"port": 23})
        cut = hosts.inventory.model_copy(update={"hosts": {**hosts.inventory.hosts, "destination": away}})
        (half,) = recovery.recover(cut)
        assert half.outcome == "rolled back"
        assert len(half.left) == 1
        assert "destination" in half.left[0]
        assert running(hosts, "redis") == ["source"]
        (whole,) = recovery.recover(hosts.inventory)
        assert not whole.left
        assert recovery.recover(hosts.inventory) == []
    assert found[0].intact, found[0].summary()


def test_the_command_line_ends_one_by_its_name(hosts: Hosts) -> None:
    hosts.redis("redis", memory_mb=5)
    doomed(hosts, "redis")
    command = [sys.executable, "-m", "cli", "recover"]
    environment = {**os.environ, "SEALIFT_INVENTORY": str(hosts.path)}

    def sealift(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    unknown = sealift("20200101T000000-abcdef")
    assert unknown.returncode == 1
    assert "no unfinished migration" in unknown.stderr
    done = sealift("--json")
    assert done.returncode == 0, done.stderr
    (ended,) = json.loads(done.stdout)
    assert (ended["outcome"], ended["owner"], ended["container"]) == ("rolled back", "source", "redis")
    assert sealift().stdout == "nothing was left unfinished\n"


def test_a_restarted_gateway_sends_each_workload_s_packets_where_its_record_says(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    hosts.engine("redis")
    hosts.sh("gateway", "/usr/libexec/sealift/network down; /usr/libexec/sealift/network up")
    with counting(hosts, address) as found:
        time.sleep(0.5)
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "destination"


STOP_AFTER_CREATE = """
dockerd=$(pgrep -xo dockerd)
ctr -n moby events | while read -r line; do
	case $line in *' /tasks/create '*) kill -STOP $dockerd; pkill -x ctr; break ;; esac
done
"""


def test_a_dockerd_that_dies_before_it_has_noted_the_start_is_told_of_it(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=5)

    def stop(_: object) -> None:
        hosts.sh("destination", 'setsid sh -c "$1" >/dev/null 2>&1 </dev/null &', STOP_AFTER_CREATE)
        time.sleep(0.5)

    def kill(_: object) -> None:
        hosts.sh("destination", "kill -9 $(pgrep -xo dockerd)")

    with counting(hosts, address) as found:
        hosts.engine("redis", {"armed": stop, "committed": kill})
        time.sleep(7)  # containerd puts away what it takes for a failed start after five seconds
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "destination"
    assert running(hosts, "redis") == ["destination"]
