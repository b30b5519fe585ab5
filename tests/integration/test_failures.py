"""Something fails before the switch: the source goes on, its client connected, and nothing stays at the destination."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, counting, kill_agent, until_same, untouched

from sealift.errors import MigrationFailed, SealiftError
from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

BROKEN_CRIU = """#!/bin/sh
[ "$1" = swrk ] || exec /usr/sbin/criu "$@"
echo "Error (broken): out of order" >&2
exit 1
"""
STARVED_CRIU = """#!/bin/sh
[ "$1" = swrk ] && ulimit -v 60000
exec /usr/sbin/criu "$@"
"""


def fails(hosts: Hosts, hooks: dict[str, Callable[[Session], object]] | None = None) -> SealiftError:
    """A migration of a Redis under a client's hands that must fail, and leave it untouched."""
    address = hosts.redis("redis", memory_mb=20)
    with untouched(hosts, "redis", address), pytest.raises(SealiftError) as raised:
        hosts.engine("redis", hooks)
    assert hosts.owner(address) == "source"
    # What stood in the way is gone: the same container can be migrated now.
    return raised.value


def kept(error: SealiftError, name: str) -> str:
    """A log that was kept on the controller. The error says where."""
    found = re.search(r"CRIU's logs are in (\S+)$", str(error))
    assert found is not None, str(error)
    logs = Path(found[1])
    assert logs.stat().st_mode & 0o777 == 0o700
    assert name in [path.name for path in logs.iterdir()]
    assert (logs / name).stat().st_mode & 0o777 == 0o600
    return (logs / name).read_text()


def test_destination_runs_out_of_room_for_the_pages(hosts: Hosts) -> None:
    dumps = "/run/sealift/dumps"
    # With a file in it this file system is not taken for one of Sealift's own that is no longer needed.
    hosts.sh("destination", f"mkdir -p {dumps}; mount -t tmpfs -o size=4m full {dumps}; touch {dumps}/kept")
    try:
        error = fails(hosts)
    finally:
        hosts.sh("destination", f"umount {dumps}", check=False)
    assert isinstance(error, MigrationFailed)
    assert "the container goes on at source" in str(error)


def test_restore_fails_at_the_destination(hosts: Hosts) -> None:
    def break_criu(_: Session) -> None:
        hosts["destination"].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)

    try:
        error = fails(hosts, {"armed": break_criu})
    finally:
        hosts.sh("destination", "rm -f /usr/local/sbin/criu")
    assert isinstance(error, MigrationFailed)
    assert error.step == "restore"
    assert "Dumping finished successfully" in kept(error, "source-final-dump.log")


def test_criu_s_own_reason_and_its_log_are_kept(hosts: Hosts) -> None:
    def starve_criu(_: Session) -> None:
        hosts["destination"].put("/usr/local/sbin/criu", STARVED_CRIU.encode(), mode=0o755)

    try:
        error = fails(hosts, {"armed": starve_criu})
    finally:
        hosts.sh("destination", "rm -f /usr/local/sbin/criu")
    assert isinstance(error, MigrationFailed)
    assert error.step == "restore"
    log = kept(error, "destination-restore.log")
    assert "Error (criu" in log
    assert "Cannot allocate memory" in error.message, log


def test_dump_fails_at_the_source(hosts: Hosts) -> None:
    def break_criu(_: Session) -> None:
        hosts["source"].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)

    try:
        error = fails(hosts, {"armed": break_criu})
    finally:
        hosts.sh("source", "rm -f /usr/local/sbin/criu")
    assert isinstance(error, MigrationFailed)
    assert error.step == "final dump"


@pytest.mark.parametrize("moment", ["armed", "frozen", "sent"])
def test_agent_of_the_destination_is_killed(hosts: Hosts, moment: str) -> None:
    error = fails(hosts, {moment: kill_agent(hosts, "destination", "destination")})
    assert isinstance(error, MigrationFailed)


def test_agent_of_the_gateway_is_killed_before_the_freeze(hosts: Hosts) -> None:
    error = fails(hosts, {"armed": kill_agent(hosts, "gateway", "gateway")})
    assert isinstance(error, MigrationFailed)


