"""The netns lab, up once for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from stage import Stage

from sealift.errors import PrerequisiteMissing
from sealift.host import ssh
from sealift.lab import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.inventory import Inventory

FIRST_ADDRESS = IPv4Address("10.77.1.1")


@pytest.fixture(scope="session", autouse=True)
def run_directory() -> Iterator[None]:
    """The tests' lab is none of the user's: it has a run directory of its own unless one is chosen."""
    if "SEALIFT_RUN" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(
        prefix="sealift-tests-", dir="/run" if os.geteuid() == 0 else None
    ) as chosen:
        os.environ["SEALIFT_RUN"] = chosen
        yield
        del os.environ["SEALIFT_RUN"]


@pytest.fixture(scope="session")
def netns_lab(run_directory: None) -> Iterator[Inventory]:
    """The lab's inventory. It is taken down at the end, whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("a lab needs mmdebstrap")
    try:
        inventory = lab.up("netns", say=print)
    except PrerequisiteMissing as missing:
        pytest.skip(str(missing))
    try:
        yield inventory
    finally:
        lab.down()


@pytest.fixture(scope="session")
def whole_stage(netns_lab: Inventory) -> Iterator[Stage]:
    """Connections to all hosts, open for the session."""
    with ExitStack() as stack:
        names = ("source", "destination", "gateway", "client")
        open_ = {name: stack.enter_context(ssh.connected(name, netns_lab.machine(name))) for name in names}
        yield Stage(netns_lab, open_, (str(FIRST_ADDRESS + number) for number in range(1 << 12)))


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """The lab for one test, cleaned of its containers, volumes and addresses afterwards."""
    yield whole_stage
    whole_stage.clean()
