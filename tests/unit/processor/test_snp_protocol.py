"""SNP through the emulator's sockets, judged by the verifier: accepted as emulated, and every refusal by name."""

from __future__ import annotations

import json
import secrets
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from processor_lab import Lab, make_firmware, reasons

from sealift.errors import CommandFailed, UnusableInput
from sealift.evidence.formats.id_block import IdBlock
from sealift.evidence.formats.report_data import Binding
from sealift.evidence.formats.snp_report import PolicyBit, parse_snp_report
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.id_authentication import authenticate
from sealift.processor.certificates import snp_evidence
from sealift.processor.derived_key import KeyField, KeyRequest, parse_key_response
from sealift.processor.interface import LaunchState, SnpLaunch
from sealift.processor.measured import MeasuredTree
from sealift_guest.processor import Unanswered

if TYPE_CHECKING:
    from pathlib import Path

POLICY = int(PolicyBit.ALWAYS_ONE | PolicyBit.SMT)
DATA = bytes(range(64))


@pytest.mark.parametrize("generation", ["milan", "genoa", "turin"])
@pytest.mark.parametrize("signer", [0, 1])
def test_a_report_is_accepted_and_called_emulated_only_if_the_policy_names_the_root(
    lab: Lab, generation: str, signer: int
) -> None:
    lab.processor.configure(generation=generation, signer=signer)
    lab.start_snp()
    report = lab.guest.report(DATA)
    assert report.answered_by == "emulated"
    verdict = lab.snp_verdict(report, DATA)
    assert verdict.accepted, verdict.reasons
    assert verdict.extra_root
    assert verdict.emulated
    assert "emulated" in verdict.labels
    assert verdict.generation == generation
    stranger = lab.snp_verdict(report, DATA, lab.snp_policy(named=False))
    assert not stranger.genuine
    assert reasons(stranger) == {"root"}


def test_certificates_say_that_they_are_emulated(lab: Lab) -> None:
    evidence = snp_evidence(bytes(1184), lab.processor.platform(Mode.SNP).certificate_table)
    for certificate in (evidence.key, *evidence.chain):
        assert b"SEALIFT EMULATED" in [value for _, value in certificate.subject]
    assert evidence.key.serial == 0


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        ({"current_tcb": {"boot_loader": 4, "snp": 0x17, "microcode": 0xDB}}, "tcb_floor.current_tcb"),
        ({"reported_tcb": {"boot_loader": 3, "snp": 0x18, "microcode": 0xD5}}, "tcb_floor.reported_tcb"),
        ({"reported_tcb": {"boot_loader": 9, "snp": 0x18, "microcode": 0xDB}}, "reported_above_current"),
        ({"committed_tcb": {"boot_loader": 3, "snp": 0x18, "microcode": 0xDB}}, "provisional_tcb"),
        ({"launch_tcb": {"boot_loader": 4, "snp": 0x10, "microcode": 0xDB}}, "tcb_floor.launch_tcb"),
        ({"committed_version": [1, 50, 1]}, "provisional_firmware"),
        ({"mask_chip": True}, "chip_masked"),
        ({"signer": 7}, "signer"),
        ({"platform_info": 1}, "platform_info.alias_check"),
        ({"report_version": 9}, "report_version"),
        ({"cpuid": [0x19, 0x11, 1]}, "report_generation"),
    ],
)
def test_what_a_chip_says_wrong_is_refused_by_name(lab: Lab, settings: dict[str, Any], check: str) -> None:
    lab.processor.configure(**settings)
    lab.start_snp()
    verdict = lab.snp_verdict(lab.guest.report(DATA), DATA)
    assert not verdict.accepted
    assert check in reasons(verdict)


@pytest.mark.parametrize(
    ("bit", "check"),
    [(PolicyBit.DEBUG, "guest_policy.debug"), (PolicyBit.MIGRATION_AGENT, "guest_policy.migration_agent")],
)
def test_a_guest_policy_that_lets_the_provider_in_is_refused(lab: Lab, bit: PolicyBit, check: str) -> None:
    lab.start_snp(policy=POLICY | bit)
    assert reasons(lab.snp_verdict(lab.guest.report(DATA), DATA)) == {check}


