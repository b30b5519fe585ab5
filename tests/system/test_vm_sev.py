"""Legacy SEV in the vm lab: the same VM, proved by its launch. Last of its folder: the VM is left to that protocol."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from hosts import counting
from untrusted import HOST, changed, plant_image, provider, pull_plug, raise_up

from sealift import inventory as inventories
from sealift.attestation.attest import attest
from sealift.attestation.record import Records
from sealift.errors import EvidenceRejected, HostUnreachable
from sealift.host import ssh
from sealift.lab import processors
from sealift.lab.plan import POLICY
from sealift.machine.expected import expected_digests
from sealift.machine.image import GuestEvidence, build_image
from sealift.machine.manifest import read_manifest
from sealift.machine.recipe import RECIPE, files_dir
from sealift.machine.tree import tree_path
from sealift.model import Evidence

if TYPE_CHECKING:
    from pathlib import Path

    from hosts import Hosts

    from sealift.inventory import Inventory

pytestmark = [
    pytest.mark.root,
    pytest.mark.vm,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("prefect_api"),
]

READY_S = 60
PARTS = ("firmware", "kernel", "initrd", "append")


@pytest.mark.whole
def test_another_image_is_refused_though_its_vm_runs(hosts: Hosts) -> None:
    vm = hosts.inventory.host(HOST).vm
    assert vm is not None
    assert vm.image_folder is not None
    honest = json.loads((vm.image_folder / "manifest.json").read_text())
    pull_plug(hosts)
    with provider(hosts) as machine:
        plant_image(machine, "other", {**honest, "append": honest["append"] + " audit=0"})
    with pytest.raises(EvidenceRejected) as raised:
        attest(changed(hosts.inventory, image="other"), HOST)
    assert "measurement" in str(raised.value)
    with pytest.raises(HostUnreachable):
        ssh.connect(HOST, hosts.inventory.host(HOST)).run(["true"])


@pytest.fixture
def legacy(hosts: Hosts, tmp_path: Path) -> Inventory:
    """The same VM under legacy SEV: another command line, so another image, named by another policy."""
    vm = hosts.inventory.host(HOST).vm
    assert vm is not None
    assert vm.image_folder is not None
    owner = read_manifest(vm.image_folder).append.partition("sealift.owner=")[2].split()[0]
    image = build_image(
        tree_path(RECIPE),
        files_dir(),
        owner_key=owner.replace(",", " "),
        evidence=GuestEvidence.SEV,
        emulated=hosts.inventory.lab is not None and hosts.inventory.lab.accelerator == "tcg",
    )
    digests = expected_digests(image, vm.vcpus, vm.cpu)
    (tmp_path / POLICY).write_text(processors.policy(processors.make_roots(say=print), digests))
    with provider(hosts) as machine:
        plant_image(machine, "legacy", json.loads((image / "manifest.json").read_text()))
    return changed(
        hosts.inventory, evidence="sev", image="legacy", image_folder=image, policy=tmp_path / POLICY
    )


def test_a_legacy_launch_is_refused_for_one_bit_and_proved_without(
    hosts: Hosts, legacy: Inventory, tmp_path: Path
) -> None:
    from flows.migrate import migrate

    vm = legacy.host(HOST).vm
    assert vm is not None
    assert vm.image_folder is not None
    honest = json.loads((vm.image_folder / "manifest.json").read_text())
    pull_plug(hosts)
    for part in PARTS:
        with provider(hosts) as machine:
            if part == "append":
                manifest = {**honest, "append": honest["append"].replace("loglevel=1", "loglevel=7")}
                plant_image(machine, f"odd-{part}", manifest)
            else:
                plant_image(machine, f"odd-{part}", honest, part)
        started = time.monotonic()
        with pytest.raises(EvidenceRejected) as raised:
            attest(changed(legacy, image=f"odd-{part}"), HOST)
        print(f"{part}: refused after {time.monotonic() - started:.1f} s: {raised.value}")
        assert "measurement" in str(raised.value)
    started = time.monotonic()
    raise_up(hosts, legacy)
    took_s = time.monotonic() - started
    print(f"SEV: launch to attested, provisioned, Docker ready: {took_s:.1f} s")
    assert hosts.docker(HOST, "info", "--format", "{{.ServerVersion}}")
    record = Records.of(hosts.inventory).read(HOST)
    assert record is not None
    assert (record.kind, record.emulated) == ("sev", True)
    # A migration under it: the launch that runs vouches for itself again, over a fresh nonce.
    address = hosts.redis("redis", memory_mb=5)
    inventories.save(legacy, tmp_path / "sealift.toml")
    with counting(hosts, address, 0.02) as found:
        report = migrate("redis", "source", HOST, inventory=tmp_path / "sealift.toml")
    assert found[0].intact, found[0].summary()
    assert report.evidence is Evidence.EMULATED
    assert "SEV launch measurement" in report.verified[0]
    again = Records.of(hosts.inventory).read(HOST)
    assert again is not None
    assert again.ssh_host_key == record.ssh_host_key
    assert again.verified_at > record.verified_at
