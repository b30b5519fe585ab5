"""Keys for a host whose evidence was verified: its disk's, and its peers'. The others learn its new key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.attestation.conversation import result
from sealift.attestation.guest import DISK_FAULTS, PORT
from sealift.attestation.keystore import draw_key, key_for
from sealift.errors import CommandFailed, HostUnreachable, UnusableInput
from sealift.host import prepare, ssh
from sealift.network import foreign, peers, wireguard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sealift.attestation.keystore import Keystore
    from sealift.attestation.record import Record
    from sealift.host.agents import Agent
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory

STEP = "provision keys"
TOKEN = "/run/sealift/keys/token"  # noqa: S105 - the path of one
WRONG_KEY = DISK_FAULTS[3]
ANSWER_TIMEOUT_S = 600
"""The first opening of a data disk formats it."""


def provision(inventory: Inventory, record: Record, connection: Connection, keystore: Keystore) -> str:
    """Release what a verified host needs, over the connection that is bound to its evidence. Returns what came.

    `inventory` names the keys that the hosts have proved. Doing it again changes nothing. Refused where its own
    addresses, which the provider wrote, would lead what is meant for the tunnel elsewhere.
    """
    foreign.refuse(connection, inventory.network, STEP)
    host = inventory.host(record.host)
    order = {
        "wireguard_port": wireguard.PORT,
        "wireguard_peers": wireguard.render_peers(wireguard.host_peers(inventory, record.host)),
        "network_env": wireguard.environment(inventory, host, role="host"),
    }
    disk = _give_with_key(connection, order, record, keystore)
    if record.encrypted_disk and disk not in {"open", "opened"}:
        raise CommandFailed(
            "it says that it has no encrypted disk, though one belongs to it",
            host=record.host,
            step=STEP,
            remedy="Build its image again, or correct the inventory",
        )
    prepare.docker_network(connection, inventory.network)
    return {"opened": "disk opened", "open": "disk open already"}.get(disk, "no encrypted disk")


def _give_with_key(connection: Connection, order: dict[str, Any], record: Record, keystore: Keystore) -> str:
    """The order with the disk's key. A killed rotation leaves two: whichever opens the disk is the one."""
    if not record.encrypted_disk:
        return str(give(connection, "provision", {**order, "disk_key": None}).get("disk"))
    pending = keystore.pending(record.host)
    # A launch secret has brought it already.
    key = key_for(keystore, record.host) if record.kind == "snp" else None
    try:
        disk = str(give(connection, "provision", {**order, "disk_key": key}).get("disk"))
    except CommandFailed as failed:
        if pending is None or WRONG_KEY not in failed.message:
            raise
        disk = str(give(connection, "provision", {**order, "disk_key": pending}).get("disk"))
        keystore.settle(record.host)
    else:
        if disk == "opened" and pending is not None:
            keystore.withdraw(record.host)
    return disk


def introduce(inventory: Inventory, name: str, gateway: Agent, others: Iterable[Connection] = ()) -> None:
    """Make the gateway and other Docker hosts take a host's present WireGuard key in place of the one before."""
    host = inventory.host(name)
    if host.wireguard_key is None or host.tunnel_address is None:
        raise UnusableInput("it has no tunnel_address in the inventory", host=name, step=STEP)
    endpoint = f"{host.address}:{wireguard.PORT}"
    gateway.call(
        "adopt", host=name, peer=host.wireguard_key, tunnel=str(host.tunnel_address), endpoint=endpoint
    )
    for other in others:
        peers.replace(other, host.wireguard_key, str(host.tunnel_address), endpoint)


def rotate(connection: Connection, name: str, keystore: Keystore) -> None:
    """Change the key of a host's open disk. Killed at any point, doing it again ends with one key that opens it."""
    old_key, left_over = keystore.get(name), keystore.pending(name)
    if old_key is None:
        raise UnusableInput(
            "the keystore has no key of it", host=name, remedy="`sealift keys list` shows all"
        )
    if left_over is not None:
        try:
            give(connection, "rekey", {"old_key": left_over, "new_key": left_over})
            keystore.settle(name)
            old_key = left_over
        except CommandFailed as failed:
            if WRONG_KEY not in failed.message:
                raise
            keystore.withdraw(name)
    new_key = draw_key()
    keystore.propose(name, new_key)
    give(connection, "rekey", {"old_key": old_key, "new_key": new_key})
    keystore.settle(name)


def give(connection: Connection, order: str, content: dict[str, Any]) -> dict[str, Any]:
    """Give a guest an order that changes something. CommandFailed carries its own sentence."""
    token = connection.run(["cat", TOKEN], remedy="Only a VM of an image that Sealift built has one").stdout
    line = json.dumps({"order": order, "token": token.strip(), **content}).encode()
    answer = ssh.ask(connection, PORT, line, timeout_s=ANSWER_TIMEOUT_S)
    try:
        return result(answer, connection.name)
    except CommandFailed as failed:
        failed.step = failed.step or STEP
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as nonsense:
        raise HostUnreachable("its answer makes no sense", host=connection.name, step=STEP) from nonsense
