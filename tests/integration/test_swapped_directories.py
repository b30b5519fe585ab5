"""A container that puts links in its directories' places while they are read gets nothing of its host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

SECRETS = "/srv/secrets"
KEEP = 'rm -rf "$1"; mkdir -m 700 "$1" && for n in 1 2 3; do (umask 077; echo "of the host $2" >"$1/key $n"); done'
FIND = 'grep -rlF "of the host $1" /var/lib/docker/overlay2 /var/lib/docker/volumes || true'
SWAP = """
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
def swap(place):
    for name in ("folder", "deep/folder/inner"):
        os.makedirs(f"{place}/{name}", exist_ok=True)
    for link in ("link", "deep/folder/link"):
        os.symlink(sys.argv[1], f"{place}/{link}")
    names = [f"{folder}/key {n}" for folder in ("folder", "deep/folder/inner") for n in (1, 2, 3)]
    print("swaps", flush=True)
    while True:
        for name in names:
            try:
                file = os.open(f"{place}/{name}", os.O_WRONLY | os.O_CREAT, 0o600)
                os.write(file, b"of the container")
                os.close(file)
            except OSError: pass
        if sys.argv[2] == "always" or os.path.exists(f"{place}/now") and not os.path.islink(f"{place}/folder"):
            for one, other in (("folder", "link"), ("deep/folder/inner", "deep/folder/link")):
                libc.renameat2(-100, f"{place}/{one}".encode(), -100, f"{place}/{other}".encode(), 2)
        time.sleep(0.003)
threading.Thread(target=swap, args=("/home/workload",)).start()
swap("/var/tmp")
"""


def start(hosts: Hosts, when: str) -> None:
    for host in ("source", "destination"):
        hosts.sh(host, KEEP, SECRETS, host)
    hosts.python("box", SWAP, SECRETS, when, options=["--volume", "box:/home/workload"])
    hosts.sh("source", "until docker logs box | grep -q swaps; do sleep 0.1; done")


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=[pytest.mark.whole, pytest.mark.timeout(1200)])])
def test_nothing_of_a_host_goes_along_with_a_container_that_swaps_directories_for_links(
    hosts: Hosts, times: int
) -> None:
    order = ["source", "destination"]
    start(hosts, "always")
    for _ in range(times):
        here, there = order
        hosts.engine("box", source=here, destination=there)
        assert hosts.sh(there, FIND, here) == ""
        order.reverse()


def test_nothing_of_a_host_goes_along_where_directories_became_links_just_before_the_freeze(
    hosts: Hosts,
) -> None:
    start(hosts, "later")
    now = "touch /var/tmp/now /home/workload/now; "
    now += "timeout 20 sh -c 'until readlink /var/tmp/folder && readlink /home/workload/folder; do sleep 0.01; done'"
    hosts.engine("box", {"armed": lambda _: hosts.docker("source", "exec", "box", "sh", "-c", now)})
    assert hosts.sh("destination", FIND, "source") == ""
    look = (
        "readlink /var/tmp/folder; readlink /home/workload/deep/folder/inner; cat '/home/workload/link/key 2'"
    )
    shown = hosts.docker("destination", "exec", "box", "sh", "-c", look)
    assert shown.split("\n") == [SECRETS, SECRETS, "of the container"]
