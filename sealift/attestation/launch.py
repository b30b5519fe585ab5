"""VMs that a provider starts for us, and legacy SEV, whose evidence is the measurement of the launch.

With legacy SEV the platform's chain is verified, a session is made for it, the VM is launched and paused, and its
measurement is verified with the session's TIK. Only then a secret is injected: the disk's key, and an SSH host key and
a WireGuard key that no other machine has. Afterwards only this VM can answer with these keys.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sealift.attestation.conversation import late, rejected
from sealift.attestation.keystore import key_for
from sealift.attestation.record import Record, Records
from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.formats.launch_measurement import parse_measurement
from sealift.evidence.formats.launch_secret import DISK_KEY_GUID, pack_secret_table
from sealift.evidence.formats.sev_attestation_report import parse_attestation_report
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.measurement import measurement_holds
from sealift.evidence.launch.secret import package_secret
from sealift.evidence.launch.session import create_session
from sealift.evidence.verify.sev_launch import LaunchEvidence, verify_attestation, verify_launch
from sealift.evidence.verify.sev_platform import verify_platform
from sealift.evidence.verify.verdict import Reason
from sealift.files import read_bounded
from sealift.host import ssh
from sealift.keys import make_ssh_key, make_wireguard_key
from sealift.processor.interface import SEV_POLICY_DEFAULT, SevLaunch, SevPlatform, SnpLaunch
from sealift.provider.client import ProviderClient
from sealift.provider.orders import Phase, StartOrder
from sealift_guest import guest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.attestation.demand import Demand
    from sealift.attestation.keystore import Keystore
    from sealift.evidence.formats.launch_measurement import Measurement
    from sealift.evidence.formats.platform_chain import PlatformChain
    from sealift.evidence.verify.verdict import Verdict
    from sealift.host.ssh import Connection
    from sealift.inventory import Inventory, Vm
    from sealift.processor.interface import Launch, Platform
    from sealift.provider.orders import VmState

MODE = Mode.SEVES
AMD_CHAIN_LIMIT = 8192
CONFIGURATION_LIMIT = 512 * 1024
NONCE_BYTES = 16


def start_snp(inventory: Inventory, name: str, vm: Vm) -> bool:
    """Make the provider start the VM unless it runs. Returns whether it was started, and so has to boot."""
    with _provider(inventory, name) as client:
        there = _find(client, vm)
        if there is not None and there.phase is Phase.RUNNING:
            return False
        client.start(order(vm, SnpLaunch()))
        return True


def attest_sev(
    inventory: Inventory,
    name: str,
    demand: Demand,
    last: Record | None,
    keystore: Keystore,
    *,
    patience_s: float = 0,
) -> tuple[Record, Connection]:
    """Attest the recorded launch again if it still runs, else make a new launch. A rejected launch is ended."""
    vm = inventory.host(name).vm
    if vm is None or vm.name is None:
        raise UnusableInput("no provider starts it", host=name, step="attest", remedy="Give its `vm` a name")
    with _provider(inventory, name) as client:
        there = _find(client, vm)
        if last is not None and last.kind == "sev" and _is_on_record(there, last):
            record = attest_again(client, vm, demand, last)
        else:
            if there is not None and there.phase is not Phase.ENDED:
                client.stop(vm.name)
            record = launch(client, name, vm, demand, keystore)
            # Saved at once: a launch without its keys would be useless.
            Records.of(inventory).write(record)
    known = inventory.known_as(name, host_key=record.ssh_host_key, wireguard_key=record.wireguard_key)
    return record, ssh.connect(name, known.host(name), patience_s=patience_s)


def launch(client: ProviderClient, name: str, vm: Vm, demand: Demand, keystore: Keystore) -> Record:
    """Launch, verify, inject the secret, resume. EvidenceRejected before any secret was sent; the VM is ended then."""
    chain = _chain(client.evidence(MODE).platform, vm, name)
    platform = _accepted(name, verify_platform(chain, demand.policy))
    if chain.pdh is None:
        raise rejected(name, [Reason("pdh", "the evidence has no PDH")])
    owner = create_session(chain.pdh, SEV_POLICY_DEFAULT)
    ordered = order(vm, SevLaunch(owner.policy, owner.session.pack(), owner.owner_certificate.raw))
    started = client.start(ordered)
    try:
        found = client.evidence(MODE, ordered.vm)
        if found.status is None:
            raise rejected(name, [Reason("measurement", "the provider gives no measurement of the launch")])
        measurement = _parsed(name, found.measurement)
        evidence = LaunchEvidence(
            measurement, found.status.firmware, owner.policy, demand.digests, tik=owner.keys.tik
        )
        verdict = _accepted(name, verify_launch(evidence, demand.policy))
        host_key, tunnel_key = make_ssh_key(), make_wireguard_key()
        with keystore.turn(name):
            disk_key = key_for(keystore, name)
        table = pack_secret_table(
            {
                DISK_KEY_GUID: disk_key.encode(),
                UUID(guest.SSH_HOST_KEY): host_key.private.encode(),
                UUID(guest.WIREGUARD_KEY): tunnel_key.private.encode(),
            }
        )
        client.inject(ordered.vm, package_secret(owner.keys, measurement.mac, table))
    except EvidenceRejected:
        client.stop(ordered.vm)
        raise
    digest = next(
        each
        for each in demand.digests
        if measurement_holds(measurement, owner.keys.tik, found.status.firmware, owner.policy, each)
    )
    return Record(
        host=name,
        kind="sev",
        verified_at=datetime.now(UTC),
        policy_sha256=demand.policy_sha256,
        ssh_host_key=" ".join(host_key.public.split()[:2]),
        wireguard_key=tunnel_key.public,
        measurement=digest.hex(),
        generation=platform.generation,
        root_sha256=platform.root_sha256,
        emulated=platform.emulated,
        answered_by=found.backend.value,
        launch_id=started.launch_id,
        encrypted_disk=demand.encrypted_disk,
        checks=len(platform.checked) + len(verdict.checked),
        unchecked=[*platform.unchecked, *verdict.unchecked],
    )


def attest_again(client: ProviderClient, vm: Vm, demand: Demand, last: Record) -> Record:
    """Ask the platform for a report on the recorded launch over a fresh nonce."""
    nonce, begun = secrets.token_bytes(NONCE_BYTES), time.monotonic()
    found = client.evidence(MODE, vm.name, nonce=nonce)
    waited = timedelta(seconds=time.monotonic() - begun)
    chain = _chain(found.platform, vm, last.host)
    platform = _accepted(last.host, verify_platform(chain, demand.policy))
    if chain.pek is None:
        raise rejected(last.host, [Reason("pek", "the evidence has no PEK")])
    try:
        report = parse_attestation_report(found.attestation_report)
    except UnusableInput as unreadable:
        raise rejected(last.host, [Reason("attestation_report", unreadable.message)]) from unreadable
    verdict = verify_attestation(report, chain.pek, demand.policy, nonce=nonce, digests=demand.digests)
    verdict = _accepted(last.host, verdict.also(late(demand, nonce, waited, datetime.now(UTC))))
    return last.model_copy(
        update={
            "verified_at": datetime.now(UTC),
            "policy_sha256": demand.policy_sha256,
            "measurement": report.digest.hex(),
            "emulated": platform.emulated,
            "checks": len(platform.checked) + len(verdict.checked),
            "unchecked": [*platform.unchecked, *verdict.unchecked],
        }
    )


def order(vm: Vm, launch: Launch | None) -> StartOrder:
    """The provider's order for a VM of the inventory."""
    if not (vm.name and vm.image and vm.tap and vm.mac):
        raise UnusableInput("a VM that a provider starts needs name, image, tap and mac", remedy="Give them")
    configuration = read_bounded(vm.configuration, CONFIGURATION_LIMIT) if vm.configuration else b""
    return StartOrder(
        vm=vm.name,
        image=vm.image,
        launch=launch,
        tap=vm.tap,
        mac=vm.mac,
        vcpus=vm.vcpus,
        memory_mib=vm.memory_mib,
        cpu=vm.cpu,
        data_disk_mib=vm.data_disk_mib,
        configuration=configuration,
        mtu=vm.mtu,
    )


