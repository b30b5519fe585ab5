"""Everybody who could put a migration right is killed; `recover` does it from the gateway's record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from stage import DOCKER_HOSTS, counting

from benchmarks.faults.controllers import InProcess
from benchmarks.faults.faults import kill_everybody
from benchmarks.faults.moments import moment
from benchmarks.faults.orchestrator import Orchestrator
from benchmarks.faults.trial import Trial
from sealift.lab import lab
from sealift.migration import recovery
from sealift_agent.points import HOLD

if TYPE_CHECKING:
    from stage import Stage

pytestmark = [pytest.mark.root, pytest.mark.netns]


def doomed(stage: Stage, container: str) -> None:
    """A migration whose controller and agents die when the container is frozen, so that they can put nothing away."""
    log = lab.lab_dir() / "migration.log"
    with (
        Orchestrator.ready() as unused,
        InProcess.of(container, moment("frozen"), "engine", log) as migration,
    ):
        assert migration.arrive(), log.read_text()
        kill_everybody(Trial(stage.inventory, migration, unused))
    stage.sh("source", f"rm -r {HOLD}")


def running(stage: Stage, container: str) -> list[str]:
    """The hosts on which it runs, not frozen or cut off: those that answer a command in it."""
    return [host for host in DOCKER_HOSTS if stage.docker(host, "ps", "-q", "--filter", f"name={container}")]


def test_a_migration_that_somebody_is_at_is_left_alone(stage: Stage) -> None:
    address = stage.redis("redis", memory_mb=10)
    seen = []
    with counting(stage, address) as found:
        stage.engine("redis", {"frozen": lambda _: seen.append(recovery.recover(stage.inventory))})
    assert found[0].intact, found[0].summary()
    assert seen == [[]]
    assert stage.owner(address) == "destination"


def test_a_host_that_is_away_keeps_the_record_open_until_it_is_back(stage: Stage) -> None:
    address = stage.redis("redis", memory_mb=5)
    with counting(stage, address) as found:
        doomed(stage, "redis")
        away = stage.inventory.hosts["destination"].model_copy(update={"port": 23})
        cut = stage.inventory.model_copy(update={"hosts": {**stage.inventory.hosts, "destination": away}})
        (half,) = recovery.recover(cut)
        assert half.outcome == "rolled back"
        assert len(half.left) == 1
        assert "destination" in half.left[0]
        assert running(stage, "redis") == ["source"]
        (whole,) = recovery.recover(stage.inventory)
        assert not whole.left
        assert recovery.recover(stage.inventory) == []
    assert found[0].intact, found[0].summary()


def test_the_command_line_ends_one_by_its_name(stage: Stage) -> None:
    stage.redis("redis", memory_mb=5)
    doomed(stage, "redis")
    command = [sys.executable, "-m", "cli", "recover"]
    environment = {**os.environ, "SEALIFT_INVENTORY": str(stage.path)}

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


def test_a_restarted_gateway_sends_each_workload_s_packets_where_its_record_says(stage: Stage) -> None:
    address = stage.redis("redis")
    stage.engine("redis")
    stage.sh("gateway", "/usr/libexec/sealift/network down; /usr/libexec/sealift/network up")
    with counting(stage, address) as found:
        time.sleep(0.5)
    assert found[0].intact, found[0].summary()
    assert stage.owner(address) == "destination"


STOP_AFTER_CREATE = """
dockerd=$(pgrep -xo dockerd)
ctr -n moby events | while read -r line; do
	case $line in *' /tasks/create '*) kill -STOP $dockerd; pkill -x ctr; break ;; esac
done
"""


def test_a_dockerd_that_dies_before_it_has_noted_the_start_is_told_of_it(stage: Stage) -> None:
    address = stage.redis("redis", memory_mb=5)

    def stop(_: object) -> None:
        stage.sh("destination", 'setsid sh -c "$1" >/dev/null 2>&1 </dev/null &', STOP_AFTER_CREATE)
        time.sleep(0.5)

    def kill(_: object) -> None:
        stage.sh("destination", "kill -9 $(pgrep -xo dockerd)")

    with counting(stage, address) as found:
        stage.engine("redis", {"armed": stop, "committed": kill})
        time.sleep(7)  # containerd puts away what it takes for a failed start after five seconds
    assert found[0].intact, found[0].summary()
    assert stage.owner(address) == "destination"
    assert running(stage, "redis") == ["destination"]
