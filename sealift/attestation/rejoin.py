"""A host that was started again: it has new keys, no open disk and no tunnel, until it is attested again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.attestation.attest import attest, keystore_of, reach
from sealift.attestation.provision import introduce, provision
from sealift.attestation.record import pinned

if TYPE_CHECKING:
    from sealift.host.agents import Caller
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory


def rejoin(inventory: Inventory, name: str, gateway: Caller) -> Connection:
    """A connection to a host that is trusted already. If it was started since, its keys are first released again.

    Fails like `reach`.
    """
    before = pinned(inventory).host(name)
    connection = reach(inventory, name)
    if before.vm is None or connection.host.host_key == before.host_key:
        return connection
    connection.close()
    record, connection = attest(inventory, name)
    known = pinned(inventory).known_as(name, host_key=record.ssh_host_key, wireguard_key=record.wireguard_key)
    provision(known, record, connection, keystore_of(inventory))
    introduce(known, name, gateway)
    return connection
