"""Keys for a host whose evidence was verified: its disk's and its peers'. Its peers get its new WireGuard key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.attestation.conversation import result
from sealift.attestation.keystore import draw_key, key_for
from sealift.errors import CommandFailed, HostUnreachable, Refused, UnusableInput
from sealift.host import prepare, ssh
from sealift.network import foreign, peers, wireguard
from sealift_agent.protocol import AdoptKey
from sealift_guest.guest import EMPTY_DISK, PORT, WRONG_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sealift.attestation.keystore import Keystore
    from sealift.attestation.record import Record
    from sealift.host.agents import Caller
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory

STEP = "provision keys"
TOKEN = "/run/sealift/keys/token"  # noqa: S105 - the path of one
ANSWER_TIMEOUT_S = 600
"""Time for the first opening of a data disk, which formats it."""


def provision(
    inventory: Inventory,
    record: Record,
    connection: Connection,
    keystore: Keystore,
    *,
    fresh_disk: bool = False,
) -> str:
    """Release a verified host's keys, over the connection that is bound to its evidence. Returns the guest's answer.

    `inventory` has the keys that were attested. A second call changes nothing. Refused if the host's addresses, which
    the provider chose, would route the tunnel's packets elsewhere. Also refused for a disk that was in use and is empty
    now, unless the owner says that it is a `fresh_disk`.
    """
    foreign.refuse(connection, inventory.network, STEP)
    host = inventory.host(record.host)
    order = {
        "wireguard_port": wireguard.PORT,
        "wireguard_peers": wireguard.render_peers(wireguard.host_peers(inventory, record.host)),
        "network_env": wireguard.environment(inventory, host, role="host"),
    }
    disk = _give_with_key(connection, order, record, keystore, fresh_disk=fresh_disk)
    if record.encrypted_disk and disk not in {"open", "opened"}:
        raise CommandFailed(
            "it reports no encrypted disk, but its image has one",
            host=record.host,
            step=STEP,
            remedy="Build its image again, or correct the inventory",
        )
    prepare.docker_network(connection, inventory.network)
    return {"opened": "disk opened", "open": "disk open already"}.get(disk, "no encrypted disk")


def _give_with_key(
    connection: Connection, order: dict[str, Any], record: Record, keystore: Keystore, *, fresh_disk: bool
) -> str:
    """Order the guest to open its disk. After a killed rotation there are two keys: the one that opens it is kept.

    A disk is formatted if it never used a key, or if the owner says so. Otherwise an empty disk is refused.
    """

    def said(key: str | None, *, fresh: bool) -> str:
        return str(give(connection, "provision", {**order, "disk_key": key, "fresh_disk": fresh}).get("disk"))

    if not record.encrypted_disk:
        return said(None, fresh=False)
    with keystore.turn(record.host):
        settled = keystore.get(record.host)
        key = key_for(keystore, record.host)
        try:
            # The launch secret has opened it already.
            disk = said(key if record.kind == "snp" else None, fresh=fresh_disk or settled is None)
        except CommandFailed as failed:
            pending = keystore.pending(record.host)
            if failed.status == EMPTY_DISK:
                raise _emptied(record.host) from failed
            if pending in {None, key} or failed.status != WRONG_KEY:
                raise
            disk = said(pending, fresh=False)
            key = pending
        # An open disk does not prove which key opened it, unless there was never another one.
        if disk == "opened" or (disk == "open" and settled is None):
            keystore.settle(record.host, key)
    return disk


def _emptied(host: str) -> Refused:
    return Refused(
        "its data disk is empty, but the keystore has a key for it: the provider has emptied or replaced the disk, or "
        "gives the VM another one",
        host=host,
        step=STEP,
        remedy="Nothing was formatted. Ask the provider to restore the disk; to continue with an empty one, "
        f"`sealift attest {host} --provision --fresh-disk`",
    )


def introduce(inventory: Inventory, name: str, gateway: Caller, others: Iterable[Connection] = ()) -> None:
    """Make the gateway and other Docker hosts replace a host's old WireGuard key by its current one."""
    host = inventory.host(name)
    if host.wireguard_key is None or host.tunnel_address is None:
        raise UnusableInput("it has no tunnel_address in the inventory", host=name, step=STEP)
    endpoint = f"{host.address}:{wireguard.PORT}"
    gateway.call(AdoptKey(name, host.wireguard_key, str(host.tunnel_address), endpoint))
    for other in others:
        peers.replace(other, host.wireguard_key, str(host.tunnel_address), endpoint)


def rotate(connection: Connection, name: str, keystore: Keystore) -> None:
    """Change the key of a host's open disk. If it is killed at any point, another call ends with one key that opens it.

    An interrupted rotation is finished first, with its own new key. An order of it may still be in flight, so no key is
    forgotten that the disk may use.
    """
    with keystore.turn(name):
        if keystore.get(name) is None:
            raise UnusableInput(
                "the keystore has no key for it", host=name, remedy="`sealift keys list` shows all"
            )
        if (left_over := keystore.pending(name)) is not None:
            _change_key(connection, name, keystore, left_over)
        _change_key(connection, name, keystore, draw_key())


def _change_key(connection: Connection, name: str, keystore: Keystore, new_key: str) -> None:
    """Change from the current key to another. If the disk has that one already, all other key slots are removed."""
    keystore.propose(name, new_key)
    give(connection, "rekey", {"old_key": keystore.get(name), "new_key": new_key})
    keystore.settle(name, new_key)


def give(connection: Connection, order: str, content: dict[str, Any]) -> dict[str, Any]:
    """Give a guest an order that changes something. CommandFailed has the guest's own sentence."""
    token = connection.run(
        ["cat", TOKEN], remedy="Only a VM of an image that Sealift built has such a program"
    ).stdout
    line = json.dumps({"order": order, "token": token.strip(), **content}).encode()
    answer = ssh.ask(connection, PORT, line, timeout_s=ANSWER_TIMEOUT_S)
    try:
        return result(answer, connection.name)
    except CommandFailed as failed:
        failed.step = failed.step or STEP
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as nonsense:
        raise HostUnreachable("its answer is not valid", host=connection.name, step=STEP) from nonsense
