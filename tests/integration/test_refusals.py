"""Bad input: one clear sentence with host, step and remedy, exit status 1, and the source as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hosts import untouched

from sealift import inventory as inventories
from sealift.errors import HostUnreachable, Refused
from sealift.keys import make_ssh_key
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.inventory import Inventory

pytestmark = [pytest.mark.root, pytest.mark.netns]

SLEEP = ("sh", "-c", "sleep 1000000")  # a shell with an applet of its own: no other program is in the image

IO_URING = """
import ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
print("ring", ring, ctypes.get_errno(), flush=True)
time.sleep(1e9)
"""


def changed(inventory: Inventory, host: str, **fields: Any) -> Inventory:
    """The inventory with one host described otherwise."""
    entry = inventory.hosts[host].model_copy(update=fields)
    return inventory.model_copy(update={"hosts": {**inventory.hosts, host: entry}})


def sleeper(hosts: Hosts, name: str, *options: str, address: str | None = None) -> str:
    """A container of the workloads' network that only sleeps. Returns its address."""
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    address = address or hosts.address()
    network = ["--network", hosts.network, "--ip", address]
    hosts.docker("source", "run", "-d", "--name", name, *network, *options, tag, *SLEEP)
    return address


def says(error: Exception, *parts: str) -> None:
    """The error's sentence names all of these."""
    for part in parts:
        assert part in str(error), f"{part!r} is not in: {error}"