def test_agent_of_the_gateway_is_killed_before_the_decision_and_the_next_one_decides(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=20)
    gateway = hosts.state("gateway")
    with counting(hosts, address) as found:
        hosts.engine("redis", {"frozen": kill_agent(hosts, "gateway", "gateway")})
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "destination"
    assert not until_same(hosts, "gateway", gateway)


@pytest.mark.parametrize("moment", ["armed", "frozen"])
def test_agent_of_the_source_is_killed(hosts: Hosts, moment: str) -> None:
    fails(hosts, {moment: kill_agent(hosts, "source", "source")})


def test_agent_of_the_source_is_killed_when_all_is_sent_and_one_side_has_the_container(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=20)
    with counting(hosts, address) as found:
        with contextlib.suppress(MigrationFailed):
            hosts.engine("redis", {"sent": kill_agent(hosts, "source", "source")})
        time.sleep(0.5)
    assert found[0].intact, found[0].summary()
    owner = hosts.owner(address)
    running = [h for h in DOCKER_HOSTS if hosts.docker(h, "ps", "-q", "--filter", "name=redis")]
    assert running == [owner]


def test_a_failed_migration_can_be_tried_again(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=5)
    with counting(hosts, address) as found:
        with pytest.raises(MigrationFailed):
            hosts.engine("redis", {"armed": kill_agent(hosts, "destination", "destination")})
        hosts.engine("redis")
        time.sleep(0.3)
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "destination"


WITH_A_STOPPED_CHILD = """
import os, signal, time
child = os.fork()
if child == 0:
    while True: time.sleep(1)
os.kill(child, signal.SIGSTOP)
print("up", flush=True)
while True: time.sleep(1)
"""
CHILD_S_STATE = """
p=$(docker inspect -f '{{.State.Pid}}' box)
read child rest </proc/$p/task/$p/children
echo $(cut -d' ' -f3 /proc/$child/stat) $(diff /proc/$p/cgroup /proc/$child/cgroup >/dev/null && echo together)
"""


@pytest.mark.parametrize("role", ["source", "destination"])
def test_a_process_that_a_signal_had_stopped_is_as_it_was_after_a_roll_back(hosts: Hosts, role: str) -> None:
    hosts.python("box", WITH_A_STOPPED_CHILD)
    while "up" not in hosts.docker("source", "logs", "box"):
        time.sleep(0.1)
    assert hosts.sh("source", CHILD_S_STATE) == "T together"
    with untouched(hosts, "box"), pytest.raises(SealiftError):
        hosts.engine("box", {"frozen": kill_agent(hosts, role, role)})
    assert hosts.sh("source", CHILD_S_STATE) == "T together"
    hosts.engine("box")


@pytest.mark.whole
def test_a_dump_that_stands_still_is_given_up_and_the_container_thawed(hosts: Hosts) -> None:
    hosts.redis("redis", memory_mb=5)

    def stop(_: Session) -> None:
        # What stands in for CRIU, and becomes it at the word.
        hosts.sh("source", "pkill -STOP -f '^/bin/sh /usr/libexec/sealift/armed/criu swrk'")

    with untouched(hosts, "redis"), pytest.raises(MigrationFailed) as raised:
        hosts.engine("redis", {"armed": stop})
    assert raised.value.step == "final dump"
    assert "has stood still" in str(raised.value)


STOP_DUMP = """
until grep -q "Dumping pages" /run/sealift/dumps/*/final/dump.log; do :; done
pkill -STOP -f "^criu: dump --rpc"
"""


def test_connections_of_a_dump_that_stood_still_in_the_middle_go_on(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=100)

    def lie_in_wait(_: Session) -> None:
        hosts.sh("source", f"({STOP_DUMP}) >/dev/null 2>&1 </dev/null &")

    with untouched(hosts, "redis", address), pytest.raises(MigrationFailed, match="has stood still"):
        hosts.engine("redis", {"armed": lie_in_wait}, strategy=Strategy.STOP_AND_COPY)
