"""A process tree with one of everything moves, and comes back; a client's connection stays throughout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hosts import check_stopped
from menagerie import PORT

from sealift.lab import images
from sealift.model import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

WAIT = (
    "import socket, sys, time\n"
    "end = time.monotonic() + 20\n"
    "while socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))):\n"
    "    assert time.monotonic() < end, 'it does not listen'\n"
    "    time.sleep(0.1)\n"
)
VISIT = (
    "import socket, sys\n"
    "visitor = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)\n"
    "answers = visitor.makefile('r')\n"
    "for line in sys.stdin:\n"
    "    visitor.sendall(b'look\\n')\n"
    "    print(answers.readline(), end='', flush=True)\n"
)


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.POST_COPY])
def test_everything_that_criu_carries_comes_through(hosts: Hosts, strategy: Strategy) -> None:
    address = hosts.address()
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    script = (Path(__file__).parents[1] / "menagerie.py").read_text()
    run = ["run", "--detach", "--name", "menagerie", "--network", hosts.network, "--ip", address, "--init"]
    run += ["--volume", "menagerie-data:/home/workload"]
    hosts.docker("source", *run, tag, "python3", "-u", "-c", script)
    hosts.docker("source", "exec", "menagerie", "python3", "-c", WAIT, str(PORT))
    channel = hosts["client"].open(["python3", "-u", "-c", VISIT, address, str(PORT)])
    answers = channel.makefile("r")

    def look() -> Any:
        channel.sendall(b"look\n")
        return json.loads(answers.readline())

    assert not look()["wrong"], "before anything has happened"
    hosts.engine("menagerie", strategy=strategy)
    there = look()
    hosts.engine("menagerie", source="destination", destination="source", strategy=strategy)
    back = look()
    channel.close()
    assert not there["wrong"]
    assert not back["wrong"]
    assert back["animals"] > 25


def test_a_container_that_is_stopped_by_a_signal_as_a_whole_stays_so_until_it_is_told_to_go_on(
    hosts: Hosts,
) -> None:
    check_stopped(hosts)