@pytest.mark.parametrize("what", ["firmware", "kernel", "initrd", "append", "vcpus", "kernel_hashes"])
def test_another_image_has_another_digest(lab: Lab, what: str, tmp_path: Path) -> None:
    policy = lab.snp_policy()
    honest = lab.image
    changes: dict[str, Any] = {"append": "root=/dev/dm-0 rw", "vcpus": 3, "kernel_hashes": False}
    for name in ("firmware", "kernel", "initrd"):
        content = bytearray(getattr(honest, name).read_bytes())
        content[100] ^= 1
        changes[name] = tmp_path / f"other-{name}"
        changes[name].write_bytes(content)
    lab.image = replace(honest, **{what: changes[what]})
    lab.start_snp()
    assert reasons(lab.snp_verdict(lab.guest.report(DATA), DATA, policy)) == {"measurement"}


def test_a_replayed_report_and_one_over_other_keys_are_refused(lab: Lab) -> None:
    lab.start_snp()
    nonce = secrets.token_bytes(32)
    binding = Binding(nonce, secrets.token_bytes(32), b"ssh-ed25519 AAAA", b"wireguard key")
    report = lab.guest.report(binding.digest())
    assert lab.snp_verdict(report, binding.digest()).accepted
    for other in (
        replace(binding, owner_nonce=secrets.token_bytes(32)),
        replace(binding, ssh_host_key=b"ssh-ed25519 BBBB"),
        replace(binding, wireguard_key=b"another"),
    ):
        assert reasons(lab.snp_verdict(report, other.digest())) == {"report_data"}


def test_a_report_from_before_the_last_start_has_another_report_id(lab: Lab) -> None:
    ids = []
    for _ in range(2):
        lab.start_snp()
        ids.append(parse_snp_report(lab.guest.report(DATA).report).fields.report_id)
        again = parse_snp_report(lab.guest.report(DATA).report).fields.report_id
        assert again == ids[-1]
    assert ids[0] != ids[1]
    policy = lab.snp_policy(report_id=ids[0].hex())
    assert reasons(lab.snp_verdict(lab.guest.report(DATA), DATA, policy)) == {"report_id"}


def test_a_changed_report_is_not_genuine(lab: Lab) -> None:
    lab.start_snp()
    report = lab.guest.report(DATA)
    changed = bytearray(report.report)
    changed[0x90] ^= 1
    verdict = lab.snp_verdict(replace(report, report=bytes(changed)), DATA)
    assert not verdict.genuine
    assert "report_signature" in reasons(verdict)


def test_the_firmware_launches_only_what_the_id_block_names(lab: Lab) -> None:
    key, author = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    block = IdBlock(lab.image.digest(Mode.SNP), family_id=b"f" * 16, guest_svn=3, policy=POLICY)
    auth = authenticate(block.pack(), key, author)
    lab.start_snp(id_block=block.pack(), id_auth=auth.pack(), host_data=b"h" * 32)
    digest = auth.id_key_digest.hex()
    named = {"family_id": (b"f" * 16).hex(), "host_data": (b"h" * 32).hex(), "author_key": "require"}
    policy = lab.snp_policy(id_key_digests=[digest], min_guest_svn=3, **named)
    report = lab.guest.report(DATA)
    assert lab.snp_verdict(report, DATA, policy).accepted
    other = lab.snp_policy(id_key_digests=["00" * 48])
    assert reasons(lab.snp_verdict(report, DATA, other)) == {"id_key_digest"}

    wrong = IdBlock(bytes(48), policy=POLICY)
    for given, signed, status in (
        (wrong, authenticate(wrong.pack(), key), 0x0B),
        (replace(block, guest_svn=4), auth, 0x0A),
        (replace(block, policy=POLICY | PolicyBit.DEBUG), None, 0x07),
    ):
        launch = SnpLaunch(POLICY, given.pack(), (signed or authenticate(given.pack(), key)).pack())
        lab.processor.begin(launch, lab.image)
        with pytest.raises(CommandFailed) as refused:
            lab.processor.finish()
        assert refused.value.status == status
        with pytest.raises(Unanswered, match="0x2"):
            lab.guest.report(DATA)


