"""What is given as a file may be anything: a pipe, a device, endless, nested without end. The answer comes at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from evidence_lab import SnpLab, load
from test_evidence_cli import AT, real, run

from sealift import files, inventory
from sealift.attestation.conversation import ask
from sealift.attestation.demand import measured_image
from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.cli.rows import describe
from sealift.evidence.formats import der
from sealift.evidence.formats.crl import parse_crl
from sealift.evidence.formats.detection import identify
from sealift.evidence.formats.x509_certificate import parse_x509, write_pss_sha384
from sealift.evidence.verify.policy import parse_policy
from sealift.inventory import Vm
from sealift.provider.settings import read_settings
from sealift_guest import guest

if TYPE_CHECKING:
    from pathlib import Path

CPU_S = 5.0
"""Of a busy machine's processors; a gigabyte that is read takes more, fourteen times over."""

# What hangs is ended, whatever else this machine does meanwhile.
pytestmark = [pytest.mark.timeout(120), pytest.mark.alone]


def made(folder: Path, kind: str) -> Path:
    path = folder / kind.replace("/", " ")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "behind")
        path.symlink_to(folder / "behind")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "directory":
        path.mkdir()
    elif kind == "1 GB":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    elif kind == "1 TB":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to(kind)
    return path


KINDS = [
    "pipe",
    "link to a pipe",
    "socket",
    "directory",
    "1 GB",
    "1 TB",
    "/dev/zero",
    "/dev/tty",
    "/proc/kmsg",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_that_takes_a_file_refuses_it_at_once_in_one_sentence(
    vectors: Path, tmp_path: Path, kind: str
) -> None:
    odd = made(tmp_path, kind)
    report, *chain = real(vectors)
    firmware = vectors / "measurement/ovmf_AmdSev_suffix.bin"
    measured = ["digest", "--mode", "snp", "--vcpu-type", "EPYC", "--firmware"]
    launch = [
        "--launch-policy",
        "0xf",
        "--api-major",
        0,
        "--api-minor",
        24,
        "--build-id",
        1,
        "--digest",
        "00" * 32,
    ]
    keys = ["--tik", odd, "--tek", odd, "--header", tmp_path / "h", "--payload", tmp_path / "p"]
    asked: list[list[object]] = [
        ["verify-report", odd, *chain],
        ["verify-report", report, *chain, "--policy", odd],
        ["verify-report", report, *chain, "--crl", odd],
        ["verify-report", report, "--vek", odd],
        ["verify-report", report, *chain, odd],
        ["verify-platform", odd],
        ["show", odd],
        [*measured, odd],
        [*measured, firmware, "--kernel", odd],
        [*measured, firmware, "--kernel", report, "--initrd", odd],
        ["measurement", odd, "--tik", odd, *launch],
        ["measurement", "AA==", "--tik", odd, *launch],
        ["secret", "AA==", *keys, "--secret", f"disk={odd}"],
        ["session", odd, "--launch-policy", "0xf", "--out", tmp_path / "out"],
    ]
    begun = time.process_time()
    for arguments in asked:
        status, said = run(*arguments, *AT)
        assert status == 2, arguments
        assert len(said.strip().splitlines()) == 1, said
    assert time.process_time() - begun < CPU_S


@pytest.mark.parametrize("kind", KINDS)
def test_settings_refuse_it_at_once(tmp_path: Path, kind: str) -> None:
    odd = made(tmp_path, kind)
    begun = time.process_time()
    for reader in (inventory.load, read_settings):
        with pytest.raises(UnusableInput):
            reader(odd)
    assert time.process_time() - begun < CPU_S


def test_a_pipe_is_not_waited_for_by_the_command_either(vectors: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "sealift.evidence", "show", str(tmp_path / "pipe")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "a named pipe" in done.stderr


def test_a_file_that_grows_or_hides_its_size_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    assert files.read_bounded(tmp_path.joinpath("/proc/version"), 4096).startswith(b"Linux")
    with pytest.raises(UnusableInput, match="larger"):
        files.read_bounded(tmp_path.joinpath("/proc/version"), 8)
    (tmp_path / "whole").write_bytes(bytes(8))
    assert files.read_bounded(tmp_path / "whole", 8) == bytes(8)
    assert len(files.hash_file(tmp_path / "whole")) == 32
    assert files.MEASURED_LIMIT < 1 << 30


DEEP = 100_000


def test_deeply_nested_json_is_an_error(tmp_path: Path) -> None:
    class Deep:
        shown_key = ""

        def ask(self, *_: Any, **__: Any) -> bytes:
            return b'{"result":' + b"[" * DEEP

    with pytest.raises(EvidenceRejected, match="is not valid"):
        ask(Deep(), "vm", bytes(32))  # type: ignore[arg-type] # whoever answers
    said = guest.answer(guest.Guest(), b"[" * DEEP)
    assert "error" in said
    (tmp_path / "manifest.json").write_bytes(b"[" * 60_000)
    with pytest.raises(UnusableInput):
        measured_image(tmp_path, Vm(policy=tmp_path))


def test_deeply_nested_toml_is_an_error(tmp_path: Path) -> None:
    for text in ("a = " + "[" * 15_000, "a = " + "{a=" * 5000, "[" * 15_000, "a" + ".a" * 5000 + " = 1"):
        with pytest.raises(UnusableInput):
            parse_policy(text)
        file = tmp_path / "sealift.toml"
        file.write_text(text)
        for reader in (inventory.load, read_settings):
            with pytest.raises(UnusableInput):
                reader(file)


def nested(tag: int, depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = der.write(tag, data)
    return data


def test_deeply_nested_der_is_an_error(vectors: Path, tmp_path: Path) -> None:
    for tag in (der.SEQUENCE, der.SET, der.explicit(0), der.explicit(3)):
        file = tmp_path / "der"
        file.write_bytes(nested(tag, 2000)[:8000])
        (tmp_path / "whole").write_bytes(nested(tag, 1500))
        for odd in (file, tmp_path / "whole"):
            assert run("show", odd)[0] == 2
            report, *chain = real(vectors)
            assert run("verify-report", report, *chain, "--crl", odd, *AT)[0] in {1, 2}
            assert run("verify-report", report, *chain, odd, *AT)[0] in {1, 2}


def test_a_number_without_end_is_an_error(snp_lab: SnpLab) -> None:
    # Of more digits than Python writes out.
    endless = der.write(der.INTEGER, b"\x01" * 7000)
    certificate = snp_lab.certify(snp_lab.endorsement())
    body = der.read_whole(certificate.der, "it").sequence("it")
    fields = [each.encoded for each in body[0].sequence("it")]
    fields[1] = endless
    grown = der.write(der.SEQUENCE, der.write(der.SEQUENCE, *fields), *(each.encoded for each in body[1:]))
    with pytest.raises(UnusableInput):
        parse_x509(grown)
    with pytest.raises(UnusableInput):
        describe(identify(grown)[0])
    crl = snp_lab.crl(revoked=[7])
    parts = der.read_whole(crl.der, "it").sequence("it")
    fields = [each.encoded for each in parts[0].sequence("it")]
    for place, field in (
        (5, der.write(der.SEQUENCE, der.write(der.SEQUENCE, endless, fields[3]))),
        (
            6,
            der.write(
                der.explicit(0),
                der.write(
                    der.SEQUENCE,
                    der.write(
                        der.SEQUENCE, der.write_object_id("2.5.29.20"), der.write(der.OCTET_STRING, endless)
                    ),
                ),
            ),
        ),
    ):
        changed = [*fields[:place], field, *fields[place + 1 :]]
        tail = (write_pss_sha384(), der.write_bits(bytes(512)))
        with pytest.raises(UnusableInput):
            parse_crl(der.write(der.SEQUENCE, der.write(der.SEQUENCE, *changed), *tail))


@pytest.mark.parametrize(
    "at",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-12:00",
        "10000-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "-1",
        "-62135596800",
        "1775001600",
        "99999999999999999999",
        "2026-02-30T00:00:00Z",
        "2026-04-01T24:00:01Z",
        "",
        "\N{ARABIC-INDIC DIGIT TWO}026-04-01",
    ],
)
def test_a_time_at_the_edges_of_time_is_an_error_in_one_sentence(vectors: Path, at: str) -> None:
    for arguments in (
        ["verify-report", *real(vectors)],
        ["verify-platform", vectors / "legacy/rome/ark.cert"],
        ["show", vectors / "legacy/rome/ark.cert"],
        ["policy", "init", "--digest", "00" * 48],
    ):
        status, said = run(*arguments, f"--at={at}")
        assert status == 2, said
        assert len(said.strip().splitlines()) == 1, said
        assert "time" in said
        status, said = run(*arguments, f"--at={at}", "--json")
        assert json.loads(said)["accepted"] is False


def test_a_place_that_cannot_be_written_is_an_error_in_one_sentence(vectors: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    measured = load(vectors / "measurement/launch-measure.json")["cases"][0]["expected_blob_base64"]
    key = vectors / "secret/tik1.bin"
    chain = [vectors / f"legacy/rome/{name}.cert" for name in ("cek", "ark", "pdh", "oca", "ask", "pek")]
    for place in (tmp_path / "file", tmp_path / "file/below"):
        status, said = run("session", *chain, "--launch-policy", "0xf", "--out", place)
        assert (status, len(said.strip().splitlines())) == (2, 1), said
        packet = ["--header", place / "header", "--payload", place / "payload", "--secret", f"disk={key}"]
        status, said = run("secret", measured, "--tik", key, "--tek", key, *packet)
        assert (status, len(said.strip().splitlines())) == (2, 1), said
