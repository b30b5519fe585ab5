"""The faults: how each is made in a lab, and how its administrator mends it."""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchmarks.faults.hosts import inside, is_virtual, patience
from benchmarks.faults.moments import MOMENTS
from benchmarks.testbed import DOCKER_HOSTS
from sealift.errors import CommandFailed, UnusableInput
from sealift.lab import lab, power, virtual
from sealift.lab.layout import CONTROLLER, DESTINATION, GATEWAY, SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from benchmarks.faults.moments import Moment
    from benchmarks.faults.trial import Trial
    from sealift.lab.layout import LabHost
    from sealift.lab.plan import Kind

    Deed = Callable[[Trial], object]

ROLES = ("source", "destination", "gateway")
SHORT_CUT_S = 1.0
DOCKER_BACK_S = 60
BOOT_S = 30

KILL = """
for p in /proc/[0-9]*; do
	words=$(tr '\\0' ' ' <"$p/cmdline" 2>/dev/null)
	case $words in $1) kill -9 "${p#/proc/}" ;; esac
done
"""
"""Kill every process whose command line is as the pattern says."""


@dataclass(frozen=True)
class Fault:
    """`mend` follows at once. If the fault `lasts`, it follows after everything that ends without it has ended."""

    name: str
    inject: Deed
    mend: Deed | None = None
    lasts: bool = False
    driver: Literal["engine", "flow", "worker"] = "engine"
    armed: bool = False
    """It is possible only while runc and CRIU are armed."""
    power: str | None = None
    """The host that loses its memory and the processes in it."""

    def at(self, moment: Moment) -> bool:
        """Whether it is possible at that moment."""
        return moment.armed or not self.armed


def kill(host: str, pattern: str) -> Deed:
    """Kill processes of a host by a shell pattern of their command line."""
    return lambda _trial: inside(host, kill_script(pattern), check=False)


def kill_script(pattern: str) -> str:
    """The shell script that does it."""
    return KILL.replace("$1", pattern)


def agent(host: str) -> str:
    """The pattern of a host's agent of the migration."""
    return f'"python3 /run/sealift/agent-"*" {host} "'


ARMED = {
    "source": '"runc --root "*" checkpoint "*|"criu swrk "*|"/bin/sh /usr/libexec/sealift/armed/criu "*',
    "destination": '"/bin/sh /usr/libexec/sealift/restore "*|"runc "*" restore "*|"criu swrk "*|"criu page-server "*|'
    '*"python3 /run/sealift/agent-"*" pager "*|"/bin/sh /usr/libexec/sealift/armed/criu "*',
}


def kill_controller(trial: Trial) -> None:
    """SIGKILL to the process that runs the flow."""
    trial.migration.kill()


def kill_everybody(trial: Trial) -> None:
    """SIGKILL to the controller and all three agents."""
    for host in ROLES:
        kill(host, agent(host))(trial)
    kill_controller(trial)


def cancel(trial: Trial) -> None:
    """SIGTERM to a process, or cancel the run in Prefect's UI."""
    trial.migration.cancel()


def kill_api(trial: Trial) -> None:
    """SIGKILL to the Prefect server that the flow uses. It is not started again."""
    trial.orchestrator.kill_server()


def kill_daemon(host: str, name: str) -> Deed:
    """SIGKILL to a daemon. The service manager of that host starts it again."""
    return kill(host, f'"/usr/bin/{name} "*|"{name} "*')


def docker_answers(host: str) -> Deed:
    """Wait until a host's Docker answers again."""

    def wait(_trial: Trial) -> None:
        deadline = time.monotonic() + patience(DOCKER_BACK_S)
        while inside(host, "docker version >/dev/null 2>&1", check=False).status != 0:
            if time.monotonic() > deadline:
                raise CommandFailed("Docker does not come back", host=host, step="fault")
            time.sleep(0.2)

    return wait


def cut(one: str, other: str, action: str) -> Deed:
    """Cut the link between two machines in both directions (`-I`), or restore it (`-D`)."""

    def do(trial: Trial) -> None:
        address = CONTROLLER if other == "controller" else trial.inventory.machine(other).address
        for chain, way in (("INPUT", "-s"), ("OUTPUT", "-d")):
            inside(one, f"iptables -w {action} {chain} {way} {address} -j DROP")

    return do


def cut_briefly(one: str, other: str) -> Deed:
    """Cut a link for a second, while the migration goes on."""

    def do(trial: Trial) -> None:
        cut(one, other, "-I")(trial)
        trial.migration.go_on()
        time.sleep(SHORT_CUT_S)
        cut(one, other, "-D")(trial)

    return do


