"""Legacy SEV and SEV-ES through the emulator's sockets: platform, session, measurement, secret, report."""

from __future__ import annotations

import shutil
import subprocess
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from processor_lab import Lab, reasons

from sealift.errors import CommandFailed
from sealift.evidence.formats.launch_secret import (
    DISK_KEY_GUID,
    SecretPacket,
    pack_secret_table,
    parse_secret_packet,
)
from sealift.evidence.formats.sev_attestation_report import parse_attestation_report
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.secret import package_secret
from sealift.evidence.launch.session import create_session
from sealift.evidence.verify.sev_launch import verify_attestation
from sealift.processor.interface import SEV_POLICY_DEFAULT, LaunchState, SevLaunch
from sealift_guest.processor import Unanswered

if TYPE_CHECKING:
    from pathlib import Path

POLICY = SEV_POLICY_DEFAULT
PLAIN = SEV_POLICY_DEFAULT & ~4
GUID = str(DISK_KEY_GUID)
KEY = b"open sesame, 32 bytes of disk key"
VALIDATE = shutil.which("virt-qemu-sev-validate")


def packet(lab: Lab, measurement: bytes, value: bytes = KEY) -> SecretPacket:
    assert lab.owner is not None
    return package_secret(lab.owner.keys, measurement[:32], pack_secret_table({DISK_KEY_GUID: value}))


@pytest.mark.parametrize(("policy", "mode"), [(POLICY, Mode.SEVES), (PLAIN, Mode.SEV)])
def test_a_guest_gets_its_secret_after_the_owner_verified_everything(
    lab: Lab, policy: int, mode: Mode
) -> None:
    platform = lab.platform_verdict()
    assert platform.accepted, platform.reasons
    assert platform.emulated
    assert platform.extra_root
    lab.start_sev(policy)
    assert lab.processor.status().mode is mode
    measurement = lab.processor.measurement()
    rules = lab.sev_policy(launch_policy={"es": "allow"})
    launch = lab.launch_verdict(measurement, rules)
    assert launch.accepted, launch.reasons
    assert "no integrity protection" in launch.labels
    with pytest.raises(Unanswered):
        lab.guest.secret(GUID)  # not before the guest runs
    lab.processor.inject(packet(lab, measurement))
    lab.processor.finish()
    assert lab.processor.status().state is LaunchState.RUNNING
    assert lab.guest.secret(GUID) == (KEY, "emulated")
    with pytest.raises(Unanswered, match="nothing was injected"):
        lab.guest.secret("736869e5-aaaa-4973-92ec-06879ce3da0b")


def test_a_platform_whose_root_is_not_named_is_refused(lab: Lab) -> None:
    verdict = lab.platform_verdict(lab.sev_policy(named=False))
    assert not verdict.genuine
    assert reasons(verdict) == {"root"}
    assert b"SEALIFT EMULATED" in lab.processor.platform(Mode.SEV).ark


def test_old_firmware_is_refused_by_platform_and_launch(lab: Lab) -> None:
    lab.processor.configure(api_major=0, api_minor=16)
    assert not lab.platform_verdict().accepted
    lab.start_sev(POLICY)
    assert reasons(lab.launch_verdict(lab.processor.measurement())) == {"api"}


@pytest.mark.parametrize(
    ("bit", "check"), [(1, "no_debug"), (2, "no_key_sharing"), (4, "es"), (8, "no_send")]
)
def test_a_launch_policy_that_lets_the_provider_in_is_refused(lab: Lab, bit: int, check: str) -> None:
    lab.start_sev(POLICY & ~bit)
    verdict = lab.launch_verdict(lab.processor.measurement())
    assert reasons(verdict) == {f"launch_policy.{check}"}


@pytest.mark.parametrize("what", ["kernel", "append", "vcpus", "kernel_hashes"])
def test_another_image_has_another_measurement(lab: Lab, what: str, tmp_path: Path) -> None:
    honest = lab.image
    (tmp_path / "other").write_bytes(b"another kernel")
    changes: dict[str, Any] = {
        "kernel": tmp_path / "other",
        "append": "x",
        "vcpus": 1,
        "kernel_hashes": False,
    }
    lab.image = replace(honest, **{what: changes[what]})
    lab.start_sev(POLICY)
    lab.image = honest
    assert reasons(lab.launch_verdict(lab.processor.measurement())) == {"measurement"}


def test_kernel_hashes_that_are_off_are_refused_even_when_expected(lab: Lab) -> None:
    lab.image = replace(lab.image, kernel_hashes=False)
    lab.start_sev(POLICY)
    verdict = lab.launch_verdict(lab.processor.measurement(), has_kernel_hashes=False)
    assert reasons(verdict) == {"kernel_hashes"}


def test_a_measurement_and_a_secret_belong_to_one_launch(lab: Lab) -> None:
    lab.start_sev(POLICY)
    old = lab.processor.measurement()
    old_packet = packet(lab, old)
    assert lab.processor.measurement() == old
    lab.start_sev(POLICY)
    assert reasons(lab.launch_verdict(old)) == {"measurement"}
    new = lab.processor.measurement()
    for wrong in (old_packet, packet(lab, old)):
        with pytest.raises(CommandFailed) as refused:
            lab.processor.inject(wrong)
        assert refused.value.status == 0x0B
    lab.processor.inject(packet(lab, new))


