"""`sealift attest` and `sealift keys`: the verdict alone, and the owner's disk keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import InventoryOption, JsonOption  # noqa: TC001 - typer reads the annotations
from sealift.plain_text import json_text, printable

if TYPE_CHECKING:
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory

keys_app = typer.Typer(no_args_is_help=True, help="Disk keys of encrypted VMs: the owner's keystore.")

HostArgument = Annotated[str, typer.Argument(help="A Docker host of the inventory.")]


def attest_command(
    host: HostArgument,
    provision: Annotated[
        bool,
        typer.Option("--provision", help="Then release its keys: the disk's key, and WireGuard's peers."),
    ] = False,
    fresh_disk: Annotated[
        bool,
        typer.Option(
            "--fresh-disk",
            help="With --provision: format its data disk if it was in use and is now empty.",
        ),
    ] = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attest a host and print the verdict. Exit status 1 if its evidence is not accepted."""
    from sealift import inventory as inventories
    from sealift.attestation.attest import attest
    from sealift.errors import EvidenceRejected, UnusableInput

    if fresh_disk and not provision:
        raise UnusableInput("--fresh-disk needs --provision", remedy="Give both")
    known = inventories.load(inventory)
    try:
        record, connection = attest(known, host)
    except EvidenceRejected as error:
        if as_json:
            said = {**(error.verdict or {}), "host": host, "accepted": False, "reasons": list(error.reasons)}
            sys.stdout.write(json_text(said) + "\n")
        raise
    with connection:
        if as_json:
            said = {"accepted": True, **record.model_dump(mode="json"), "verified": record.sentences()}
            sys.stdout.write(json_text(said) + "\n")
        else:
            sys.stdout.write(printable("\n  ".join([f"{host}: accepted", *record.sentences()])) + "\n")
    if provision:
        _provision(known, host, fresh_disk=fresh_disk).close()


@keys_app.command("list")
def keys_list(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """List the hosts that have a disk key in the keystore. Keys are never printed."""
    from sealift import inventory as inventories
    from sealift.attestation.attest import keystore_of

    store = keystore_of(inventories.load(inventory))
    listed = [
        {
            "host": name,
            "rotation": "none" if not store.pending(name) else "pending" if store.get(name) else "first",
        }
        for name in store.names()
    ]
    if as_json:
        sys.stdout.write(json_text(listed) + "\n")
    else:
        for each in listed:
            note = {
                "pending": "  (a rotation was interrupted)",
                "first": "  (not used by a disk yet)",
            }.get(each["rotation"], "")
            sys.stdout.write(f"{each['host']}{note}\n")


@keys_app.command("rotate")
def keys_rotate(host: HostArgument, inventory: InventoryOption = None) -> None:
    """Attest a VM, and give its disk a new key. The old key opens only older copies of the disk's header."""
    from sealift import inventory as inventories
    from sealift.attestation.attest import keystore_of
    from sealift.attestation.provision import rotate

    known = inventories.load(inventory)
    with _provision(known, host) as connection:
        rotate(connection, host, keystore_of(known))
    sys.stderr.write(f"the disk of {host} has a new key\n")


@keys_app.command("wipe")
def keys_wipe(
    host: HostArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    inventory: InventoryOption = None,
) -> None:
    """Destroy a VM's disk key. Once the VM is off, nobody can read its disk again."""
    from sealift import inventory as inventories
    from sealift.attestation.attest import keystore_of

    store = keystore_of(inventories.load(inventory))
    if not yes:
        typer.confirm(f"All data on the disk of {host} will be lost. Continue?", abort=True)
    with store.turn(host):
        store.wipe(host)
    sys.stderr.write(f"the key of {host} was destroyed\n")


def _provision(known: Inventory, host: str, *, fresh_disk: bool = False) -> Connection:
    """Attest a host and release its keys. Returns the connection that is bound to the evidence."""
    from sealift.attestation.attest import attest, keystore_of
    from sealift.attestation.provision import introduce, provision
    from sealift.attestation.record import pinned
    from sealift.host import ssh
    from sealift.host.agents import Agent

    record, connection = attest(known, host)
    verified = pinned(known)
    provision(verified, record, connection, keystore_of(known), fresh_disk=fresh_disk)
    with ssh.connected("gateway", known.gateway) as line, Agent(line, "gateway") as gateway:
        introduce(verified, host, gateway)
    return connection
