"""The hosts that a measurement runs on, each with a connection of its own, and what a system is given to work with."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealift.attestation.record import pinned
from sealift.errors import UnusableInput
from sealift.host import ssh
from sealift.host.agents import Agent
from sealift.inventory import lab_inventory, load
from sealift.lab import lab
from sealift_agent.protocol import Assign, Release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory
    from sealift.lab.plan import Kind

SOURCE, DESTINATION, GATEWAY, CLIENT = "source", "destination", "gateway", "client"
DOCKER_HOSTS = (SOURCE, DESTINATION)


@dataclass(frozen=True)
class Testbed:
    """Use as `with Testbed.open(inventory, say=…) as testbed`."""

    __test__ = False  # pytest takes every Test… for a test

    inventory: Inventory
    connections: dict[str, Connection]
    gateway: Agent
    say: Callable[[str], None]
    ends: list[Callable[[Testbed], None]] = field(default_factory=list)
    """What is called when the testbed is left: it takes back what was given to the hosts for all measurements."""

    @classmethod
    @contextmanager
    def open(cls, inventory: Inventory, *, say: Callable[[str], None]) -> Iterator[Testbed]:
        """Connect to all hosts. UnusableInput where the inventory has no client."""
        if inventory.client is None:
            raise UnusableInput(
                "the inventory has no client",
                remedy="A measurement needs a machine behind the gateway that asks: `[client]`",
            )
        inventory = pinned(inventory)  # hosts that prove their keys have proved them before
        names = (*DOCKER_HOSTS, GATEWAY, CLIENT)
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(ssh.connected(name, inventory.machine(name))) for name in names
            }
            gateway = stack.enter_context(Agent(opened[GATEWAY], "gateway"))
            testbed = cls(inventory, opened, gateway, say)
            try:
                yield testbed
            finally:
                for end in testbed.ends:
                    end(testbed)

    def __getitem__(self, host: str) -> Connection:
        return self.connections[host]

    def sh(self, host: str, script: str, *arguments: str, timeout_s: float = 120) -> str:
        """Run a shell script on a host; what it printed."""
        command = ["sh", "-euc", script, "sh", *arguments]
        return self.connections[host].run(command, timeout_s=timeout_s).stdout.strip()

    def script(self, host: str, name: str, text: str, *arguments: str, timeout_s: float = 900) -> str:
        """Run a shell script that is put onto the host first, as somebody who uses it would; what it printed."""
        path = f"/run/sealift/{name}.sh"
        self.connections[host].put(path, text.encode())
        return self.connections[host].run(["sh", "-eu", path, *arguments], timeout_s=timeout_s).stdout

    def assign(self, address: str, host: str) -> None:
        """Make the gateway send an address's packets to a host."""
        peer = self.inventory.host(host).wireguard_key
        self.gateway.call(Assign(address, peer or "", host))

    def release(self, address: str) -> None:
        """Take an address back."""
        self.gateway.call(Release(address))

    @property
    def lab_kind(self) -> str:
        """The kind of lab, or `real`."""
        return self.inventory.lab.kind if self.inventory.lab else "real"


@contextmanager
def lab_of(kind: Kind, *, say: Callable[[str], None]) -> Iterator[Inventory]:
    """The lab that is up, if it is of that kind, else one for the length of the block."""
    if lab_inventory().is_file():
        inventory = load(lab_inventory())
        if inventory.lab is None or inventory.lab.kind != kind:
            raise UnusableInput(
                f"a lab of another kind than {kind} is up", remedy="`sealift lab down` ends it"
            )
        yield inventory
        return
    inventory = lab.up(kind, say=say)
    try:
        yield inventory
    finally:
        lab.down()
