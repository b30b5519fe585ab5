"""Clean up at the destination: remove a copy that has not won, and complete one that has won.

The functions here need only names. A controller that takes a migration over calls them in a new agent, after the
decision.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import cgroup, criu, docker_api, dumps, proc, restart, volume_marks
from ..network import bridge_port
from ..routes import COMMITTED, ROLLED_BACK
from ..shim import Shim, kill_shim
from ..trigger import let_go
from ..wire import AgentError
from .start import RESTORES

if TYPE_CHECKING:
    from ..protocol import Complete

REMOVE_TIMEOUT_S = 30
AT_FIRST_S = 8
"""Seconds that Docker may take to remove a copy. Then the processes that may prevent it are killed."""

BY_ITSELF_S = 2
"""Seconds that runc may take to end after its CRIU was killed."""

FILL_TIMEOUT_S = 600
PORT = "port"
"""The file in a restore's directory that names the copy's bridge port. A dockerd that dies in a start forgets the
veth pair, so the port's name is needed to remove it."""


def remove_copy(container: str, volumes: dict[str, str]) -> None:
    """Remove a container that was made for a migration, in whatever state it is, and its volumes.

    A volume with another time of creation belongs to somebody else and stays.
    """
    restore = RESTORES / container
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    timeout_s = AT_FIRST_S
    while True:
        if not (restore / "restored").exists():
            let_go(restore)
            # CRIU traces the processes that it restores. If these were killed first, CRIU and runc would wait forever.
            _kill_restore(restore)
        try:
            docker_api.call(
                "DELETE", f"/containers/{container}?force=1&v=1", timeout=timeout_s, accept=(204, 404)
            )
            break
        except AgentError:
            if time.monotonic() > deadline:
                raise
            if timeout_s == AT_FIRST_S:  # Docker does nothing with a container whose start hangs
                _end_start(container, restore)
                timeout_s = REMOVE_TIMEOUT_S
            time.sleep(0.1)
    _end_restore(restore)
    # If containerd dies in a start, its shim goes on with it. Docker then assumes that the start has failed, and
    # removes the container without a check for processes that are just being restored.
    forgotten = cgroup.end_container(container, REMOVE_TIMEOUT_S)
    criu.clear_restore(container)
    with contextlib.suppress(OSError):  # it has not got that far
        bridge_port.delete((restore / PORT).read_text())
    if forgotten:
        kill_shim(container)
    for volume, created in volumes.items():
        remove_volume(volume, created)
    shutil.rmtree(restore, ignore_errors=True)


def _kill_restore(restore: Path) -> None:
    """Kill CRIU and the processes that it has begun to restore, even if they are frozen.

    runc freezes a group before it kills it (version 1), and may itself be killed before it thaws the group.
    """
    for pid in criu.kill_criu(restore):
        with contextlib.suppress(OSError):  # it has ended
            group = cgroup.of_process(pid)
            if cgroup.is_frozen(group):
                cgroup.thaw(group)


def _end_restore(restore: Path) -> None:
    """End a runc that still restores a container that Docker has removed. AgentError if it does not end."""
    began = time.monotonic()
    while runcs := [pid for pid in dumps.workers(restore) if proc.stat(pid)[0].startswith("runc")]:
        _kill_restore(restore)
        waited_s = time.monotonic() - began
        if waited_s > BY_ITSELF_S:
            for pid in runcs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if waited_s > REMOVE_TIMEOUT_S:
            raise AgentError("runc, which restores the container, does not end", "finish")
        time.sleep(0.02)


def _end_start(container: str, restore: Path) -> None:
    """Kill all processes that a start of the container waits for: runc and its wrapper, then its shim."""
    dumps.kill_workers(restore)
    kill_shim(container)


def remove_volume(name: str, created: str) -> None:
    """Remove a volume, if it has this time of creation."""
    if (there := volume_marks.described_volume(name)) is not None and there["CreatedAt"] == created:
        docker_api.call("DELETE", f"/volumes/{name}", accept=(204, 404))


def sweep(migration: str, container: str, volumes: dict[str, str]) -> None:
    """Remove everything of a migration, after its agent was killed and it was rolled back."""
    with dumps.abandoned(migration, ROLLED_BACK, kill=True) as directory:
        if container:
            remove_copy(container, volumes)
        volume_marks.give_back(migration)
        dumps.kill_workers(directory)


def sweep_unnamed(migration: str, name: str, image: str, volumes: list[str]) -> None:
    """The same without a record of what was created: a container of that name and image, if it never ran.

    Of the volumes only empty ones are removed.
    """
    try:
        found = docker_api.call("GET", f"/containers/{name}/json")
    except docker_api.NotThere:
        found = None
    mine = found is not None and found["State"]["Status"] == "created" and found["Image"] == image
    there = {
        volume: described
        for volume in volumes
        if (described := volume_marks.described_volume(volume)) is not None
    }
    empty = {
        volume: described["CreatedAt"]
        for volume, described in there.items()
        if not any(Path(described["Mountpoint"]).iterdir())
    }
    sweep(migration, found["Id"] if found and mine else "", {})
    for volume, created in empty.items():
        remove_volume(volume, created)


def started(container: str, shim: Shim | None) -> dict[str, Any]:
    """Docker's description of a container after its commit. A start that Docker has forgotten is ended first."""
    state: dict[str, Any] = docker_api.call("GET", f"/containers/{container}/json")["State"]
    if state["Status"] == "created" and shim is not None and shim.end_start():
        state = docker_api.call("GET", f"/containers/{container}/json")["State"]
    return state


def complete(order: Complete) -> str:
    """Complete a committed migration after its agent was killed: connect the container.

    When all of its memory is in, remove its images and marks, and set its restart policy. Returns Docker's description
    of its state.
    """
    container = order.container
    with dumps.abandoned(order.migration, COMMITTED) as directory:
        volume_marks.arrive(order.migration)
        shim = None
        with contextlib.suppress(OSError, ValueError):
            _, bundle = (RESTORES / container / "waiting").read_text().splitlines()
            shim = Shim(container, Path(bundle))
        state = started(container, shim)
        if state["Pid"]:
            port = bridge_port.find(f"/proc/{state['Pid']}/ns/net", order.address, order.bridge)
            port.attach()
            port.resolve(order.address)
        deadline = time.monotonic() + FILL_TIMEOUT_S
        while dumps.workers(directory):
            if time.monotonic() > deadline:
                raise AgentError(f"memory was not complete after {FILL_TIMEOUT_S} s", "finish")
            time.sleep(0.05)
        shutil.rmtree(RESTORES / container, ignore_errors=True)
        restart.put_back(container, order.restart_policy)
    return str(state["Status"])