FULL = """
for place in /var/lib/docker /run/sealift/dumps; do
	mountpoint -q $place || continue
	set -- $(df -k --output=used,size $place | tail -n 1)
	mount -o remount,size=$(($1 + 8))k $place
	echo "$place $2"
done
"""
"""Limit the file systems to their present content."""


def fill_disk(trial: Trial) -> None:
    """Leave no free space for Docker's files at the destination, nor for images if their place exists already."""
    trial.kept["full"] = inside("destination", FULL).stdout


def empty_disk(trial: Trial) -> None:
    """Room again."""
    for line in trial.kept.pop("full", "").splitlines():
        place, size = line.split()
        inside("destination", f"! mountpoint -q {place} || mount -o remount,size={size}k {place}")


def power_off(host: LabHost) -> Deed:
    """Cut the power of a host."""
    return lambda trial: _supply(host, trial).off(host, lab.lab_dir())


def power_on(host: LabHost) -> Deed:
    """Restore the power of a host. It boots."""

    def do(trial: Trial) -> None:
        _supply(host, trial).on(host, lab.lab_dir(), trial.inventory)
        deadline = time.monotonic() + patience(BOOT_S)
        while not _listens(host):
            if time.monotonic() > deadline:
                raise CommandFailed("it does not come up", host=host.name, step="fault")
            time.sleep(0.1)
        # A VM with evidence has its disk opened, and Docker started, after attestation: `recover` does that.
        locked = is_virtual(trial.inventory) and trial.inventory.machine(host.name).vm is not None
        if host.docker and not locked:
            docker_answers(host.name)(trial)

    return do


def _supply(host: LabHost, trial: Trial) -> ModuleType:
    return virtual if is_virtual(trial.inventory) and host in virtual.VIRTUAL else power


def _listens(host: LabHost) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection((str(host.address), 22), timeout=2) as sshd,
    ):
        return bool(sshd.recv(1))  # its greeting
    return False


LINKS = (
    *itertools.combinations(ROLES, 2),
    *((host, "controller") for host in ROLES),
)

FAULTS = (
    Fault("controller", kill_controller),
    Fault("everybody", kill_everybody),
    *(Fault(f"agent:{host}", kill(host, agent(host))) for host in ROLES),
    *(Fault(f"armed:{host}", kill(host, ARMED[host]), armed=True) for host in DOCKER_HOSTS),
    *(
        Fault(f"{name}:{host}", kill_daemon(host, name), docker_answers(host))
        for host in DOCKER_HOSTS
        for name in ("dockerd", "containerd")
    ),
    *(Fault(f"link:{one}-{other}", cut_briefly(one, other)) for one, other in LINKS),
    *(
        Fault(f"cut:{one}-{other}", cut(one, other, "-I"), cut(one, other, "-D"), lasts=True)
        for one, other in LINKS
    ),
    *(
        Fault(f"power:{host.name}", power_off(host), power_on(host), lasts=True, power=host.name)
        for host in (SOURCE, DESTINATION)
    ),
    Fault("gateway", power_off(GATEWAY), power_on(GATEWAY)),
    Fault("disk", fill_disk, empty_disk, lasts=True),
    Fault("sigterm", cancel, driver="flow"),
    Fault("cancel", cancel, driver="worker"),
    Fault("api", kill_api, driver="flow"),
)

SAMPLE = (
    "controller@frozen",
    "everybody@received",
    "dockerd:destination@copied",
    "link:source-destination@sent",
    "dockerd:source@restored",
    "disk@sync",
)
"""The riskiest cells that fit into 90 seconds."""


@dataclass(frozen=True)
class Cell:
    """One fault at one moment."""

    fault: Fault
    moment: Moment

    @property
    def name(self) -> str:
        """The name by which it is selected."""
        return f"{self.fault.name}@{self.moment.name}"


def cells(patterns: list[str] | tuple[str, ...], kind: Kind = "netns") -> list[Cell]:
    """The cells for FAULT@MOMENT patterns (`*` matches anything); all without a pattern. UnusableInput if none matches.

    In a lab of VMs there are only cells in which a host loses its power.
    """
    faults = [fault for fault in FAULTS if kind == "netns" or fault.power]
    every = [Cell(fault, moment) for fault in faults for moment in MOMENTS if fault.at(moment)]
    chosen: dict[str, Cell] = {}
    for pattern in patterns or ("*",):
        found = [cell for cell in every if fnmatch.fnmatchcase(cell.name, pattern)]
        if not found:
            raise UnusableInput(
                f"no cell is named {pattern!r} in a lab of the kind {kind}",
                remedy=f"FAULT@MOMENT, with a fault of {', '.join(fault.name for fault in faults)} and a moment of "
                f"{', '.join(moment.name for moment in MOMENTS)}",
            )
        chosen |= {cell.name: cell for cell in found}
    return list(chosen.values())
