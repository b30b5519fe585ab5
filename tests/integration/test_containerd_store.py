"""Docker may have containerd keep its images and containers' files: containers move between such hosts."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS

from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

CONFIG = "/etc/docker/daemon.json"
RESTART = """
kill $(pgrep -x dockerd)
sleep 1
until docker info >/dev/null 2>&1; do sleep 0.2; done
docker info --format '{{.DriverStatus}}'
"""
WRITES = r"""
import time
number = 0
with open("/kept", "a+") as kept:
    while True:
        kept.write(f"{number}\n")
        kept.flush()
        kept.seek(0)
        said = kept.read().split()
        print("right" if said == [str(each) for each in range(number + 1)] else "wrong", number, flush=True)
        number += 1
        time.sleep(0.1)
"""


def restart(hosts: Hosts, host: str, config: bytes) -> str:
    hosts[host].put(CONFIG, config)
    return hosts.sh(host, RESTART)


@pytest.fixture(params=[DOCKER_HOSTS, ("destination",)], ids=["both", "destination only"])
def stores(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """Hosts whose Docker has containerd keep its images, for the length of a test. Returns their names."""
    before = {host: hosts.sh(host, f"cat {CONFIG}").encode() for host in request.param}
    try:
        for host, config in before.items():
            settings = json.loads(config)
            settings.pop("storage-driver")
            settings["features"] = {"containerd-snapshotter": True}
            assert "containerd.snapshotter" in restart(hosts, host, json.dumps(settings).encode())
        yield request.param
        hosts.clean()
    finally:
        for host, config in before.items():
            assert "containerd.snapshotter" not in restart(hosts, host, config)


def test_a_container_moves_with_what_it_has_written(hosts: Hosts, stores: tuple[str, ...]) -> None:
    hosts.python("box", WRITES)
    hosts.sh("source", "until docker logs box 2>&1 | grep -q right; do sleep 0.1; done")
    if stores != DOCKER_HOSTS:
        error = hosts.refuse("box")
        assert "keeps images in containerd's image store, the source's in a store of its own" in str(error)
        assert "containerd-snapshotter" in str(error)
        return
    for source, destination, strategy in (
        ("source", "destination", Strategy.AUTO),
        ("destination", "source", Strategy.POST_COPY),
    ):
        hosts.engine("box", None, source, destination, strategy=strategy)
        before = hosts.docker(destination, "logs", "--tail", "1", "box")
        time.sleep(0.5)
        assert hosts.docker(destination, "logs", "--tail", "1", "box") != before
    assert "wrong" not in hosts.docker("source", "logs", "box")
    hosts.docker("source", "restart", "-t", "1", "box")
