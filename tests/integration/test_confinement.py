"""What confines a container goes with it: seccomp filters, no-new-privileges. Docker's user namespaces are refused."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, untouched

from sealift.errors import Refused
from sealift.host import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

FORBIDDEN = 77
OWN_FILTER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": FORBIDDEN}],
}
TRY = """
import ctypes, itertools, os, re, time
KEYCTL, NONE, SECCOMP = 250, 99, re.compile(r"^(Seccomp|NoNewPrivs)\\w*:\\s*\\d+$", re.M)
libc = ctypes.CDLL(None, use_errno=True)
def errno(call, *arguments):
    ctypes.set_errno(0)
    call(*arguments)
    return ctypes.get_errno()
if os.fork() == 0:
    while True: time.sleep(1)
for n in itertools.count():
    words = [found[0] for found in SECCOMP.finditer(open("/proc/self/status").read())]
    words += ["mkdir %d" % errno(libc.mkdir, b"/proc/none", 0o700), "keyctl %d" % errno(libc.syscall, KEYCTL, NONE)]
    print(n, "; ".join(" ".join(word.split()) for word in words), flush=True)
    time.sleep(0.05)
"""
"""It says by which filters it runs, and how calls end: one that OWN_FILTER forbids, and one that Docker's forbids."""


def filters(hosts: Hosts, host: str) -> list[str]:
    """The lines on filters of both processes, as the kernel of the host shows them."""
    pids = hosts.docker(host, "top", "box", "-o", "pid").split()[1:]
    return [hosts.sh(host, "grep -E '^(Seccomp|NoNewPrivs)' /proc/$1/status", pid) for pid in pids]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        pytest.param("", "Seccomp: 2; .*mkdir 2; keyctl 1$", marks=pytest.mark.whole),
        ("seccomp=/root/own.json", f"Seccomp: 2; .*mkdir {FORBIDDEN}; keyctl 95$"),
        pytest.param("seccomp=unconfined", "Seccomp: 0; .*mkdir 2; keyctl 95$", marks=pytest.mark.whole),
        pytest.param("no-new-privileges", "NoNewPrivs: 1; Seccomp: 2; ", marks=pytest.mark.whole),
    ],
)
def test_what_is_forbidden_stays_forbidden(hosts: Hosts, option: str, expected: str) -> None:
    hosts["source"].put("/root/own.json", json.dumps(OWN_FILTER).encode(), mode=0o600)
    hosts.python("box", TRY, options=["--security-opt", option] if option else [])
    before, shown = hosts.said_next("source", within_s=20), filters(hosts, "source")
    assert len(shown) == 2
    assert re.search(expected, before), before
    for _ in range(2):
        for here, there in (DOCKER_HOSTS, DOCKER_HOSTS[::-1]):
            hosts.engine("box", source=here, destination=there)
            assert hosts.said_next(there, within_s=20) == before
            assert filters(hosts, there) == shown


REMAP = r"""
cp /etc/docker/daemon.json /root/daemon.json
sed -i '0,/{/s//{"userns-remap": "default",/' /etc/docker/daemon.json
kill "$(cat /run/docker.pid)"
"""
BACK = """
docker ps -aq | xargs -r docker rm -fv
docker network ls -q --filter name=sealift | xargs -r docker network rm
mv /root/daemon.json /etc/docker/daemon.json
kill "$(cat /run/docker.pid)"
"""
RESTARTED = """
n=0
until docker info --format '{{.SecurityOptions}} ' 2>/dev/null | grep -q "$1"; do
    [ $((n += 1)) -lt 200 ] || exit 1
    sleep 0.1
done
"""


@contextmanager
def remapped(hosts: Hosts, names: Sequence[str]) -> Iterator[None]:
    """Docker on these hosts runs with userns-remap for the length of a block."""
    for host in names:
        hosts.sh(host, REMAP)
    for host in names:
        hosts.sh(host, RESTARTED, "name=userns")
        prepare.docker_network(hosts[host], hosts.inventory.network)
    try:
        yield
    finally:
        for host in names:
            hosts.sh(host, BACK)
        for host in names:
            hosts.sh(host, RESTARTED, "profile=builtin\\(] \\| name=cgroupns\\)")


def owner(hosts: Hosts, host: str) -> str:
    """Whom a program of the image belongs to, as the container sees it."""
    return hosts.docker(host, "exec", "box", "stat", "-Lc", "%u:%g", "/bin/sh")


def test_users_of_dockers_own_are_refused_and_the_remedy_moves(hosts: Hosts) -> None:
    with remapped(hosts, DOCKER_HOSTS):
        hosts.python("box", TRY)
        with untouched(hosts, "box"):
            error = hosts.refuse("box")
        assert isinstance(error, Refused)
        (reason,) = error.reasons
        assert "source: Docker gives all containers a user namespace (userns-remap)" in reason
        assert "--userns=host" in reason
        hosts.docker("source", "rm", "-f", "box")
        hosts.python("box", TRY, options=["--userns=host"])
        before, theirs = hosts.said_next("source", within_s=20), owner(hosts, "source")
        for here, there in (DOCKER_HOSTS, DOCKER_HOSTS[::-1]):
            hosts.engine("box", source=here, destination=there)
            assert hosts.said_next(there, within_s=20) == before
            assert owner(hosts, there) == theirs


def test_hosts_whose_files_have_different_owners_are_refused(hosts: Hosts) -> None:
    with remapped(hosts, ["destination"]):
        for options in ([], ["--userns=host"]):
            hosts.python("box", TRY, options=options)
            with untouched(hosts, "box"):
                error = hosts.refuse("box")
            assert isinstance(error, Refused)
            (reason,) = error.reasons
            assert "destination: the owners of an image's files are shifted by" in reason
            assert "not shifted at the source" in reason
            hosts.docker("source", "rm", "-f", "box")


def test_a_docker_without_root_is_named(hosts: Hosts) -> None:
    hosts.sh("source", "mkdir -p /run/user/1000 && touch /run/user/1000/docker.sock")
    try:
        error = hosts.refuse("box")
    finally:
        hosts.sh("source", "rm -r /run/user/1000")
    assert isinstance(error, Refused)
    assert "there is no container 'box' in root's Docker, and that at /run/user/1000/docker.sock" in str(
        error
    )
