"""The commands: what they print, and 0 for accepted, 1 for rejected, 2 for input that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from evidence_lab import LegacyLab, SnpLab, flip, load
from typer.testing import CliRunner

from sealift.evidence.cli.app import app
from sealift.evidence.formats import certificate_table as table
from sealift.evidence.formats.guest_messages import pack_response
from sealift.evidence.formats.launch_measurement import Firmware
from sealift.evidence.formats.launch_session import parse_session
from sealift.evidence.formats.sev_certificate import parse_sev_certificate
from sealift.evidence.launch.measurement import measure
from sealift.evidence.launch.session import open_session
from sealift.evidence.verify.policy import write_policy

AT = ["--at", "2026-04-01T00:00:00Z"]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def ask(*arguments: object) -> tuple[int, dict[str, Any]]:
    status, output = run(*arguments, "--json")
    return status, json.loads(output)


def real(vectors: Path, name: str = "milan") -> list[object]:
    folder = vectors / "snp" / name
    return [
        folder / "attestation_report.bin",
        "--vek",
        folder / "vcek.pem",
        "--chain",
        folder / "ask_ark.pem",
    ]


def test_a_real_report_is_accepted_with_0(vectors: Path) -> None:
    status, said = ask("verify-report", *real(vectors), *AT, "--crl", vectors / "snp/crl-milan.pem")
    assert status == 0
    assert said["genuine"] is said["accepted"] is True
    assert said["reasons"] == []
    assert "measurement" in said["unchecked"]
    assert {each["check"] for each in said["checked"]} >= {"report_signature", "root", "crl"}


def test_a_chain_may_come_in_several_files_in_any_order(vectors: Path) -> None:
    folder = vectors / "snp/genoa"
    base = ["verify-report", folder / "attestation_report.bin", "--vek", folder / "vcek.pem", *AT]
    ark, intermediate = folder / "ark.pem", folder / "ask.pem"
    assert run(*base, "--chain", ark, "--chain", intermediate)[0] == 0
    assert run(*base, "--chain", intermediate, ark)[0] == 0


@pytest.mark.parametrize("spelled", ["hex", "base64", "response", "spaced hex"])
def test_a_report_may_be_spelled_in_any_way(vectors: Path, tmp_path: Path, spelled: str) -> None:
    report, *rest = real(vectors)
    raw = Path(str(report)).read_bytes()
    spellings = {
        "hex": raw.hex().encode(),
        "spaced hex": raw.hex(" ", 16).encode() + b"\n",
        "base64": b64encode(raw) + b"\n",
        "response": pack_response(raw),
    }
    file = tmp_path / "report"
    file.write_bytes(spellings[spelled])
    assert run("verify-report", file, *rest, *AT)[0] == 0


def test_certificates_may_be_der_or_a_table(snp_lab: SnpLab, tmp_path: Path) -> None:
    evidence = snp_lab.evidence()
    (tmp_path / "report").write_bytes(evidence.report.raw)
    (tmp_path / "vek").write_bytes(evidence.key.der)
    (tmp_path / "chain").write_bytes(b"".join(each.der for each in evidence.chain))
    (tmp_path / "policy.toml").write_text(write_policy(snp_lab.policy()))
    packed = table.pack_certificate_table(
        {table.VCEK: evidence.key.der, table.ASK: evidence.chain[0].der, table.ARK: evidence.chain[1].der}
    )
    (tmp_path / "table").write_bytes(packed)
    base = ["verify-report", tmp_path / "report", "--policy", tmp_path / "policy.toml", *AT]
    status, said = ask(*base, "--vek", tmp_path / "vek", "--chain", tmp_path / "chain")
    assert status == 0
    assert said["extra_root"] is said["emulated"] is True
    assert run(*base, "--vek", tmp_path / "table")[0] == 0


def test_a_rejected_report_ends_with_1_and_says_every_reason(vectors: Path, tmp_path: Path) -> None:
    report, *rest = real(vectors)
    tampered = tmp_path / "report"
    tampered.write_bytes(flip(flip(Path(str(report)).read_bytes(), 10, 8), 0x30, 2))
    status, said = ask("verify-report", tampered, *rest, *AT)
    assert status == 1
    assert said["genuine"] is said["accepted"] is False
    assert {each["check"] for each in said["reasons"]} >= {"report_signature", "guest_policy.debug", "vmpl"}
    status, output = run("verify-report", tampered, *rest, *AT)
    assert status == 1
    assert "rejected" in output
    assert "report_signature" in output


@pytest.mark.parametrize(
    "change",
    [
        ["--at", "2050-01-01T00:00:00Z"],
        ["--at", "2019-01-01T00:00:00Z"],
        [*AT, "--report-data", "01"],
    ],
    ids=str,
)
def test_the_time_and_the_report_data_decide(vectors: Path, change: list[str]) -> None:
    assert run("verify-report", *real(vectors), *change)[0] == 1


def test_report_data_that_was_asked_for_is_accepted(vectors: Path) -> None:
    status, said = ask("verify-report", *real(vectors), *AT, "--report-data", "00" * 64)
    assert status == 0
    assert "report_data" not in said["unchecked"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--at", "yesterday"],
        [*AT, "--report-data", "xyz"],
        [*AT, "--report-data", "00" * 65],
        [*AT, "--policy", "/nonexistent"],
        [*AT, "--crl", "/etc/passwd"],
    ],
    ids=str,
)
def test_input_that_cannot_be_used_ends_with_2_and_one_sentence(vectors: Path, arguments: list[str]) -> None:
    status, said = ask("verify-report", *real(vectors), *arguments)
    assert status == 2
    assert said["accepted"] is False
    assert said["error"]
    status, output = run("verify-report", *real(vectors), *arguments)
    assert status == 2
    assert len(output.strip().splitlines()) == 1


def test_a_cut_report_ends_with_2(vectors: Path, tmp_path: Path) -> None:
    report, *rest = real(vectors)
    cut = tmp_path / "report"
    cut.write_bytes(Path(str(report)).read_bytes()[:1183])
    assert run("verify-report", cut, *rest, *AT)[0] == 2


def test_an_endless_input_is_not_read_into_memory(vectors: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, *rest = real(vectors)
    assert run("verify-report", "/dev/zero", *rest, *AT)[0] == 2
    assert run("verify-platform", "/dev/zero")[0] == 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, "KiB"


def test_without_certificates_and_offline_it_says_what_to_give(vectors: Path, tmp_path: Path) -> None:
    report = vectors / "snp/milan/attestation_report.bin"
    status, said = ask("verify-report", report, "--offline", "--cache", tmp_path, *AT)
    assert status == 2
    assert "--vek" in said["remedy"]


def test_certificates_come_from_the_cache(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealift.evidence.fetch import kds
    from sealift.evidence.fetch.cache import Entry
    from sealift.evidence.formats.endorsement import Kind
    from sealift.evidence.formats.tcb import Generation, Tcb

    folder = vectors / "snp/milan"
    chip = bytes.fromhex(load(vectors / "snp/expected.json")["reports"][0]["vcek_fields"]["hwid_hex"])
    tcb = Tcb(boot_loader=4, snp=24, microcode=219)
    for path, content in (
        (kds.vcek_path(Generation.MILAN, chip, tcb), (folder / "vcek.pem").read_bytes()),
        (kds.chain_path(Kind.VCEK, Generation.MILAN), (folder / "ask_ark.pem").read_bytes()),
    ):
        Entry.of(tmp_path / "kds", path).keep(content)
    report = folder / "attestation_report.bin"
    assert run("verify-report", report, "--offline", "--cache", tmp_path / "kds", *AT)[0] == 0
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert run("verify-report", report, "--offline", *AT)[0] == 2
    monkeypatch.setenv("SEALIFT_CACHE", str(tmp_path))
    assert run("verify-report", report, "--offline", *AT)[0] == 0


def test_the_real_platform_is_accepted_as_files_in_any_order_and_as_one_chain(
    vectors: Path, tmp_path: Path
) -> None:
    names = ["cek", "ark", "pdh", "oca", "ask", "pek"]
    files = [vectors / f"legacy/rome/{name}.cert" for name in names]
    status, said = ask("verify-platform", *files, *AT)
    assert status == 0
    assert said["labels"] == ["no integrity protection"]
    exported = tmp_path / "chain"
    order = ["pdh", "pek", "oca", "cek", "ask", "ark"]
    exported.write_bytes(b"".join((vectors / f"legacy/rome/{name}.cert").read_bytes() for name in order))
    assert run("verify-platform", exported)[0] == 0
    assert run("verify-platform", *files[1:])[0] == 1
    tampered = tmp_path / "pdh"
    tampered.write_bytes(flip((vectors / "legacy/rome/pdh.cert").read_bytes(), 100))
    assert run("verify-platform", tampered, *(each for each in files if each.name != "pdh.cert"))[0] == 1
    assert run("verify-platform", vectors / "README.md")[0] == 2


def test_every_file_of_the_vectors_that_has_a_format_is_shown(vectors: Path) -> None:
    shown = [
        *vectors.glob("legacy/*/*.cert"),
        *vectors.glob("snp/*/*.pem"),
        *vectors.glob("snp/*/attestation_report.bin"),
        vectors / "snp/crl-milan.pem",
        vectors / "snp/id-block/id_block.b64",
        vectors / "snp/id-block/auth_info.b64",
        *vectors.glob("measurement/ovmf*.bin"),
        *vectors.glob("measurement/vmsa?.bin"),
    ]
    public_keys = {vectors / f"snp/id-block/{name}.pub.pem" for name in ("id-key", "author-key")}
    for file in set(shown) - public_keys:
        status, said = ask("show", file)
        assert status == 0, file
        assert all(each["format"] and each["fields"] for each in said["contents"])
    status, output = run("show", vectors / "snp/milan/attestation_report.bin")
    assert status == 0
    assert load(vectors / "snp/expected.json")["reports"][0]["report_fields"]["chip_id_hex"] in output
    assert run("show", vectors / "README.md")[0] == 2


def test_digests_of_the_vectors_are_printed(vectors: Path, tmp_path: Path) -> None:
    folder = vectors / "measurement"
    for case in load(folder / "launch-digest.json")["cases"]:
        arguments: list[object] = ["--mode", case["mode"], "--firmware", folder / case["firmware_file"]]
        if case.get("kernel_hex") is not None:
            (tmp_path / "kernel").write_bytes(bytes.fromhex(case["kernel_hex"]))
            (tmp_path / "initrd").write_bytes(bytes.fromhex(case["initrd_hex"]))
            arguments += ["--kernel", tmp_path / "kernel", "--initrd", tmp_path / "initrd"]
            arguments += ["--append", case["cmdline_utf8"]]
        arguments += ["--vcpus", case.get("vcpus", 1)]
        if case.get("vcpu_sig_hex"):
            arguments += ["--vcpu-type", "EPYC-v4"]
        arguments += [
            "--guest-features",
            case.get("guest_features_hex", "0x1"),
            "--vmm",
            case.get("vmm", "qemu"),
        ]
        status, output = run("digest", *arguments)
        if "expected_error" in case:
            assert status == 2
        else:
            assert (status, output.strip()) == (0, case["expected_launch_digest_hex"])
    status, said = ask("digest", "--mode", "sev", "--firmware", folder / "ovmf_AmdSev_suffix.bin")
    assert status == 0
    assert len(said["digest"]) == 64


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mode", "tdx"],
        ["--mode", "snp", "--vcpu-type", "Xeon"],
        ["--mode", "snp", "--vcpus", "0", "--vcpu-type", "EPYC"],
        ["--mode", "snp", "--vmm", "xen"],
        ["--mode", "snp", "--append", "x"],
        ["--mode", "snp"],
        ["--mode", "seves"],
        ["--mode", "snp", "--guest-features", "many"],
    ],
    ids=str,
)
def test_a_digest_of_nonsense_ends_with_2(vectors: Path, arguments: list[str]) -> None:
    firmware = vectors / "measurement/ovmf_AmdSev_suffix.bin"
    assert run("digest", "--firmware", firmware, *arguments)[0] == 2


def test_session_measurement_and_secret_go_round(legacy_lab: LegacyLab, tmp_path: Path) -> None:
    chain, policy = tmp_path / "chain", tmp_path / "policy.toml"
    chain.write_bytes(legacy_lab.chain.export())
    policy.write_text(write_policy(legacy_lab.policy()))
    out = tmp_path / "launch"
    assert run("session", chain, "--launch-policy", "0xf", "--out", out)[0] == 1, "a root of nobody"
    status, said = ask("session", chain, "--launch-policy", "0xf", "--out", out, "--policy", policy)
    assert status == 0
    assert said["verdict"]["emulated"] is True
    assert (out / "tik.bin").stat().st_mode & 0o777 == 0o600
    from base64 import b64decode

    owner = parse_sev_certificate(b64decode((out / "godh.b64").read_text()))
    session = parse_session(b64decode((out / "session.b64").read_text()))
    keys = open_session(legacy_lab.pdh, owner, session, 0xF)
    assert keys.tik == (out / "tik.bin").read_bytes()
    assert run("session", chain, "--launch-policy", "0xf", "--out", out, "--policy", policy)[0] == 2

    digest = bytes(range(32))
    measured = b64encode(measure(keys.tik, Firmware(0, 24, 15), 0xF, digest, b"n" * 16).pack()).decode()
    check = ["measurement", measured, "--tik", out / "tik.bin", "--launch-policy", "0xf"]
    check += ["--api-major", 0, "--api-minor", 24, "--build-id", 15]
    assert run(*check, "--digest", digest.hex())[0] == 0
    status, said = ask(*check, "--digest", "00" * 32)
    assert status == 1
    assert [each["check"] for each in said["reasons"]] == ["measurement"]
    assert run(*check)[0] == 2

    secret = tmp_path / "disk.key"
    secret.write_bytes(b"the key of the disk")
    packet = ["secret", measured, "--tik", out / "tik.bin", "--tek", out / "tek.bin"]
    packet += ["--header", tmp_path / "header", "--payload", tmp_path / "payload"]
    assert run(*packet, "--secret", f"disk={secret}")[0] == 0
    assert run(*packet, "--secret", f"disk={secret}")[0] == 2, "nothing is written over"
    status, said = ask(*packet, "--unpack", tmp_path / "opened")
    assert status == 0
    (opened,) = said["secrets"]
    assert (tmp_path / "opened" / opened).read_bytes() == b"the key of the disk"
    (tmp_path / "payload").write_bytes(b64encode(bytes(64)))
    assert run(*packet, "--unpack", tmp_path / "again")[0] == 1


def test_measurements_of_the_vectors_are_judged_by_the_policy(vectors: Path, tmp_path: Path) -> None:
    folder = vectors / "measurement"
    case = load(folder / "launch-measure.json")["cases"][1]
    arguments: list[object] = [
        "measurement",
        case["expected_blob_base64"],
        "--tik",
        folder / case["tik_file"],
    ]
    arguments += ["--launch-policy", case["policy_u32"], "--api-major", case["api_major"]]
    arguments += ["--api-minor", case["api_minor"], "--build-id", case["build_id"], "--mode", "sev"]
    arguments += ["--firmware", folder / case["firmware_file"], "--kernel", folder / case["kernel_file"]]
    arguments += ["--initrd", folder / case["initrd_file"], "--append", case["cmdline_utf8"]]
    status, said = ask(*arguments)
    assert status == 1
    assert said["genuine"] is True
    assert {each["check"] for each in said["reasons"]} == {"launch_policy.es", "launch_policy.no_send"}
    lax = tmp_path / "policy.toml"
    lax.write_text('[sev.launch_policy]\nes = "allow"\nno_send = "allow"\n')
    assert run(*arguments, "--policy", lax)[0] == 0
    status, said = ask(*arguments, "--policy", lax, "--no-kernel-hashes")
    assert status == 1
    assert {each["check"] for each in said["reasons"]} == {"kernel_hashes", "measurement"}


def test_policy_init_writes_a_strict_policy_for_an_image(vectors: Path, tmp_path: Path) -> None:
    firmware = vectors / "measurement/ovmf_AmdSev_suffix.bin"
    file = tmp_path / "policy.toml"
    image = ["--mode", "snp", "--firmware", firmware, "--vcpu-type", "EPYC-v4"]
    assert run("policy", "init", *image, "--out", file)[0] == 0
    status, output = run("digest", *image)
    assert output.strip() in file.read_text()
    status, said = ask("verify-report", *real(vectors), *AT, "--policy", file, "--offline")
    assert status == 1
    assert said["genuine"] is True
    assert {each["check"] for each in said["reasons"]} == {"measurement", "report_data", "crl"}
    fields = load(vectors / "snp/expected.json")["reports"][0]["report_fields"]
    own = tmp_path / "own.toml"
    assert run("policy", "init", "--digest", fields["measurement_hex"], "--out", own)[0] == 0
    good = [*AT, "--policy", own, "--crl", vectors / "snp/crl-milan.pem", "--report-data", "00" * 64]
    assert run("verify-report", *real(vectors), *good)[0] == 0
    assert run("policy", "init", "--mode", "sev", "--firmware", firmware)[0] == 0
    assert run("policy", "init")[0] == 2
    assert run("policy", "init", "--digest", "00")[0] == 2


def test_help_is_fast_since_nothing_heavy_is_imported() -> None:
    probe = (
        "import sys; import sealift.evidence.cli.app; "
        "heavy = {'cryptography', 'pydantic', 'prefect', 'rich.console'} & set(sys.modules); "
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_group_runs_as_a_module(vectors: Path) -> None:
    command = [sys.executable, "-m", "sealift.evidence", "verify-report", *map(str, real(vectors)), *AT]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["accepted"] is True
