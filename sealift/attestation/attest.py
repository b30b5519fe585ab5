"""Attest a host of the inventory. Fresh evidence is used again; otherwise new evidence is fetched and verified."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.attestation.conversation import attest_snp
from sealift.attestation.demand import Demand
from sealift.attestation.keystore import Directory
from sealift.attestation.record import Record, Records, pinned
from sealift.errors import HostUnreachable, UnusableInput
from sealift.host import ssh

if TYPE_CHECKING:
    from sealift.attestation.keystore import Keystore
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory

BOOT_PATIENCE_S = 240
"""Time for a VM that was just started to boot. An emulated VM needs most of a minute."""


def attest(
    inventory: Inventory, name: str, *, keystore: Keystore | None = None, patience_s: float = 0
) -> tuple[Record, Connection]:
    """The verified record of a host, and a connection to it that is bound to that evidence.

    If a provider starts this host, the provider is asked to start it. EvidenceRejected is final; HostUnreachable is
    worth another try.
    """
    host = inventory.host(name)
    if host.vm is None:
        raise UnusableInput(
            "the inventory does not say which evidence it must give",
            host=name,
            step="attest",
            remedy="Give it a table `vm`",
        )
    demand = Demand.of(name, host.vm)
    records = Records.of(inventory)
    last = records.read(name)
    if last is not None and last.is_fresh(demand.policy.evidence_lifetime_s, demand.policy_sha256):
        # If the VM has been started since, it does not have these keys any more, and is attested again.
        with suppress(HostUnreachable):
            return last, ssh.connect(name, _known(inventory, last).host(name))
    others = [record for record in records.all() if record.host != name]
    if host.vm.evidence == "snp":
        if host.vm.name is not None:
            from sealift.attestation import launch  # noqa: PLC0415 - what no provider starts needs no provider

            if launch.start_snp(inventory, name, host.vm):
                patience_s = max(patience_s, BOOT_PATIENCE_S)
        record, connection = attest_snp(name, host, demand, others=others, patience_s=patience_s)
    else:
        from sealift.attestation import launch  # noqa: PLC0415 - as above

        record, connection = launch.attest_sev(
            inventory, name, demand, last, keystore or keystore_of(inventory), patience_s=BOOT_PATIENCE_S
        )
    records.write(record)
    return record, connection


def reach(inventory: Inventory, name: str, *, keystore: Keystore | None = None) -> Connection:
    """A connection to a host that is trusted already: by its host_key, or by keys that were attested.

    A host that was started since then is attested again.
    """
    known = pinned(inventory)
    host = known.host(name)
    if host.vm is None:
        return ssh.connect(name, host)
    if host.host_key is not None:
        try:
            return ssh.connect(name, host)
        except HostUnreachable as unreachable:
            if not ssh.is_another(unreachable):
                raise
    return attest(inventory, name, keystore=keystore)[1]


def keystore_of(inventory: Inventory) -> Keystore:
    """The owner's keystore: a folder, unless the caller gives another."""
    return Directory(inventory.state_folder / "keys")


def _known(inventory: Inventory, record: Record) -> Inventory:
    return inventory.known_as(record.host, host_key=record.ssh_host_key, wireguard_key=record.wireguard_key)
