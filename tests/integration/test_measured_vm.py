"""A measured VM under a real QEMU: the firmware checks the kernel hashes, the guest finds its processor's port."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from foreign_acpi import RAN, foreign_table, ran

from sealift.evidence.formats.certificate_table import ARK, parse_certificate_table
from sealift.evidence.formats.guest_messages import parse_response
from sealift.evidence.formats.launch_secret import DISK_KEY_GUID, pack_secret_table
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.secret import package_secret
from sealift.evidence.launch.session import create_session
from sealift.evidence.verify.policy import ExtraRoot, Policy
from sealift.evidence.verify.snp import verify_snp
from sealift.machine.initrd import kernel_of
from sealift.machine.loader import build_loader
from sealift.machine.qemu import QEMU, Accelerator
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path
from sealift.processor.certificates import snp_evidence
from sealift.processor.interface import SEV_POLICY_DEFAULT, Backend, SevLaunch, SevPlatform, SnpLaunch
from sealift.provider.image import read_image
from sealift.provider.orders import EvidenceOrder, InjectOrder, Phase, StartOrder, VmOrder
from sealift.provider.record import Place
from sealift.provider.service import Provider, measured_image
from sealift.provider.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network interface and a chroot"),
]

TIMEOUT_S = 120
APPEND = "console=ttyS0 quiet panic=-1 pci=nocrs"
ORDER = StartOrder("vm", "base", SnpLaunch(), "tap0", "52:54:00:00:00:01", 2, 512, data_disk_mib=4)
GUID = str(DISK_KEY_GUID)

# What the guest runs: it asks its port what a Sealift guest would ask, and powers off.
INIT = """#!/bin/busybox sh
for kind in proc sysfs devtmpfs; do /bin/busybox mount -t $kind none /$kind; done
name=$(/bin/busybox grep -l org.sealift.sev-guest /sysfs/class/virtio-ports/*/name)
exec 3<>/devtmpfs/$(/bin/busybox basename $(/bin/busybox dirname $name))
ask() { printf '\\n%s\\n' "$1" >&3; /bin/busybox head -n1 <&3; }
echo "@report $(ask '{"id":"1","call":"report","payload":"DATA"}')"
echo "@secret $(ask '{"id":"2","call":"secret","guid":"GUID"}')"
echo "@tables $(/bin/busybox ls /sysfs/firmware/acpi/tables | /bin/busybox tr '\\n' ' ')"
echo "@processors $(/bin/busybox nproc)"
/bin/busybox poweroff -f
"""

IN_TREE = (
    "ip tuntap add dev tap0 mode tap && mount -t tmpfs none $1/tmp && mkdir -p $1$2 && "
    'mount --bind "$2" "$1$2" && mount --rbind /dev "$1/dev" && shift 2 && exec chroot "$@"'
)


def cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An initrd: newc entries."""

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    entries = b""
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        entries += pad(b"070701" + b"".join(b"%08X" % field for field in fields) + path) + pad(content)
    return entries


def write_image(image: Path, contents: dict[str, bytes]) -> None:
    """A folder that a provider takes for an image."""
    image.mkdir(parents=True)
    for name, content in contents.items():
        (image / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sizes = {name: len(content) for name, content in contents.items()}
    manifest = {**{name: name for name in contents}, "append": APPEND, "sha256": hashes, "size_bytes": sizes}
    (image / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="slv"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def provider(folder: Path) -> Iterator[Provider]:
    tree = tree_path(RECIPE)
    if not (tree / "usr/share/ovmf/OVMF.amdsev.fd").exists():
        pytest.skip("the Debian tree is not built: `sealift lab up` builds it")
    init = INIT.replace("DATA", base64.b64encode(bytes(96)).decode()).replace("GUID", GUID)
    folders = dict.fromkeys(("bin", "proc", "sysfs", "devtmpfs", "dev"), (stat.S_IFDIR | 493, b""))
    contents = {
        "firmware": (tree / "usr/share/ovmf/OVMF.amdsev.fd").read_bytes(),
        "kernel": build_loader(tree).read_bytes(),
        "initrd": cpio(
            {
                **folders,
                "bin/busybox": (stat.S_IFREG | 0o755, (tree / "bin/busybox").read_bytes()),
                "init": (stat.S_IFREG | 0o755, init.encode()),
            }
        ),
        "root": bytes(1 << 20),
    }
    write_image(folder / "images/base", contents)
    write_image(folder / "images/bare", contents | {"kernel": kernel_of(tree).read_bytes()})
    inside = ("unshare", "--mount", "--net", "sh", "-c", IN_TREE, "qemu")
    settings = Settings(
        processor=Backend.EMULATED,
        accelerator=Accelerator.TCG,
        state=folder / "vms",
        images=folder / "images",
        disks=folder / "disks",
        chip=folder / "chip",
        qemu=(*inside, str(tree), str(folder), str(tree), QEMU, *foreign_table(folder)),
    )
    made = Provider(settings)
    yield made
    made.stop(VmOrder("vm"))


def printed(provider: Provider) -> dict[str, str]:
    """What the guest printed until it ended, by its first word."""
    deadline = time.monotonic() + TIMEOUT_S
    console = Place(provider.settings.state / "vm").folder / "console.log"
    while time.monotonic() < deadline and provider.list_vms().vms[0].phase is not Phase.ENDED:
        time.sleep(0.1)
    lines = console.read_text(errors="replace").splitlines()
    found = [line.partition("@")[2].partition(" ") for line in lines if "@" in line]
    return {name: said for name, _, said in found}


@pytest.fixture(scope="module")
def snp_guest(provider: Provider, folder: Path) -> dict[str, str]:
    """What an SNP guest printed, and what the provider's ACPI table has written meanwhile."""
    provider.start(ORDER)
    return {**printed(provider), "foreign": ran(folder).decode()}


def test_an_snp_guest_asks_behind_measured_firmware(provider: Provider, snp_guest: dict[str, str]) -> None:
    answers = {name: json.loads(snp_guest[name]) for name in ("report", "secret")}
    report = parse_response(base64.b64decode(answers["report"]["payload"])).raw
    table = base64.b64decode(answers["report"]["table"])
    digest = measured_image(ORDER, read_image(provider.settings.images, "base")).digest(Mode.SNP)
    root = ExtraRoot(sha256=parse_x509(parse_certificate_table(table)[ARK]).sha256)
    policy = Policy.model_validate(
        {"extra_roots": [root.model_dump()], "snp": {"measurements": [digest.hex()]}}
    )
    verdict = verify_snp(snp_evidence(report, table), policy, at=datetime.now(UTC), report_data=bytes(64))
    assert verdict.accepted, verdict.reasons
    assert verdict.emulated
    assert "error" in answers["secret"]


def test_a_legacy_guest_finds_the_secret_that_was_injected_before_it_ran(provider: Provider) -> None:
    platform = provider.evidence(EvidenceOrder(Mode.SEV)).platform
    assert isinstance(platform, SevPlatform)
    pdh = platform.chain().pdh
    assert pdh is not None
    owner = create_session(pdh, SEV_POLICY_DEFAULT)
    launch = SevLaunch(SEV_POLICY_DEFAULT, owner.session.pack(), owner.owner_certificate.raw)
    assert provider.start(replace(ORDER, launch=launch)).phase is Phase.WAITING
    measured = provider.evidence(EvidenceOrder(Mode.SEV, "vm")).measurement
    packet = package_secret(owner.keys, measured[:32], pack_secret_table({DISK_KEY_GUID: b"disk key"}))
    provider.inject(InjectOrder("vm", packet.header(), packet.payload))
    assert base64.b64decode(json.loads(printed(provider)["secret"])["secret"]) == b"disk key"


def test_the_kernel_has_the_images_acpi_tables_and_runs_no_code_of_the_providers(
    snp_guest: dict[str, str],
) -> None:
    assert snp_guest["tables"].split() == ["APIC", "DSDT", "FACP", "FACS", "data", "dynamic"]
    assert snp_guest["processors"] == str(ORDER.vcpus)
    assert snp_guest["foreign"] == ""


@pytest.mark.whole
def test_without_the_loader_the_providers_code_would_run(provider: Provider, folder: Path) -> None:
    provider.start(replace(ORDER, image="bare"))
    assert "SSDT" in printed(provider)["tables"].split()
    assert ran(folder) == RAN


def test_the_firmware_does_not_boot_a_kernel_whose_hash_is_not_there(provider: Provider) -> None:
    provider.start(replace(ORDER, kernel_hashes=False))
    console = Place(provider.settings.state / "vm").folder / "console.log"
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and "No bootable option" not in console.read_text(errors="replace"):
        time.sleep(0.1)
    assert "No bootable option" in console.read_text(errors="replace")
    assert "@report" not in console.read_text(errors="replace")
    provider.stop(VmOrder("vm"))
