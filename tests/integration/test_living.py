"""A container that lives: whatever it prints, calls itself, and does to its processes and files meanwhile, it moves."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from hosts import kill_agent, untouched
from stress import PROGRAM as STRESS
from stress import question

from sealift.errors import MigrationFailed
from sealift.migration.recovery import recover

if TYPE_CHECKING:
    from hosts import Hosts

    from sealift.migration.session import Session

pytestmark = [pytest.mark.root, pytest.mark.netns]

NAMED = """
import ctypes, os, time
for name in (b"\\xff\\xfe) (", b"a\\nb) S 1 1", b"\\xe2\\x80"):
    if not os.fork():
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
        while True: time.sleep(1)
print("up", flush=True)
while True: time.sleep(1)
"""


def test_a_container_with_process_names_of_any_bytes_moves_and_is_cleaned_up_after(hosts: Hosts) -> None:
    hosts.python("box", NAMED)
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done")
    with untouched(hosts, "box"), pytest.raises(MigrationFailed):
        hosts.engine("box", {"frozen": kill_agent(hosts, "destination", "destination")})
    hosts.engine("box")
    assert recover(hosts.inventory) == []
    assert len(hosts.docker("destination", "top", "box").splitlines()) == 5


SPEAKER = """
import sys, time
text, number = "x" * 590, 0
while True:
    for _ in range(int(sys.argv[1])):
        print(f"{number:08d} {text}"); number += 1
    sys.stdout.flush()
    time.sleep(0.01)
"""


def numbers(hosts: Hosts, host: str) -> list[int]:
    """The lines that a speaker has printed, by their numbers, as Docker gives them."""
    script = "docker logs box 2>/dev/null | cut -d' ' -f1 | tr '\\n' ' '"
    return [int(word) for word in hosts.sh(host, script).split()]


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (1, []),
        (20, ["max-size=100m"]),
        (1, ["max-size=20k", "max-file=200"]),
        (1, ["max-size=20k", "max-file=200", "compress=true"]),
    ],
    ids=["steady", "fast", "rotated", "compressed"],
)
def test_every_line_is_in_the_log_once_and_in_order_at_any_rate(
    hosts: Hosts, lines: int, options: list[str]
) -> None:
    words = [word for option in options for word in ("--log-opt", option)]
    hosts.python("box", SPEAKER, str(lines), options=words)
    time.sleep(2)
    frozen_ms = hosts.engine("box").frozen_ms
    time.sleep(0.5)
    found = numbers(hosts, "destination")
    assert found == list(range(len(found)))
    assert len(found) > 100 * lines
    assert frozen_ms < 10_000  # on a busy machine; 0.2 s on an idle one


def test_lines_of_another_log_driver_stay_and_that_is_said_before(hosts: Hosts) -> None:
    hosts.python("box", SPEAKER, "1", options=["--log-driver", "local"])
    time.sleep(1)
    report = hosts.engine("box")
    assert any("stays at the source (log driver local" in said for said in report.warnings)
    time.sleep(1)
    found = numbers(hosts, "destination")
    assert found == list(range(found[0], found[0] + len(found)))
    assert found[0] > 0


STOP_SHIM = """
p=$(pgrep -f "containerd-shim-runc-v2 -namespace moby -id $(docker ps -aq --no-trunc --filter name=box)")
kill -STOP $p
"""


def test_a_shim_that_hangs_in_the_freeze_is_called_off_in_seconds_and_nothing_stays(hosts: Hosts) -> None:
    hosts.python("box", SPEAKER, "1")
    time.sleep(1)
    began = []

    def stop(_: Session) -> None:
        began.append(time.monotonic())
        hosts.sh("destination", STOP_SHIM)

    before = hosts.inspect("source", "box")["State"]["Pid"]
    with untouched(hosts, "box"):
        with pytest.raises(MigrationFailed, match="does not have it after"):
            hosts.engine("box", {"frozen": stop})
        assert time.monotonic() - began[0] < 60
    assert hosts.inspect("source", "box")["State"]["Pid"] == before
    hosts.engine("box")


@pytest.mark.parametrize("role", ["source", pytest.param("destination", marks=pytest.mark.whole)])
def test_an_agent_that_hangs_in_the_freeze_is_missed_in_seconds_and_ended(hosts: Hosts, role: str) -> None:
    hosts.python("box", SPEAKER, "1")

    def stop(_: Session) -> None:
        hosts.sh(role, f"pkill -STOP -f '^python3 /run/sealift/agent-[^ ]* {role}'")

    began = time.monotonic()
    with untouched(hosts, "box"), pytest.raises(MigrationFailed):
        hosts.engine("box", {"frozen": stop})
    assert time.monotonic() - began < 180
    hosts.engine("box")


def test_a_program_that_does_everything_at_once_moves_there_and_back(hosts: Hosts) -> None:
    stress(hosts, 4)


@pytest.mark.whole
@pytest.mark.timeout(3600)
def test_a_program_that_does_everything_at_once_moves_a_hundred_times(hosts: Hosts) -> None:
    stress(hosts, 100)


def stress(hosts: Hosts, times: int) -> None:
    """Move the stress program there and back. It checks itself, and says what it found."""
    hosts.python("box", STRESS, options=["--init", "--volume", "stress:/data", "--tmpfs", "/scratch"])
    address = hosts.inspect("source", "box")["NetworkSettings"]["Networks"][hosts.network]["IPAddress"]
    hosts.sh("source", "timeout 20 sh -c 'until docker logs box | grep -q up; do sleep 0.1; done'")
    here, there = "source", "destination"
    for number in range(times):
        hosts.engine("box", source=here, destination=there)
        here, there = there, here
        said = json.loads(hosts["client"].run(["python3", "-c", question(address)], timeout_s=30).stdout)
        assert not said["wrong"], (number, said)
        assert min(said["done"].values()) > 0, (number, said)