@pytest.mark.parametrize("part", ["iv", "mac", "payload"])
def test_a_tampered_secret_is_refused(lab: Lab, part: str) -> None:
    lab.start_sev(POLICY)
    good = packet(lab, lab.processor.measurement())
    changed = bytes([getattr(good, part)[0] ^ 1]) + getattr(good, part)[1:]
    with pytest.raises(CommandFailed) as refused:
        lab.processor.inject(replace(good, **{part: changed}))
    assert refused.value.status == 0x0B
    lab.processor.inject(good)


def test_a_session_serves_only_its_policy_and_its_platform(lab: Lab) -> None:
    for changes, status in (
        ({"policy": POLICY & ~1}, 0x0B),
        ({"session": bytes(128)}, 0x0B),
        ({"session": b"short"}, 0x06),
        ({"owner_certificate": bytes(2084)}, 0x06),
    ):
        with pytest.raises(CommandFailed) as refused:
            lab.start_sev(POLICY, **changes)
        assert refused.value.status == status
    with pytest.raises(CommandFailed) as refused:
        lab.start_sev(POLICY | 0xFF << 16)
    assert refused.value.status == 0x07
    stranger = lab.processor.platform(Mode.SEV).chain().pek
    assert stranger is not None
    other = create_session(replace(stranger, usage=0x1003), POLICY)
    with pytest.raises(CommandFailed) as refused:
        lab.processor.begin(SevLaunch(POLICY, other.session.pack(), other.owner_certificate.raw), lab.image)
    assert refused.value.status == 0x0B


def test_commands_out_of_order_are_refused(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match="no legacy SEV guest"):
        lab.processor.measurement()
    lab.start_sev(POLICY)
    early = packet(lab, bytes(48))
    with pytest.raises(CommandFailed) as refused:
        lab.processor.inject(early)
    assert refused.value.status == 0x02
    with pytest.raises(CommandFailed):
        lab.processor.attestation_report(bytes(16))
    good = packet(lab, lab.processor.measurement())
    lab.processor.finish()
    with pytest.raises(CommandFailed) as refused:
        lab.processor.inject(good)
    assert refused.value.status == 0x02


def test_a_running_guests_report_is_signed_by_the_pek(lab: Lab) -> None:
    lab.start_sev(POLICY)
    lab.processor.finish()
    report = parse_attestation_report(lab.processor.attestation_report(b"n" * 16))
    pek = lab.processor.platform(Mode.SEV).chain().pek
    assert pek is not None
    digests = [lab.image.digest(Mode.SEVES)]
    assert verify_attestation(report, pek, lab.sev_policy(), nonce=b"n" * 16, digests=digests).accepted
    replay = verify_attestation(report, pek, lab.sev_policy(), nonce=b"m" * 16, digests=digests)
    assert reasons(replay) == {"nonce"}


@pytest.mark.oracle
@pytest.mark.skipif(VALIDATE is None, reason="virt-qemu-sev-validate is not installed (libvirt-clients-qemu)")
@pytest.mark.parametrize("policy", [POLICY, PLAIN])
def test_libvirt_accepts_the_measurement_and_makes_secrets_that_are_taken(
    lab: Lab, policy: int, tmp_path: Path
) -> None:
    # Its VMSA is the one of QEMU's legacy-vm-type.
    lab.image = replace(lab.image, legacy_vm_type=True)
    lab.start_sev(policy)
    assert lab.owner is not None
    status = lab.processor.status()
    (tmp_path / "tik").write_bytes(lab.owner.keys.tik)
    (tmp_path / "tek").write_bytes(lab.owner.keys.tek)
    (tmp_path / "disk").write_bytes(KEY)
    said: dict[str, Any] = {
        "--measurement": b64encode(lab.processor.measurement()).decode(),
        "--api-major": status.api_major,
        "--api-minor": status.api_minor,
        "--build-id": status.build,
        "--policy": policy,
        "--firmware": lab.image.firmware,
        "--kernel": lab.image.kernel,
        "--initrd": lab.image.initrd,
        "--cmdline": lab.image.append,
        "--tik": tmp_path / "tik",
        "--tek": tmp_path / "tek",
        "--secret-header": tmp_path / "header.b64",
        "--secret-payload": tmp_path / "payload.b64",
        "--inject-secret": f"{GUID}:{tmp_path / 'disk'}",
    }
    if policy & 4:
        said |= {"--num-cpus": 2, "--cpu-family": 25, "--cpu-model": 1, "--cpu-stepping": 1}
    words = ["/usr/bin/python3", str(VALIDATE), *(str(part) for pair in said.items() for part in pair)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, payload = (b64decode((tmp_path / f"{name}.b64").read_text()) for name in ("header", "payload"))
    lab.processor.inject(parse_secret_packet(header, payload))
    lab.processor.finish()
    assert lab.guest.secret(GUID)[0] == KEY
    said["--cmdline"] = "another"
    words = ["/usr/bin/python3", str(VALIDATE), *(str(part) for pair in said.items() for part in pair)]
    assert subprocess.run(words, capture_output=True, text=True, check=False).returncode