@contextmanager
def _provider(inventory: Inventory, name: str) -> Iterator[ProviderClient]:
    if inventory.provider is None:
        raise UnusableInput(
            "the inventory has no provider to start it", host=name, step="attest", remedy="Add [provider]"
        )
    with ssh.connected("provider", inventory.provider) as connection:
        yield ProviderClient(connection)


def _find(client: ProviderClient, vm: Vm) -> VmState | None:
    return next((each for each in client.list() if each.vm == vm.name), None)


def _is_on_record(there: VmState | None, last: Record) -> bool:
    return there is not None and there.phase is Phase.RUNNING and there.launch_id == last.launch_id


def _chain(platform: Platform, vm: Vm, name: str) -> PlatformChain:
    if not isinstance(platform, SevPlatform):
        raise rejected(name, [Reason("platform", "the provider gives another kind of evidence")])
    amd = [read_bounded(vm.amd_chain, AMD_CHAIN_LIMIT)] if vm.amd_chain else []
    try:
        return platform.chain(*amd)
    except UnusableInput as unreadable:
        raise rejected(name, [Reason("platform", unreadable.message)]) from unreadable


def _parsed(name: str, measurement: bytes) -> Measurement:
    try:
        return parse_measurement(measurement)
    except UnusableInput as unreadable:
        raise rejected(name, [Reason("measurement", unreadable.message)]) from unreadable


def _accepted(name: str, verdict: Verdict) -> Verdict:
    if not verdict.accepted:
        raise rejected(name, verdict.reasons, verdict)
    return verdict
