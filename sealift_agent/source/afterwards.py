"""Clean up at the source: remove the copy after a commit, or let the container run on after its agent has died.

The functions here need only the migration's name and container. A controller that takes a migration over calls them in
a new agent, after the decision.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from .. import brake, cgroup, criu, docker_api, dumps, restart, volume_marks
from ..memory import pipes
from ..network import bridge_port, lock, repair
from ..routes import COMMITTED, ROLLED_BACK
from ..trigger import let_go
from ..wire import AgentError
from .dump import DUMP_TIMEOUT_S, PAGES, dismiss

if TYPE_CHECKING:
    from ..protocol import Resume

FETCH_TIMEOUT_S = 600


def remove(container: str) -> None:
    """End this copy without letting it run, and remove it with its files. The other copy has won.

    Named volumes stay, as with `docker rm`.
    """
    try:
        pid = docker_api.call("GET", f"/containers/{container}/json")["State"]["Pid"]
    except docker_api.NotThere:
        return
    if pid:
        restart.suspend(container)  # an older Sealift has not done so, and the policy would start it again
        group = cgroup.of_process(pid)
        ports: list[str] = []
        with contextlib.suppress(AgentError):  # its first process has ended by itself
            ports = bridge_port.outer_ends(f"/proc/{pid}/ns/net")
        cgroup.kill_frozen(group)
        cgroup.thaw(group)
        # A dockerd that dies while it removes a container forgets the network namespace, and the veth pair stays in it.
        for port in ports:
            bridge_port.delete(port)
    docker_api.call("DELETE", f"/containers/{container}?force=1&v=1")


def discard(migration: str, container: str) -> None:
    """Remove this host's copy, after its agent was killed and the migration was committed."""
    with dumps.abandoned(migration, COMMITTED) as directory:
        deadline = time.monotonic() + FETCH_TIMEOUT_S
        while dumps.workers(directory):  # a post-copy's memory is still being fetched
            if time.monotonic() > deadline:
                raise AgentError(f"memory is still being fetched after {FETCH_TIMEOUT_S} s", "finish")
            time.sleep(0.05)
        remove(container)
        volume_marks.leave(migration)
    pipes.put_back(migration)


def resume(order: Resume) -> None:
    """Let the container run on here, after its agent was killed and the migration was rolled back.

    Its restart policy comes back if it was suspended. A host that lost its power still has the container's disk.
    """
    container = order.container
    with dumps.abandoned(order.migration, ROLLED_BACK, kill=True) as directory:
        deadline = time.monotonic() + DUMP_TIMEOUT_S
        while dumps.workers(directory) and time.monotonic() < deadline:
            let_go(directory / "armed")
            with contextlib.suppress(OSError, ValueError):
                dismiss((directory / PAGES).read_text())
            time.sleep(0.05)  # a CRIU that is killed leaves its parasite in the processes that it was dumping
        try:
            state = docker_api.call("GET", f"/containers/{container}/json")["State"]
        except docker_api.NotThere:
            state = {"Pid": 0}  # its owner has removed it meanwhile
        brake.put_back(directory)
        if state["Pid"]:
            bridge_port.find(f"/proc/{state['Pid']}/ns/net", order.address, order.bridge).attach()
            lock.remove(f"/proc/{state['Pid']}/ns/net")
            group = cgroup.of_process(state["Pid"])
            repair.end(cgroup.pids(group))
            cgroup.thaw(group)
            criu.forget_checkpoint(container)
        restart.put_back(container, order.restart_policy)
    pipes.put_back(order.migration)
