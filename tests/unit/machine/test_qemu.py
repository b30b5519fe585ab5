"""QEMU's arguments say what the machine is, and hold no secret."""

import dataclasses
import json
from pathlib import Path

import pytest

from sealift.machine import accelerator as accelerator_module
from sealift.machine.accelerator import choose_accelerator
from sealift.machine.qemu import Accelerator, VirtualMachine, kernel_command_line, qemu_argv

MACHINE = VirtualMachine(
    name="source",
    accelerator=Accelerator.TCG,
    vcpus=1,
    memory_mib=2048,
    kernel=Path("/vm/kernel"),
    initrd=Path("/vm/initrd"),
    root_disk=Path("/vm/root.ext4"),
    data_disk=Path("/vm/source,1.data"),
    configuration_disk=Path("/vm/source.config"),
    tap="tap-source",
    mac="52:54:00:aa:00:01",
    qmp_socket=Path("/vm/source,1.qmp"),
    console_log=Path("/vm/source.console"),
)


def options(argv, name):
    return [argv[index + 1] for index, word in enumerate(argv) if word == name]


def test_the_root_is_shared_read_only_and_the_data_disk_is_not():
    disks = {disk["node-name"]: disk for disk in map(json.loads, options(qemu_argv(MACHINE), "-blockdev"))}
    assert disks["sealift-root"]["read-only"] is True
    assert disks["sealift-config"]["read-only"] is True
    assert disks["sealift-data"]["read-only"] is False
    assert disks["sealift-data"]["file"]["filename"] == "/vm/source,1.data"


def test_the_init_finds_each_disk_by_its_serial_number():
    devices = [json.loads(device) for device in options(qemu_argv(MACHINE), "-device")]
    assert [d["serial"] for d in devices if d["driver"] == "virtio-blk-pci"] == [
        "sealift-root",
        "sealift-data",
        "sealift-config",
    ]


def test_a_comma_in_a_path_is_not_an_option():
    assert any(
        "/vm/source,,1.qmp,server=on" in chardev for chardev in options(qemu_argv(MACHINE), "-chardev")
    )


def test_the_accelerator_decides_processor_and_mitigations():
    real = dataclasses.replace(MACHINE, accelerator=Accelerator.KVM)
    assert options(qemu_argv(real), "-cpu") == ["host"]
    assert options(qemu_argv(MACHINE), "-cpu") != ["host"]
    assert "mitigations=off" in kernel_command_line(MACHINE)
    assert "no_timer_check" in kernel_command_line(MACHINE).split()
    assert "mitigations=off" not in kernel_command_line(real)


def test_what_is_appended_reaches_the_kernel():
    extended = dataclasses.replace(MACHINE, append="sealift.example=1")
    assert options(qemu_argv(extended), "-append")[0].endswith(" sealift.example=1")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """How often KVM was tried, on a machine that has `/dev/kvm` and where a guest does not run."""
    tries = []
    monkeypatch.setenv("SEALIFT_CACHE", str(tmp_path))
    monkeypatch.setattr(accelerator_module, "_KVM", tmp_path)
    monkeypatch.setattr(accelerator_module, "kvm_runs", lambda tree: bool(tries.append(tree)))
    return tries


def test_a_device_file_is_no_proof_that_kvm_runs(asked, tmp_path):
    said = []
    assert choose_accelerator(tmp_path, say=said.append) is Accelerator.TCG
    assert "emulated" in said[0]


def test_kvm_is_tried_once_per_boot(asked, tmp_path, monkeypatch):
    choose_accelerator(tmp_path, say=print)
    choose_accelerator(tmp_path, say=pytest.fail)
    assert len(asked) == 1
    (tmp_path / "boot_id").write_text("another boot\n")
    monkeypatch.setattr(accelerator_module, "_BOOT_ID", tmp_path / "boot_id")
    choose_accelerator(tmp_path, say=print)
    assert len(asked) == 2
