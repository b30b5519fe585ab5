"""Everybody who could put a migration right is killed; `recover` does it from the gateway's record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stage import DOCKER_HOSTS, counting, until_same

from sealift.host.agents import Agent
from sealift.migration import recovery

if TYPE_CHECKING:
    from stage import Stage

pytestmark = [pytest.mark.root, pytest.mark.netns]

TESTS = Path(__file__).parents[1]
ALL = ("source@source", "destination@destination", "gateway@gateway")


def doomed(container: str, moment: str, *agents: str) -> None:
    """Run a migration that ends in its controller's death at that moment."""
    command = [sys.executable, str(TESTS / "doomed.py"), container, moment, *agents]
    died = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr


def running(stage: Stage, container: str) -> list[str]:
    """The hosts on which it runs, not frozen or cut off: those that answer a command in it."""
    return [host for host in DOCKER_HOSTS if stage.docker(host, "ps", "-q", "--filter", f"name={container}")]


WHOLE = pytest.mark.whole


@pytest.mark.parametrize(
    ("moment", "agents"),
    [
        pytest.param("armed", ALL, marks=WHOLE),
        ("frozen", ALL),
        pytest.param("dumped", ALL, marks=WHOLE),
        pytest.param("sent", ALL, marks=WHOLE),
        ("received", ALL),
        pytest.param("restored", ALL, marks=WHOLE),
        ("committed", ALL),
        ("frozen", ()),
        pytest.param("committed", (), marks=WHOLE),
        pytest.param("sent", ("destination@destination",), marks=WHOLE),
    ],
)
def test_one_live_copy_is_left_and_nothing_else(stage: Stage, moment: str, agents: tuple[str, ...]) -> None:
    address = stage.redis("redis", memory_mb=10)
    before = {host: stage.look(host) for host in (*DOCKER_HOSTS, "gateway")}
    with counting(stage, address) as found:
        doomed("redis", moment, *agents)
        deadline = time.monotonic() + 60
        while True:
            ended = recovery.recover(stage.inventory)
            with Agent(stage["gateway"], "gateway") as gateway:
                open_ones = gateway.call("unfinished")
            if not open_ones or time.monotonic() > deadline:
                break
            time.sleep(0.5)  # agents that were left alive are still settling it among themselves
        assert not open_ones, ended
        time.sleep(1)
    owner = stage.owner(address)
    print(moment, agents, owner, [one.sentence() for one in ended], found[0].summary())
    assert found[0].intact, found[0].summary()
    assert running(stage, "redis") == [owner]
    for host in before:
        gone = frozenset({"layers"})  # the image, which is no part of the container
        if owner == "destination":
            continue
        left = until_same(stage, host, before[host], allow=gone)
        assert not left, f"{host}: {left}"
    # What is left of it does not stand in the way of the next one.
    if owner == "source":
        stage.engine("redis")
        assert running(stage, "redis") == ["destination"]


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
        doomed("redis", "frozen", *ALL)
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
    doomed("redis", "frozen", *ALL)
    command = [sys.executable, "-m", "sealift.cli", "recover"]
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
