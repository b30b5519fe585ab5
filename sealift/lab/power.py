"""The power of one namespaced host: it is cut without notice, and comes back with the content of the disk."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed
from sealift.lab import namespaced, processors, teardown, wiring
from sealift.lab.plan import recipe_of
from sealift.machine.recipe import files_dir
from sealift.machine.tree import build_tree
from sealift.processor.interface import GUEST_SOCKET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.inventory import Inventory
    from sealift.lab.layout import LabHost

SMALL_MIB = 256
DISK_MIB = 6144
OFF_TIMEOUT_S = 20


def enter(
    host: LabHost,
    lower: str,
    directory: Path,
    switch: int,
    *,
    proves_itself: bool,
    binds: Sequence[tuple[Path, str]] = (),
) -> namespaced.NamespacedHost:
    """Start a host of the lab in `directory`, up to the point where it waits for its interfaces."""
    place = directory / host.name
    secure = [(processors.guest_socket(place), GUEST_SOCKET)] if proves_itself else []
    return namespaced.start(
        host.name,
        lower=lower,
        directory=place,
        mark=str(directory),
        tmpfs_mib=DISK_MIB if host.docker else SMALL_MIB,
        docker=host.docker,
        switch=switch,
        binds=[*binds, *secure],
    )


def off(host: LabHost, directory: Path) -> None:
    """Cut the power. Only the disk's content stays.

    The links are removed first, so that no connection is closed. Raises CommandFailed if the host is off or does not
    end.
    """
    mark = str(directory)
    first = namespaced.first_process(host.name, mark)
    if first is None:
        raise CommandFailed("it is switched off already", host=host.name, step="power off")
    wiring.disconnect(namespaced.switch_of(mark), host)
    os.kill(first, signal.SIGKILL)
    processors.end(host.name, mark)
    deadline = time.monotonic() + OFF_TIMEOUT_S
    while Path(f"/proc/{first}").exists():
        teardown.thaw(host.name, mark)  # on cgroup v1 frozen processes do not die
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        if time.monotonic() > deadline:
            raise CommandFailed("its processes did not end", host=host.name, step="power off")
        time.sleep(0.02)


def on(host: LabHost, directory: Path, inventory: Inventory) -> None:
    """Start the same host again with its disk. A host with evidence makes new keys."""
    mark, place = str(directory), directory / host.name
    switch = namespaced.switch_of(mark)
    proves_itself = inventory.machine(host.name).vm is not None
    chip = processors.start(host.name, place, mark) if proves_itself else None
    tree = build_tree(recipe_of(inventory.lab, host), say=lambda _: None)
    lower = f"{place / 'config'}:{files_dir()}:{tree}"
    started = enter(host, lower, directory, switch, proves_itself=proves_itself)
    wiring.connect(switch, host, started.pid, (), str(inventory.network.workloads))
    if chip is not None:
        processors.launch(chip)
    started.release()
