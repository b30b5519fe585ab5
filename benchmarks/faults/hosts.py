"""Access to the hosts of a lab for faults.

Namespaced hosts are entered from outside, so that nothing on them is needed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.testbed import DOCKER_HOSTS
from sealift.errors import CommandFailed
from sealift.host import ssh
from sealift.lab import lab, namespaced
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.inventory import Inventory
    from sealift.process import Completed

BOOTING_S = 2
"""While a host boots, its first process executes several programs in turn."""

EMULATED = 5
"""The factor by which everything may take longer if hosts are VMs."""


def patience(seconds: float) -> float:
    """Seconds to wait in the running lab. `seconds` are for namespaced hosts."""
    return seconds * EMULATED if is_virtual(lab.running()) else seconds


def is_virtual(inventory: Inventory) -> bool:
    """Whether source and destination are VMs."""
    return inventory.lab is not None and inventory.lab.kind == "vm"


def inside(host: str, script: str, *arguments: str, check: bool = True, timeout_s: float = 60) -> Completed:
    """Run a shell script on a host: see `inside_run`."""
    return inside_run(host, ["sh", "-c", script, "sh", *arguments], check=check, timeout_s=timeout_s)


def inside_run(
    host: str, words: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout_s: float = 60
) -> Completed:
    """Run a command on a host. A namespaced host is entered from outside, without network, login or agent.

    On a VM it runs as the administrator, over SSH. HostUnreachable while it has no power.
    """
    inventory = lab.running()
    if is_virtual(inventory) and host in DOCKER_HOSTS:
        with ssh.connected(host, inventory.machine(host)) as connection:
            given = (stdin or "").encode()
            return connection.run(words, stdin=given, check=check, timeout_s=patience(timeout_s))
    entered = ["nsenter", "--all", "--target", str(_first(host)), *words]
    return run(entered, stdin=stdin, check=check, timeout_s=timeout_s)


def _first(host: str) -> int:
    deadline = time.monotonic() + BOOTING_S
    while (pid := namespaced.first_process(host, str(lab.lab_dir()))) is None:
        if time.monotonic() > deadline:
            raise CommandFailed("it does not run", host=host, step="fault")
        time.sleep(0.02)
    return pid
