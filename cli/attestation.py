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
        bool, typer.Option("--provision", help="Then release its keys: the disk's, and WireGuard's peers.")
    ] = False,
    fresh_disk: Annotated[
        bool,
        typer.Option(
            "--fresh-disk",
            help="With --provision: format its data disk if that is empty, though it was in use.",
        ),
    ] = False,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify what a host is and print the verdict. Exit status 1 if it is not accepted."""
    from sealift import inventory as inventories
    from sealift.attestation.attest import attest
    from sealift.errors import EvidenceRejected, UnusableInput

    if fresh_disk and not provision:
        raise UnusableInput("--fresh-disk goes with --provision", remedy="Give both")
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
    """List whose disk keys the keystore has; never the keys."""
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
                "first": "  (no disk was opened with it yet)",
            }.get(each["rotation"], "")
            sys.stdout.write(f"{each['host']}{note}\n")


@keys_app.command("rotate")
def keys_rotate(host: HostArgument, inventory: InventoryOption = None) -> None:
    """Give a VM's disk a new key, after the VM was attested anew. The old one opens only what was kept of it before."""
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
    """Destroy a VM's disk key: once the VM is off, nobody reads its disk again."""
    from sealift import inventory as inventories
    from sealift.attestation.attest import keystore_of

    store = keystore_of(inventories.load(inventory))
    if not yes:
        typer.confirm(f"What is on the disk of {host} will be lost. Go on?", abort=True)
    with store.turn(host):
        store.wipe(host)
    sys.stderr.write(f"the key of {host} is gone\n")


def _provision(known: Inventory, host: str, *, fresh_disk: bool = False) -> Connection:
    """Attest a host and release its keys; the connection that is bound to the evidence."""
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
