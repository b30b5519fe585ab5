"""Launch digests and VMSAs are those of the vectors and of an independent tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from evidence_lab import load

from sealift.errors import UnusableInput
from sealift.evidence.formats.firmware import SectionKind, parse_firmware
from sealift.evidence.formats.vmsa import (
    CPU_MODELS,
    RESET_VECTOR,
    Vmm,
    build_vmsa,
    cpu_signature,
    model_signature,
)
from sealift.evidence.launch.digest import Mode, Processors, launch_digest, snp_digest, snp_firmware_digest
from sealift.evidence.launch.kernel_hashes import KernelHashes, hash_boot

if TYPE_CHECKING:
    from pathlib import Path


def boot_hashes(case: dict[str, Any]) -> KernelHashes | None:
    if case.get("kernel_hex") is None:
        return None
    return hash_boot(
        bytes.fromhex(case["kernel_hex"]), bytes.fromhex(case["initrd_hex"]), case["cmdline_utf8"]
    )


def processors(case: dict[str, Any]) -> Processors:
    return Processors(
        count=case.get("vcpus", 1),
        signature=int(case.get("vcpu_sig_hex") or "0", 16),
        features=int(case.get("guest_features_hex", "0"), 16),
        vmm=Vmm(case.get("vmm", "qemu")),
    )


def test_every_digest_is_that_of_its_vector_and_unmeasured_kernels_are_refused(vectors: Path) -> None:
    folder = vectors / "measurement"
    seen = {"digest": 0, "refused": 0}
    for case in load(folder / "launch-digest.json")["cases"]:
        firmware = parse_firmware((folder / case["firmware_file"]).read_bytes())
        arguments = (Mode(case["mode"]), firmware, boot_hashes(case), processors(case))
        if "expected_error" in case:
            with pytest.raises(UnusableInput, match="without measuring"):
                launch_digest(*arguments)
            seen["refused"] += 1
            continue
        assert launch_digest(*arguments).hex() == case["expected_launch_digest_hex"], case["name"]
        if "precomputed_ovmf_hash_hex" in case:
            seed = bytes.fromhex(case["precomputed_ovmf_hash_hex"])
            again = snp_digest(firmware, boot_hashes(case), processors(case), firmware_digest=seed)
            assert again.hex() == case["expected_launch_digest_hex"]
        seen["digest"] += 1
    assert seen == {"digest": 9, "refused": 2}


def test_the_firmware_digest_is_that_of_its_vector(vectors: Path) -> None:
    folder = vectors / "measurement"
    for case in load(folder / "launch-digest.json")["ovmf_hash"]:
        firmware = parse_firmware((folder / case["firmware_file"]).read_bytes())
        assert snp_firmware_digest(firmware).hex() == case["expected_snp_ovmf_hash_hex"]


def test_processor_signatures_are_those_of_cpuid(vectors: Path) -> None:
    for case in load(vectors / "measurement/launch-digest.json")["cpu_sig"]:
        expected = int(case["expected_sig_hex"], 16)
        assert cpu_signature(case["family"], case["model"], case["stepping"]) == expected
        for name in case.get("cpu_names", []):
            assert model_signature(name) == expected


def test_vmsas_of_old_kernels_are_byte_for_byte_the_real_pages(vectors: Path) -> None:
    folder = vectors / "measurement"
    for case in load(folder / "vmsa.json")["cases"]:
        firmware = parse_firmware((folder / case["firmware_file"]).read_bytes())
        start = firmware.reset_address if case["cpu"] else RESET_VECTOR
        assert start is not None
        page = build_vmsa(
            start,
            signature=cpu_signature(case["family"], case["model"], case["stepping"]),
            vmm=Vmm(case["userspace"]),
            legacy_vm_type=True,
        )
        assert page == (folder / case["expected_file"]).read_bytes()


def test_the_legacy_vm_type_changes_two_control_words_only() -> None:
    new, old = build_vmsa(RESET_VECTOR), build_vmsa(RESET_VECTOR, legacy_vm_type=True)
    changed = {at for at in range(4096) if new[at] != old[at]}
    assert changed == {0x408, 0x409, 0x410, 0x411}


def test_a_second_processor_needs_firmware_that_says_where_it_starts() -> None:
    plain = parse_firmware(bytes(4096))
    assert launch_digest(Mode.SEVES, plain, None, Processors(1))
    with pytest.raises(UnusableInput, match="second processor"):
        launch_digest(Mode.SEVES, plain, None, Processors(2))
    with pytest.raises(UnusableInput, match="virtual processors"):
        launch_digest(Mode.SEVES, plain, None, Processors(0))


def test_the_real_firmware_says_what_is_measured(vectors: Path) -> None:
    firmware = parse_firmware((vectors / "measurement/ovmf_AmdSev_suffix.bin").read_bytes())
    assert firmware.takes_kernel_hashes
    assert firmware.section(SectionKind.KERNEL_HASHES) is not None
    assert firmware.section(SectionKind.CPUID) is not None
    plain = parse_firmware((vectors / "measurement/ovmf_OvmfX64_suffix.bin").read_bytes())
    assert plain.section(SectionKind.KERNEL_HASHES) is None


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["sev", "seves", "snp"])
@pytest.mark.parametrize("vcpus", [1, 4])
@pytest.mark.parametrize("kernel", [True, False])
def test_sev_snp_measure_agrees(
    vectors: Path,
    tmp_path: Path,
    mode: str,
    vcpus: int,
    kernel: bool,
) -> None:
    guest = pytest.importorskip("sevsnpmeasure.guest", reason="sev-snp-measure is not installed")
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vcpu_types import CPU_SIGS
    from sevsnpmeasure.vmm_types import VMMType

    # A whole image: 64 KiB of something before the real end.
    suffix = (vectors / "measurement/ovmf_AmdSev_suffix.bin").read_bytes()
    image = bytes(range(256)) * 240 + suffix
    for name, content in (("ovmf", image), ("kernel", b"a kernel" * 999), ("initrd", b"an initrd" * 777)):
        (tmp_path / name).write_bytes(content)
    append = "root=/dev/dm-0 console=ttyS0" if kernel else ""
    hashes = hash_boot(b"a kernel" * 999, b"an initrd" * 777, append) if kernel else None
    firmware = parse_firmware(image)
    vmms = {"qemu": VMMType.QEMU, "ec2": VMMType.ec2, "gce": VMMType.gce}
    for model, signature in CPU_SIGS.items():
        assert model_signature(model) == signature
        for vmm, theirs in vmms.items() if model == "EPYC-v4" else [("qemu", VMMType.QEMU)]:
            for features in (0x1, 0x21):
                expected = guest.calc_launch_digest(
                    SevMode.from_str(mode),
                    vcpus,
                    signature,
                    str(tmp_path / "ovmf"),
                    str(tmp_path / "kernel") if kernel else "",
                    str(tmp_path / "initrd") if kernel else "",
                    append,
                    features,
                    vmm_type=theirs,
                )
                ours = Processors(vcpus, model_signature(model), features, Vmm(vmm))
                assert launch_digest(Mode(mode), firmware, hashes, ours) == expected, (model, vmm)


def test_every_processor_model_has_a_signature_of_its_family() -> None:
    families = {"EPYC": 0x8, "EPYC-Rome": 0x8, "EPYC-Milan": 0xA, "EPYC-Genoa": 0xA, "EPYC-Turin": 0xB}
    for name in CPU_MODELS:
        stem = name.split("-v")[0].replace("-IBPB", "")
        assert model_signature(name) >> 20 == families[stem], name
    with pytest.raises(UnusableInput, match="processor type"):
        model_signature("Opteron")
