"""What clears up at the destination: a copy that has not won goes, and one that has won is completed.

The functions here need nothing of a migration but names: whoever has taken it over calls them in an agent of his own,
once the migration is decided.
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
"""How long Docker may take to remove a copy before what may keep it from that is killed."""

BY_ITSELF_S = 2
"""How long a runc may take to end once its CRIU has been killed."""

FILL_TIMEOUT_S = 600
PORT = "port"
"""The file of a restore's directory that names the copy's bridge port: a dockerd that dies in a start forgets the veth
pair, and whoever removes the copy has to know it."""


def remove_copy(container: str, volumes: dict[str, str]) -> None:
    """Remove a container that was made for a migration, however far it has come, and its volumes.

    A volume that was created at another time than noted is somebody else's of the same name.
    """
    restore = RESTORES / container
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    timeout_s = AT_FIRST_S
    while True:
        if not (restore / "restored").exists():
            let_go(restore)
            # It traces the processes that it restores. Were they killed under its hands, both would wait for ever.
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
    # A containerd that dies in a start lets its shim go on with it. Docker takes the start for failed, and removes the
    # container without a look at processes that are restored just then.
    forgotten = cgroup.end_container(container, REMOVE_TIMEOUT_S)
    criu.clear_restore(container)
    with contextlib.suppress(OSError):  # it has not come so far
        bridge_port.delete((restore / PORT).read_text())
    if forgotten:
        kill_shim(container)
    for volume, created in volumes.items():
        remove_volume(volume, created)
    shutil.rmtree(restore, ignore_errors=True)


def _kill_restore(restore: Path) -> None:
    """Kill CRIU and what it has begun to restore, also where all of it is frozen.

    runc freezes a group that it kills (version 1), and may be killed itself before it has thawed it.
    """
    for pid in criu.kill_criu(restore):
        with contextlib.suppress(OSError):  # it has ended
            group = cgroup.of_process(pid)
            if cgroup.is_frozen(group):
                cgroup.thaw(group)


def _end_restore(restore: Path) -> None:
    """Docker has removed the container: a runc that still restores it is ended. AgentError if it does not end."""
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
    """Kill all that a start of the container waits for: runc and what stands in for it, then its shim."""
    dumps.kill_workers(restore)
    kill_shim(container)


def remove_volume(name: str, created: str) -> None:
    """Remove a volume, if it is the one that was created then."""
    if (there := volume_marks.described_volume(name)) is not None and there["CreatedAt"] == created:
        docker_api.call("DELETE", f"/volumes/{name}", accept=(204, 404))


def sweep(migration: str, container: str, volumes: dict[str, str]) -> None:
    """After an agent that was killed, and a decision against the migration: nothing of it stays."""
    with dumps.abandoned(migration, ROLLED_BACK, kill=True) as directory:
        if container:
            remove_copy(container, volumes)
        volume_marks.give_back(migration)
        dumps.kill_workers(directory)


def sweep_unnamed(migration: str, name: str, image: str, volumes: list[str]) -> None:
    """The same where nobody wrote down what was created: a container of that name and image, if it never ran.

    Of the volumes, those that are empty.
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
    """What Docker says of a container after its commit, once a start that it has forgotten has been ended."""
    state: dict[str, Any] = docker_api.call("GET", f"/containers/{container}/json")["State"]
    if state["Status"] == "created" and shim is not None and shim.end_start():
        state = docker_api.call("GET", f"/containers/{container}/json")["State"]
    return state


def complete(order: Complete) -> str:
    """After an agent that was killed, and a decision for the migration: the container is reached here.

    Once all of its memory is in, its images and marks go, and it has its restart policy. Returns what Docker says of
    it.
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
            port.introduce(order.address)
        deadline = time.monotonic() + FILL_TIMEOUT_S
        while dumps.workers(directory):
            if time.monotonic() > deadline:
                raise AgentError(f"memory was not complete after {FILL_TIMEOUT_S} s", "finish")
            time.sleep(0.05)
        shutil.rmtree(RESTORES / container, ignore_errors=True)
        restart.put_back(container, order.restart_policy)
    return str(state["Status"])