@pytest.mark.parametrize(
    ("policy", "settings", "status"),
    [
        (int(PolicyBit.SMT), {}, 0x16),
        (int(PolicyBit.ALWAYS_ONE), {}, 0x07),
        (POLICY | 0xFFFF, {}, 0x07),
        (int(PolicyBit.ALWAYS_ONE), {"platform_info": 0x24}, None),
    ],
)
def test_the_firmware_refuses_a_policy_that_it_cannot_keep(
    lab: Lab, policy: int, settings: dict[str, Any], status: int | None
) -> None:
    lab.processor.configure(**settings)
    if status is None:
        lab.start_snp(policy=policy)
        return
    with pytest.raises(CommandFailed) as refused:
        lab.start_snp(policy=policy)
    assert refused.value.status == status
    assert lab.processor.status().state is LaunchState.UNINIT


def test_kernel_hashes_need_a_firmware_that_checks_them(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(make_firmware(kernel_hashes=False))
    lab.image = replace(lab.image, firmware=tmp_path / "plain")
    with pytest.raises(CommandFailed, match="without measuring"):
        lab.start_snp()


def test_a_derived_key_changes_with_the_chip_and_each_selected_field(lab: Lab) -> None:
    def key(**request: Any) -> bytes:
        answer, by = lab.guest.derived_key(KeyRequest(**request).pack())
        assert by == "emulated"
        return parse_key_response(answer)

    lab.start_snp()
    first = key()
    assert first == key() != key(root=1)
    measured = key(fields=KeyField.MEASUREMENT)
    lab.image = replace(lab.image, append="other")
    lab.start_snp()
    assert key() == first
    assert key(fields=KeyField.MEASUREMENT) != measured
    for bad in (struct.pack("<IIQIIQ", 7, 0, 0, 0, 0, 0), KeyRequest(guest_svn=9).pack()):
        with pytest.raises(UnusableInput, match="0x16"):
            parse_key_response(lab.guest.derived_key(bad)[0])


def test_a_namespaced_host_is_measured_by_what_its_tree_holds(lab: Lab) -> None:
    tree = MeasuredTree(json.dumps({"recipe": "abc"}).encode())
    lab.processor.begin(SnpLaunch(), tree)
    lab.processor.finish()
    policy = lab.snp_policy(measurements=[tree.digest(Mode.SNP).hex()])
    assert lab.snp_verdict(lab.guest.report(DATA), DATA, policy).accepted
    other = lab.snp_policy(measurements=[MeasuredTree(b"other").digest(Mode.SNP).hex()])
    assert reasons(lab.snp_verdict(lab.guest.report(DATA), DATA, other)) == {"measurement"}
    assert len(tree.digest(Mode.SEV)) == 32


@pytest.mark.oracle
@pytest.mark.parametrize("vcpus", [1, 4])
@pytest.mark.parametrize("cpu", ["EPYC-v4", "EPYC-Milan", "EPYC-Genoa"])
def test_sev_snp_measure_predicts_the_digest(lab: Lab, vcpus: int, cpu: str) -> None:
    pytest.importorskip("sevsnpmeasure", reason="sev-snp-measure is not installed")
    from sevsnpmeasure import guest, vcpu_types
    from sevsnpmeasure.sev_mode import SevMode

    lab.image = replace(lab.image, vcpus=vcpus, cpu=cpu)
    lab.start_snp()
    image = lab.image
    theirs = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        vcpus,
        vcpu_types.CPU_SIGS[cpu],
        str(image.firmware),
        str(image.kernel),
        str(image.initrd),
        image.append,
        1,
    )
    assert parse_snp_report(lab.guest.report(DATA).report).fields.measurement == theirs
