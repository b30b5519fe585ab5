"""Both launches by a provider's orders, what it keeps, and what it does after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sealift.errors import CommandFailed, PrerequisiteMissing, UnusableInput
from sealift.evidence.formats.certificate_table import ARK, parse_certificate_table
from sealift.evidence.formats.launch_measurement import parse_measurement
from sealift.evidence.formats.launch_secret import DISK_KEY_GUID, pack_secret_table
from sealift.evidence.formats.x509_certificate import parse_x509
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.secret import package_secret
from sealift.evidence.launch.session import create_session
from sealift.evidence.verify.policy import ExtraRoot, Policy
from sealift.evidence.verify.sev_launch import LaunchEvidence, verify_launch
from sealift.evidence.verify.sev_platform import verify_platform
from sealift.evidence.verify.snp import verify_snp
from sealift.processor.certificates import snp_evidence
from sealift.processor.interface import (
    SEV_POLICY_DEFAULT,
    Backend,
    SevLaunch,
    SevPlatform,
    SnpLaunch,
    SnpPlatform,
)
from sealift.provider import processes
from sealift.provider.image import read_image
from sealift.provider.orders import EvidenceOrder, InjectOrder, Phase, StartOrder, VmOrder
from sealift.provider.record import Place
from sealift.provider.service import Provider, measured_image
from sealift_guest.processor import Guest

MAC = "52:54:00:00:00:01"
SNP = StartOrder("one", "base", SnpLaunch(), "tap0", MAC, data_disk_mib=4)


def guest_of(provider: Provider, folder: Path, vm: str = "one") -> Guest:
    place = Place(provider.settings.state / vm)
    (folder / "run/sealift").mkdir(parents=True, exist_ok=True)
    link = folder / "run/sealift/sev-guest"
    link.unlink(missing_ok=True)
    link.symlink_to(place.guest_socket)
    return Guest(folder)


def test_an_snp_guest_is_started_asked_and_verified(provider: Provider, tmp_path: Path) -> None:
    state = provider.start(SNP)
    assert (state.phase, state.backend, state.mode) == (Phase.RUNNING, Backend.EMULATED, Mode.SNP)
    evidence = provider.evidence(EvidenceOrder(Mode.SNP, "one"))
    assert isinstance(evidence.platform, SnpPlatform)
    assert evidence.launch_id == state.launch_id
    report = guest_of(provider, tmp_path).report(bytes(64))
    digest = measured_image(SNP, read_image(provider.settings.images, "base")).digest(Mode.SNP)
    root = parse_x509(parse_certificate_table(evidence.platform.certificate_table)[ARK])
    policy = Policy.model_validate(
        {
            "extra_roots": [ExtraRoot(sha256=root.sha256).model_dump()],
            "snp": {"measurements": [digest.hex()], "require_crl": True},
        }
    )
    given = snp_evidence(report.report, evidence.platform.certificate_table)
    verdict = verify_snp(given, policy, at=datetime.now(UTC), report_data=bytes(64))
    assert verdict.accepted, verdict.reasons


def test_a_legacy_guest_waits_for_its_secret(provider: Provider, tmp_path: Path) -> None:
    platform = provider.evidence(EvidenceOrder(Mode.SEV)).platform
    assert isinstance(platform, SevPlatform)
    chain = platform.chain()
    assert chain.pdh is not None
    assert chain.ark is not None
    policy = Policy(extra_roots=(ExtraRoot(sha256=chain.ark.sha256),))
    assert verify_platform(chain, policy).accepted
    owner = create_session(chain.pdh, SEV_POLICY_DEFAULT)
    launch = SevLaunch(SEV_POLICY_DEFAULT, owner.session.pack(), owner.owner_certificate.raw)
    order = replace(SNP, launch=launch)
    assert provider.start(order).phase is Phase.WAITING
    evidence = provider.evidence(EvidenceOrder(Mode.SEV, "one", b"n" * 16))
    assert evidence.status is not None
    digest = measured_image(order, read_image(provider.settings.images, "base")).digest(Mode.SEVES)
    given = LaunchEvidence(
        parse_measurement(evidence.measurement),
        evidence.status.firmware,
        SEV_POLICY_DEFAULT,
        (digest,),
        owner.keys.tik,
    )
    assert verify_launch(given, policy).accepted
    assert len(evidence.attestation_report) == 208
    packet = package_secret(
        owner.keys, evidence.measurement[:32], pack_secret_table({DISK_KEY_GUID: b"disk key"})
    )
    with pytest.raises(CommandFailed, match="BAD_MEASUREMENT"):
        provider.inject(InjectOrder("one", packet.header(), bytes(len(packet.payload))))
    assert provider.inject(InjectOrder("one", packet.header(), packet.payload)).phase is Phase.RUNNING
    assert guest_of(provider, tmp_path).secret(str(DISK_KEY_GUID)) == (b"disk key", "emulated")
    with pytest.raises(CommandFailed, match="only before"):
        provider.inject(InjectOrder("one", packet.header(), packet.payload))
    for folder in (provider.settings.state, provider.settings.disks):
        for path in folder.rglob("*"):
            if path.is_file():
                assert b"disk key" not in path.read_bytes()


def test_the_same_order_again_changes_nothing_and_another_is_refused(provider: Provider) -> None:
    first = provider.start(SNP)
    assert provider.start(SNP) == first
    with pytest.raises(CommandFailed, match="Stop it first"):
        provider.start(replace(SNP, vcpus=1))
    assert [each.vm for each in provider.list_vms().vms] == ["one"]
    provider.stop(VmOrder("one"))
    assert not provider.list_vms().vms
    assert (provider.settings.disks / "one").stat().st_size == 4 << 20
    assert provider.start(SNP).launch_id != first.launch_id


def test_a_vm_that_ended_takes_its_processor_along_and_starts_as_another_launch(
    provider: Provider, tmp_path: Path
) -> None:
    first = provider.start(SNP)
    before = guest_of(provider, tmp_path).report(bytes(64)).report
    place = Place(provider.settings.state / "one")
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes.living(place.processor_record) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.living(place.processor_record) is None
    assert provider.list_vms().vms[0].phase is Phase.ENDED
    with pytest.raises(CommandFailed, match="has ended"):
        provider.evidence(EvidenceOrder(Mode.SNP, "one"))
    assert provider.start(SNP).launch_id != first.launch_id
    after = guest_of(provider, tmp_path).report(bytes(64)).report
    assert before[0x140:0x160] != after[0x140:0x160]


def test_evidence_is_not_swapped_between_two_vms(provider: Provider, tmp_path: Path) -> None:
    provider.start(SNP)
    provider.start(replace(SNP, vm="two", launch=SnpLaunch(host_data=b"2" * 32)))
    one, two = (guest_of(provider, tmp_path / vm, vm).report(bytes(64)).report for vm in ("one", "two"))
    assert one[0x140:0x160] != two[0x140:0x160]
    assert two[0xC0:0xE0] == b"2" * 32
    assert one[0x1A0:0x1E0] == two[0x1A0:0x1E0]  # one chip


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.5, 0.7])
def test_a_start_killed_at_any_point_leaves_nothing_that_the_next_cannot_clear(
    provider: Provider, after_s: float, tmp_path: Path
) -> None:
    settings = provider.settings
    toml = tmp_path / "provider.toml"
    toml.write_text(
        f'processor = "emulated"\naccelerator = "tcg"\nstate = "{settings.state}"\nimages = "{settings.images}"\n'
        f'disks = "{settings.disks}"\nchip = "{settings.chip}"\nauthority = "{settings.authority}"\n'
        f"qemu = {list(settings.qemu)}\n"
    )
    words = [sys.executable, "-m", "sealift.provider", "--settings", str(toml), "start"]
    from sealift.processor.wire import to_line

    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as killed:
        assert killed.stdin is not None
        killed.stdin.write(to_line(SNP))
        killed.stdin.close()
        time.sleep(after_s)
        killed.kill()
    state = provider.start(SNP)
    assert state.phase is Phase.RUNNING
    place = Place(settings.state / "one")
    alive = {processes.living(place.qemu_record), processes.living(place.processor_record)}
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if str(settings.state).encode() in line or str(settings.chip).encode() in line:
                    found.add(int(entry.name))
    assert found == alive


def test_a_recycled_pid_is_never_ended(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        record = tmp_path / "record"
        record.write_text(f"{innocent.pid} 1\n")
        assert processes.living(record) is None
        processes.end(record)
        assert innocent.poll() is None
        innocent.kill()


def test_qemus_refusal_is_the_answer_and_nothing_stays(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU_FAILS", "qemu: SEV: Failed to open /dev/sev 'No such file or directory'")
    with pytest.raises(PrerequisiteMissing, match="no secure processor"):
        provider.start(SNP)
    assert not (provider.settings.state / "one").exists()
    monkeypatch.setenv("FAKE_QEMU_FAILS", "qemu: could not configure tap0")
    with pytest.raises(CommandFailed, match="could not configure"):
        provider.start(SNP)


def test_a_session_for_another_platform_starts_nothing(provider: Provider) -> None:
    launch = SevLaunch(SEV_POLICY_DEFAULT, bytes(128), bytes(2084))
    with pytest.raises(CommandFailed, match="INVALID_CERTIFICATE"):
        provider.start(replace(SNP, launch=launch))
    assert not provider.list_vms().vms


@pytest.mark.parametrize("name", ["firmware", "kernel", "initrd"])
def test_a_damaged_image_is_refused(provider: Provider, name: str) -> None:
    path = provider.settings.images / "base" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UnusableInput, match=f"the {name} of the image 'base' is damaged"):
        provider.start(SNP)


@pytest.mark.parametrize(
    "fields",
    [
        {"vm": "../x"},
        {"image": "a/b"},
        {"tap": "tap0,script=/x"},
        {"mac": "no"},
        {"vcpus": 0},
        {"vcpus": True},
        {"memory_mib": 1},
        {"cpu": "max,+x"},
        {"more": 1},
        {"launch": {"session": ""}},
        {"configuration": "!"},
    ],
)
def test_orders_that_lead_elsewhere_are_refused(provider: Provider, fields: dict[str, Any]) -> None:
    order = {"vm": "one", "image": "base", "launch": {}, "tap": "tap0", "mac": MAC}
    with pytest.raises(UnusableInput):
        provider.obey("start", order | fields)
    assert not provider.settings.state.exists()


def test_without_evidence_there_is_no_processor(provider: Provider, tmp_path: Path) -> None:
    state = provider.start(replace(SNP, launch=None))
    assert (state.phase, state.mode) == (Phase.RUNNING, None)
    assert not Place(provider.settings.state / "one").guest_socket.exists()
    with pytest.raises(PrerequisiteMissing, match="without a secure processor"):
        provider.evidence(EvidenceOrder(Mode.SNP, "one"))


def test_only_the_listed_interfaces_are_given(provider: Provider) -> None:
    narrow = Provider(replace(provider.settings, taps=("tap7",)))
    with pytest.raises(UnusableInput, match="not an interface for VMs"):
        narrow.start(SNP)
