"""libvirt's own validator agrees on measurements, VMSAs and secrets, in both directions."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from sealift.evidence.formats.firmware import parse_firmware
from sealift.evidence.formats.launch_measurement import Firmware, parse_measurement
from sealift.evidence.formats.launch_secret import DISK_KEY_GUID, parse_secret_packet, parse_secret_table
from sealift.evidence.formats.launch_session import TransportKeys
from sealift.evidence.formats.vmsa import cpu_signature
from sealift.evidence.launch.digest import Mode, Processors, launch_digest
from sealift.evidence.launch.kernel_hashes import hash_boot
from sealift.evidence.launch.measurement import measure
from sealift.evidence.launch.secret import unpack_secret

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle

TOOL = shutil.which("virt-qemu-sev-validate")
# The tool is a Python program of the distribution, whatever Python is first on the path.
COMMAND = ["/usr/bin/python3", TOOL or ""]
KEYS = TransportKeys(tek=bytes(range(16)), tik=bytes(range(16, 32)))
FIRMWARE = Firmware(0, 24, 15)
CPU = (25, 1, 1)
APPEND = "root=/dev/dm-0 console=ttyS0"
OTHER_GUID = UUID("736869e5-aaaa-4973-92ec-06879ce3da0b")


@pytest.fixture(scope="module")
def tool() -> list[str]:
    if TOOL is None:
        pytest.skip("virt-qemu-sev-validate is not installed (libvirt-clients-qemu)")
    probe = subprocess.run([*COMMAND, "--help"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("virt-qemu-sev-validate does not start: its Python modules are missing")
    return COMMAND


@pytest.fixture
def launch(vectors: Path, tmp_path: Path) -> tuple[Path, bytes]:
    suffix = (vectors / "measurement/ovmf_amdsev_el9_trimmed.bin").read_bytes()
    for name, content in (
        ("firmware", bytes(8192) + suffix),
        ("kernel", b"kernel" * 500),
        ("initrd", b"initrd" * 500),
        ("tik", KEYS.tik),
        ("tek", KEYS.tek),
        ("secret", b"open sesame"),
    ):
        (tmp_path / name).write_bytes(content)
    return tmp_path, bytes(8192) + suffix


def measured(image: bytes, mode: Mode, vcpus: int, policy: int, *, kernel: bool) -> bytes:
    # Its hash table ends in padding even when aligned; ours has 176 bytes as QEMU's: the same here.
    hashes = hash_boot(b"kernel" * 500, b"initrd" * 500, APPEND) if kernel else None
    processors = Processors(vcpus, cpu_signature(*CPU), 0, legacy_vm_type=True)
    digest = launch_digest(mode, parse_firmware(image), hashes, processors)
    return measure(KEYS.tik, FIRMWARE, policy, digest, hashlib.md5(digest).digest()).pack()


def arguments(folder: Path, blob: bytes, vcpus: int, policy: int, *, kernel: bool) -> list[str]:
    said = {
        "--measurement": b64encode(blob).decode(),
        "--api-major": FIRMWARE.api_major,
        "--api-minor": FIRMWARE.api_minor,
        "--build-id": FIRMWARE.build,
        "--policy": policy,
        "--firmware": folder / "firmware",
        "--tik": folder / "tik",
        "--tek": folder / "tek",
    }
    if kernel:
        said |= {"--kernel": folder / "kernel", "--initrd": folder / "initrd", "--cmdline": APPEND}
    if policy & 4:
        family, model, stepping = CPU
        said |= {
            "--num-cpus": vcpus,
            "--cpu-family": family,
            "--cpu-model": model,
            "--cpu-stepping": stepping,
        }
    return [str(part) for pair in said.items() for part in pair]


@pytest.mark.parametrize(
    ("mode", "vcpus", "policy"), [(Mode.SEV, 1, 3), (Mode.SEVES, 1, 7), (Mode.SEVES, 4, 0xF)]
)
@pytest.mark.parametrize("kernel", [True, False])
def test_libvirt_accepts_our_measurements_and_rejects_changed_ones(
    tool: list[str],
    launch: tuple[Path, bytes],
    mode: Mode,
    vcpus: int,
    policy: int,
    kernel: bool,
) -> None:
    folder, image = launch
    blob = measured(image, mode, vcpus, policy, kernel=kernel)
    good = [*tool, *arguments(folder, blob, vcpus, policy, kernel=kernel)]
    done = subprocess.run(good, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    changed = bytes([blob[0] ^ 1]) + blob[1:]
    bad = [*tool, *arguments(folder, changed, vcpus, policy, kernel=kernel)]
    assert subprocess.run(bad, capture_output=True, check=False).returncode != 0


def test_we_open_the_secrets_that_libvirt_packages(tool: list[str], launch: tuple[Path, bytes]) -> None:
    folder, image = launch
    blob = measured(image, Mode.SEVES, 2, 0xF, kernel=True)
    command = [
        *tool,
        *arguments(folder, blob, 2, 0xF, kernel=True),
        "--inject-secret",
        f"luks-key:{folder / 'secret'}",
        "--inject-secret",
        f"{OTHER_GUID}:{folder / 'kernel'}",
        "--secret-header",
        str(folder / "header"),
        "--secret-payload",
        str(folder / "payload"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    packet = parse_secret_packet(
        b64decode((folder / "header").read_text()), b64decode((folder / "payload").read_text())
    )
    table = parse_secret_table(unpack_secret(KEYS, parse_measurement(blob).mac, packet))
    assert table == {DISK_KEY_GUID: b"open sesame", OTHER_GUID: b"kernel" * 500}


def test_libvirt_packages_the_secrets_that_we_package(
    tool: list[str], launch: tuple[Path, bytes], tmp_path: Path
) -> None:
    # Its own code, with our iv in place of its random one, must give our header and payload.
    from sealift.evidence.formats.launch_secret import pack_secret_table
    from sealift.evidence.launch.secret import package_secret

    folder, image = launch
    blob = measured(image, Mode.SEVES, 1, 0xF, kernel=True)
    # Lengths where the peer's padding (a block more when already aligned) is the same as ours.
    ours = package_secret(
        KEYS,
        parse_measurement(blob).mac,
        pack_secret_table({DISK_KEY_GUID: b"open sesame"}),
        iv=bytes(range(100, 116)),
    )
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import os, runpy, sys\n"
        "os.urandom = lambda size: bytes(range(100, 100 + size))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [
        tool[0],
        str(driver),
        tool[1],
        *arguments(folder, blob, 1, 0xF, kernel=True),
        *("--inject-secret", f"luks-key:{folder / 'secret'}"),
        *("--secret-header", str(folder / "header"), "--secret-payload", str(folder / "payload")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b64decode((folder / "header").read_text()) == ours.header()
    assert b64decode((folder / "payload").read_text()) == ours.payload