def test_unknown_container(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    with untouched(hosts, "redis", address):
        error = hosts.refuse("nobody")
    says(error, "source", "preflight", "there is no container 'nobody'", "docker ps")


def test_host_that_is_down(hosts: Hosts) -> None:
    sleeper(hosts, "box")
    with untouched(hosts, "box"):
        error = hosts.refuse("box", changed(hosts.inventory, "destination", address="198.18.0.99"))
    assert isinstance(error, HostUnreachable)
    says(error, "destination", "connect", "198.18.0.99", "Check that the host is up")


def test_host_that_shows_another_host_key(hosts: Hosts) -> None:
    sleeper(hosts, "box")
    with untouched(hosts, "box"):
        error = hosts.refuse(
            "box", changed(hosts.inventory, "destination", host_key=make_ssh_key().public, vm=None)
        )
    assert isinstance(error, HostUnreachable)
    says(
        error,
        "destination",
        "connect",
        "another SSH host key than the pinned one",
        "put its new key into the inventory",
    )


def test_host_that_does_not_accept_the_login_key(hosts: Hosts, tmp_path: Path) -> None:
    key = tmp_path / "other"
    key.write_text(make_ssh_key().private)
    sleeper(hosts, "box")
    with untouched(hosts, "box"):
        error = hosts.refuse("box", changed(hosts.inventory, "destination", key_file=key))
    assert isinstance(error, HostUnreachable)
    says(error, "destination", "connect", "does not accept the key", "authorized_keys")


def test_stopped_container(hosts: Hosts) -> None:
    sleeper(hosts, "box")
    hosts.docker("source", "kill", "box")
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(error, "source", "preflight", "does not run (exited)", "Start it")


def test_paused_container(hosts: Hosts) -> None:
    sleeper(hosts, "box")
    hosts.docker("source", "pause", "box")
    error = hosts.refuse("box")
    says(error, "source", "preflight", "is paused", "docker unpause")
    assert hosts.inspect("source", "box")["State"]["Paused"]


def test_container_that_is_at_the_destination_already(hosts: Hosts) -> None:
    tag = images.provide(hosts["destination"], images.PYTHON, say=print)
    hosts.docker("destination", "run", "-d", "--name", "box", tag, *SLEEP)
    error = hosts.refuse("box")
    says(error, "destination", "preflight", "'box' is there already", "Nothing to do")


def test_name_taken_at_the_destination(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    tag = images.provide(hosts["destination"], images.PYTHON, say=print)
    hosts.docker("destination", "create", "--name", "redis", tag, *SLEEP)
    with untouched(hosts, "redis", address):
        error = hosts.refuse("redis")
    says(error, "destination", "preflight", "the name 'redis' is taken there", "Rename or remove it")


def test_address_taken_at_the_destination(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    tag = images.provide(hosts["destination"], images.PYTHON, say=print)
    network = ["--network", hosts.network, "--ip", address]
    hosts.docker("destination", "run", "-d", "--name", "squatter", *network, tag, *SLEEP)
    with untouched(hosts, "redis", address):
        error = hosts.refuse("redis")
    says(
        error,
        "destination",
        "preflight",
        f"the address {address} is taken there, by squatter",
        "another address",
    )


def test_address_that_the_gateway_knows_nothing_of(hosts: Hosts) -> None:
    sleeper(hosts, "box", address="10.77.200.1")
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(error, "gateway", "preflight", "10.77.200.1 is assigned to no host", "sealift network assign")


def test_container_on_another_network(hosts: Hosts) -> None:
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    hosts.docker("source", "run", "-d", "--name", "box", tag, *SLEEP)
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(error, "source", "preflight", "on the networks bridge", "--network sealift")


def test_too_little_disk_at_the_destination(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    room = "$(( $(df -k --output=avail /var/lib/docker | tail -1) - 30000 ))k"
    hosts.sh("destination", f"fallocate -l {room} /var/lib/docker/ballast")
    try:
        with untouched(hosts, "redis", address):
            error = hosts.refuse("redis")
    finally:
        hosts.sh("destination", "rm /var/lib/docker/ballast")
    says(error, "destination", "preflight", "MiB of disk space for Docker free", "needed", "Free some")


def test_too_little_memory_at_the_destination(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    fake = "sed 's/^MemAvailable:.*/MemAvailable:      20000 kB/' /proc/meminfo >/tmp/meminfo"
    hosts.sh("destination", f"{fake} && mount --bind /tmp/meminfo /proc/meminfo")
    try:
        with untouched(hosts, "redis", address):
            error = hosts.refuse("redis")
    finally:
        hosts.sh("destination", "umount /proc/meminfo; rm /tmp/meminfo")
    says(error, "destination", "preflight", "19 MiB of memory free", "needed", "larger host")


@contextmanager
def criu_that_says(hosts: Hosts, host: str, version: str) -> Iterator[None]:
    """For the length of a block, a host's `criu` says that it is of another version."""
    script = (
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Version: {version}" && exit\nexec /usr/sbin/criu "$@"\n'
    )
    hosts[host].put("/usr/local/sbin/criu", script.encode(), mode=0o755)
    try:
        yield
    finally:
        hosts.sh(host, "rm /usr/local/sbin/criu")


@pytest.mark.parametrize("host", ["source", "destination"])
def test_criu_that_is_too_old(hosts: Hosts, host: str) -> None:
    sleeper(hosts, "box")
    with criu_that_says(hosts, host, "3.17.1"), untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(error, host, "preflight", "CRIU 3.17.1 is too old", "Install CRIU 4.2 or later")


def test_container_that_uses_io_uring(hosts: Hosts) -> None:
    hosts.python("ring", IO_URING, options=["--security-opt", "seccomp=unconfined"])
    hosts.sh("source", "until docker logs ring | grep -q ring; do sleep 0.1; done")
    if "ring -1" in hosts.docker("source", "logs", "ring"):
        pytest.skip(f"this kernel has no io_uring: {hosts.docker('source', 'logs', 'ring')}")
    with untouched(hosts, "ring"):
        error = hosts.refuse("ring")
    says(error, "source", "preflight", "io_uring is in use by python3", "switch it off")


def test_container_with_a_process_in_a_control_group_outside_of_it(hosts: Hosts) -> None:
    sleeper(hosts, "box", "--init")
    move = """
    read child rest </proc/$1/task/$1/children
    group=/sys/fs/cgroup/pids$(sed -n 's/^[0-9]*:pids://p' /proc/$child/cgroup)
    mkdir $group-made && echo $child >$group-made/cgroup.procs && echo $group-made
    """
    made = hosts.sh("source", move, str(hosts.inspect("source", "box")["State"]["Pid"]))
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(error, "source", "preflight", "control groups outside of the container's own", "-made)")
    hosts.docker("source", "rm", "-f", "box")
    hosts.sh("source", 'rmdir "$1"', made)


CHILD = """
import os, pty, time
if pty.fork()[0] == 0:
    os.fork() or os.open("/dev/tty", os.O_RDWR)
print("up", flush=True)
time.sleep(1000)
"""


def test_child_with_a_terminal_of_a_session_that_was_begun_inside(hosts: Hosts) -> None:
    hosts.python("box", CHILD)
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done; sleep 0.5")
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(error, "source", "preflight", "(/dev/tty)", "have the program close it")


def test_container_with_a_device(hosts: Hosts) -> None:
    sleeper(hosts, "box", "--device", "/dev/net/tun")
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(
        error,
        "source",
        "preflight",
        "the container has devices: /dev/net/tun",
        "start the container without it",
    )


def test_bind_mount_without_a_counterpart(hosts: Hosts) -> None:
    hosts.sh("source", "mkdir -p /srv/data")
    sleeper(hosts, "box", "--volume", "/srv/data:/data")
    with untouched(hosts, "box"):
        error = hosts.refuse("box")
    says(
        error,
        "source",
        "preflight",
        "the bind mount /srv/data has no counterpart",
        "under `binds` of both hosts",
    )


def test_bind_mount_whose_counterpart_is_missing(hosts: Hosts) -> None:
    hosts.sh("source", "mkdir -p /srv/data")
    sleeper(hosts, "box", "--volume", "/srv/data:/data")
    bound = changed(hosts.inventory, "source", binds={"data": Path("/srv/data")})
    bound = changed(bound, "destination", binds={"data": Path("/srv/nothing")})
    with untouched(hosts, "box"):
        error = hosts.refuse("box", bound)
    says(error, "destination", "preflight", "/srv/nothing for a bind mount is missing", "Create it")


def test_all_reasons_come_at_once(hosts: Hosts) -> None:
    sleeper(hosts, "box", "--pid", "host", "--device", "/dev/net/tun", "--volume", "/srv:/data")
    error = hosts.refuse("box")
    assert isinstance(error, Refused)
    says(error, "process namespace", "devices", "bind mount")
    assert len(error.reasons) >= 3


def cli(*words: str, api: str | None = None) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own."""
    environment = {**os.environ, **({"PREFECT_API_URL": api} if api else {})}
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit status 1, nothing on standard output, no traceback, and the sentence."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sealift: ")
    for part in parts:
        assert part in last, f"{part!r} is not in: {last}"


def test_command_line_refuses_an_unknown_host_with_status_1(hosts: Hosts) -> None:
    done = cli("migrate", "redis", "--from", "nowhere", "--to", "destination")
    one_sentence(done, "the inventory has no host 'nowhere'", "Hosts are: destination, source")


def test_command_line_refuses_an_unreadable_inventory_with_status_1(hosts: Hosts, tmp_path: Path) -> None:
    broken = tmp_path / "sealift.toml"
    broken.write_text("hosts = nonsense")
    done = cli("migrate", "redis", "--from", "source", "--to", "destination", "--inventory", str(broken))
    one_sentence(done, str(broken), "is not readable as TOML")


def test_command_line_refuses_what_the_preflight_refuses_with_status_1(
    hosts: Hosts, prefect_api: str
) -> None:
    sleeper(hosts, "box", "--device", "/dev/net/tun")
    with untouched(hosts, "box"):
        done = cli("migrate", "box", "--from", "source", "--to", "destination", api=prefect_api)
    one_sentence(done, "preflight", "source", "the container has devices", "without it")


def test_command_line_says_which_host_is_down_with_status_1(
    hosts: Hosts, prefect_api: str, tmp_path: Path
) -> None:
    sleeper(hosts, "box")
    other = tmp_path / "other.toml"
    inventories.save(changed(hosts.inventory, "destination", address="198.18.0.99"), other)
    with untouched(hosts, "box"):
        done = cli(
            *("migrate", "box", "--from", "source", "--to", "destination", "--inventory", str(other)),
            api=prefect_api,
        )
    one_sentence(done, "destination", "connect", "198.18.0.99", "Check that the host is up")
