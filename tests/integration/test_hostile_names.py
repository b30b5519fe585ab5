"""Whatever a file is called, it comes along: also names that a tool may take for an option, a comment or a pattern."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import hostile_names
import pytest

from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

HERE, THERE = "/srv/#here it is", "/srv/;there it is"
PLACES = ("/var/tmp", "/home/workload", "/bound")
SCRIPT = Path(hostile_names.__file__).read_text(encoding="utf-8")


@pytest.fixture
def bound(hosts: Hosts) -> Iterator[Hosts]:
    """Hosts whose entries in the inventory have a directory for bind mounts, whose path has blanks, too."""
    entries = dict(hosts.inventory.hosts)
    for host, path in (("source", HERE), ("destination", THERE)):
        entries[host] = entries[host].model_copy(update={"binds": {"here": Path(path)}})
        hosts.sh(host, 'mkdir -p "$1"', path)
    yield dataclasses.replace(hosts, inventory=hosts.inventory.model_copy(update={"hosts": entries}))
    hosts.sh("source", 'rm -rf "$1"', HERE)
    hosts.sh("destination", 'rm -rf "$1"', THERE)


@pytest.mark.parametrize("change", ["by-name", "by-directory"])
def test_files_of_any_name_are_the_same_afterwards(bound: Hosts, change: str) -> None:
    tag = images.provide(bound["source"], images.PYTHON, say=print)
    run = ["run", "-d", "--name", "box", "--network", bound.network, "--ip", bound.address()]
    run += ["--volume", "box:/home/workload", "--volume", f"{HERE}:/bound", tag]
    bound.docker("source", *run, "python3", "-c", "import time; time.sleep(1e9)")

    def inside(host: str, what: str) -> str:
        return bound.docker(host, "exec", "box", "python3", "-B", "-c", SCRIPT, what, *PLACES)

    inside("source", "make")
    before: list[str] = []

    def late(_: object) -> None:
        inside("source", change)
        before.extend(inside("source", "list").splitlines())

    bound.engine("box", {"armed": late})
    after = inside("destination", "list").splitlines()
    assert len(before) > 3 * 5 * len(hostile_names.NAMES)
    assert sorted(set(after) - set(before)) == sorted(set(before) - set(after)) == []
    assert after == before


def test_files_too_deep_to_be_sent_are_told_beforehand(hosts: Hosts) -> None:
    dig = "import os, sys, time\nfor _ in range(int(sys.argv[1])):\n os.mkdir('d' * 200)\n os.chdir('d' * 200)\n"
    dig += "open('file', 'w').close()\nprint('up', flush=True)\ntime.sleep(1e9)"
    hosts.python("box", dig, "19", options=["--workdir", "/var/tmp"])
    hosts.python(
        "deeper", dig, "30", options=["--workdir", "/home/workload", "--volume", "box:/home/workload"]
    )
    hosts.sh("source", "for c in box deeper; do until docker logs $c | grep -q up; do sleep 0.1; done; done")
    (reason,) = hosts.refuse("deeper").reasons
    assert "volumes/box/_data there are files whose path is longer than 4000 bytes" in reason
    hosts.engine("box")
    found = hosts.docker("destination", "exec", "box", "find", "/var/tmp", "-name", "file")
    assert len(found) > 19 * 200
