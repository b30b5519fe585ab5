"""The netns lab, up once for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hosts import own_run_directory, raised, set_up

from sealift_agent import libc
from sealift_agent.memory.pipes import FS, SETTINGS
from sealift_agent.network.inside import CLONE_NEWNET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.inventory import Inventory


BEFORE = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Several labs share a kernel, and each would set its limits for pipes back while another needs them raised."""
    config.stash[BEFORE] = {}
    if config.getoption("numprocesses", None) and os.geteuid() == 0 and not hasattr(config, "workerinput"):
        for name, value in SETTINGS.items():
            config.stash[BEFORE][name] = (FS / name).read_text()
            (FS / name).write_text(str(value))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Set them back."""
    for name, value in config.stash[BEFORE].items():
        (FS / name).write_text(value)


@pytest.fixture(scope="session")
def own_network() -> None:
    """Of several processes that test at once each has its own network: a lab's addresses are the machine's."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.geteuid() == 0:
        libc.call("unshare", CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@pytest.fixture(scope="session", autouse=True)
def run_directory(own_network: None) -> Iterator[None]:
    """The tests' lab is none of the user's."""
    with own_run_directory():
        yield


@pytest.fixture(scope="session")
def netns_lab(run_directory: None) -> Iterator[Inventory]:
    """The lab's inventory. It is taken down at the end, whatever happens."""
    with raised("netns") as inventory:
        yield inventory


@pytest.fixture(scope="session")
def all_hosts(netns_lab: Inventory) -> Iterator[Hosts]:
    """Connections to all hosts, open for the session."""
    with set_up(netns_lab) as ready:
        yield ready


@pytest.fixture
def hosts(all_hosts: Hosts) -> Iterator[Hosts]:
    """The lab for one test, cleaned of its containers, volumes and addresses afterwards."""
    yield all_hosts
    all_hosts.clean()
