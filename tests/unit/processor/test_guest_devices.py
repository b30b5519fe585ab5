"""The guest's side: configfs-tsm, then /dev/sev-guest, then the emulated device; each by its kernel's rules."""

from __future__ import annotations

import ast
import ctypes
import errno
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import threading
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processor_lab import Lab, reasons

from sealift.evidence.formats.guest_messages import TsmEntry, pack_response
from sealift_guest import processor as module
from sealift_guest.processor import Guest, Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = bytes(range(64))
REPORT = bytes([7]) * 1184
TABLE = b"table".ljust(4096, b"\0")


class Configfs:
    """What the kernel does below /sys/kernel/config/tsm/report: a folder that is made has its attributes."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = root / "sys/kernel/config/tsm/report"
        self.folder.mkdir(parents=True)
        self.provider, self.others_writes, self.entries = "sev_guest\n", 0, []
        make, read = Path.mkdir, Path.read_bytes

        def mkdir(path: Path, *args: Any, **words: Any) -> None:
            make(path, *args, **words)
            if path.parent == self.folder:
                self.entries.append(path)
                (path / "provider").write_text(self.provider)
                (path / "generation").write_text("1\n")

        def read_bytes(path: Path) -> bytes:
            if path.name == "outblob":
                entry = TsmEntry(read(path.parent / "inblob"))  # its size is checked there
                if self.others_writes:
                    self.others_writes -= 1
                    (path.parent / "generation").write_text(f"{os.urandom(4).hex()}\n")
                    return b"\xff" * 1184
                return entry.inblob + REPORT[64:]
            if path.name == "auxblob":
                return TABLE
            return read(path)

        patch.setattr(Path, "mkdir", mkdir)
        patch.setattr(Path, "read_bytes", read_bytes)
        patch.setattr(Path, "rmdir", lambda path: self.entries.remove(path))  # noqa: PLW0108 - called as a method


def test_configfs_is_asked_first_and_its_entry_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Configfs(tmp_path, monkeypatch)
    found = Guest(tmp_path).report(DATA)
    assert (found.report, found.certificate_table, found.answered_by) == (DATA + REPORT[64:], TABLE, "tsm")
    assert not kernel.entries


def test_a_report_that_another_writer_got_in_between_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Configfs(tmp_path, monkeypatch)
    kernel.others_writes = 3
    assert Guest(tmp_path).report(DATA).report[:64] == DATA
    kernel.others_writes = 99
    with pytest.raises(Unanswered, match="somebody else"):
        Guest(tmp_path).report(DATA)
    assert not kernel.entries


def test_another_providers_configfs_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Configfs(tmp_path, monkeypatch).provider = "tdx_guest\n"
    with pytest.raises(Unanswered, match="tdx_guest"):
        Guest(tmp_path).report(DATA)


class SevGuest:
    """What /dev/sev-guest does for the ioctls of include/uapi/linux/sev-guest.h."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        (root / "dev").mkdir()
        (root / "dev/sev-guest").touch()
        self.asked: list[int] = []
        self.table: bytes | None = TABLE
        self.response = pack_response(REPORT)
        self.fault = 0
        patch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, handle: int, number: int, call: bytearray) -> int:
        self.asked.append(number)
        version, request_at, response_at, error = struct.unpack("<B7xQQQ", call)
        assert (version, error, len(call)) == (1, 0, 32)
        if self.fault:
            struct.pack_into("<Q", call, 24, self.fault)
            raise OSError(errno.EIO, "Input/output error")
        if number == 0xC0205301:
            assert ctypes.string_at(request_at, 32) == bytes(32)
            ctypes.memmove(response_at, b"\0" * 32 + b"k" * 32, 64)
            return 0
        data, vmpl, reserved = struct.unpack("<64sI28s", ctypes.string_at(request_at, 96))
        assert (data, vmpl) == (DATA, 0)
        assert not any(reserved)
        if number == 0xC0205302:
            address, size = struct.unpack("<QI", ctypes.string_at(request_at + 96, 12))
            if self.table is None:
                struct.pack_into("<Q", call, 24, 1 << 32)
                raise OSError(errno.ENOSPC, "No space left on device")
            assert size == 64 * 1024
            assert size % 4096 == 0
            ctypes.memmove(address, self.table, len(self.table))
        ctypes.memmove(response_at, self.response, 4000)
        return 0


def test_the_ioctl_asks_for_report_and_certificates_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = SevGuest(tmp_path, monkeypatch)
    found = Guest(tmp_path).report(DATA)
    assert (found.report, found.answered_by) == (REPORT, "ioctl")
    assert found.certificate_table[: len(TABLE)] == TABLE
    assert kernel.asked == [0xC0205302]
    assert Guest(tmp_path).derived_key(bytes(32)) == (b"\0" * 32 + b"k" * 32, "ioctl")


def test_a_host_without_certificates_is_asked_for_the_report_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = SevGuest(tmp_path, monkeypatch)
    kernel.table = None
    assert Guest(tmp_path).report(DATA).certificate_table == b""
    assert kernel.asked == [0xC0205302, 0xC0205300]


def test_a_status_of_the_firmware_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SevGuest(tmp_path, monkeypatch)
    kernel.response = pack_response(b"", 0x16)
    with pytest.raises(Unanswered, match="status 0x16"):
        Guest(tmp_path).report(DATA)
    kernel.fault = 0x27
    with pytest.raises(Unanswered, match="firmware 0x27, hypervisor 0x0"):
        Guest(tmp_path).report(DATA)


def test_a_secret_of_the_kernel_goes_before_the_emulated_one(tmp_path: Path) -> None:
    folder = tmp_path / "sys/kernel/security/secrets/coco"
    folder.mkdir(parents=True)
    (folder / "736869e5-84f0-4973-92ec-06879ce3da0b").write_bytes(b"key")
    assert Guest(tmp_path).secret("736869E5-84F0-4973-92EC-06879CE3DA0B") == (b"key", "coco")
    with pytest.raises(Unanswered, match="no secret"):
        Guest(tmp_path).secret("736869e5-aaaa-4973-92ec-06879ce3da0b")


def test_a_machine_without_any_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="no secure processor"):
        Guest(tmp_path).report(DATA)
    with pytest.raises(Unanswered, match="64 bytes"):
        Guest(tmp_path).report(b"short")


@pytest.fixture
def port(lab: Lab, short_path: Path) -> Iterator[tuple[Guest, socket.socket]]:
    """A terminal for the virtio-serial port, with a thread for QEMU's chardev to the emulator's socket."""
    ours, its = pty.openpty()
    tty.setraw(ours)
    tty.setraw(its)
    entry = short_path / "sys/class/virtio-ports/vport0p1"
    entry.mkdir(parents=True)
    (entry / "name").write_text("org.sealift.sev-guest\n")
    (short_path / "dev").mkdir()
    (short_path / "dev/vport0p1").symlink_to(os.ttyname(its))
    chardev = socket.socket(socket.AF_UNIX)
    chardev.connect(str(lab.processor.guest_socket))

    def pump(read: Any, write: Any) -> None:
        try:
            while piece := read():
                view = memoryview(piece)
                while view:
                    view = view[write(view) :]
        except OSError:
            pass

    threads = [
        threading.Thread(target=pump, args=(lambda: os.read(ours, 4096), chardev.send), daemon=True),
        threading.Thread(
            target=pump, args=(lambda: chardev.recv(4096), lambda p: os.write(ours, p)), daemon=True
        ),
    ]
    for thread in threads:
        thread.start()
    yield Guest(short_path, timeout_s=5), chardev
    chardev.shutdown(socket.SHUT_RDWR)
    threads[1].join(5)
    os.close(its)
    os.close(ours)
    chardev.close()


def test_a_port_serves_after_a_program_died_in_the_middle_of_asking(
    lab: Lab, port: tuple[Guest, socket.socket]
) -> None:
    lab.start_snp()
    guest, _ = port
    device = guest.root / "dev/vport0p1"
    for remains in (b'{"id": "dead", "call": "rep', b'{"id": "dead", "call": "report"}\n', b"\xff\0\n\n[]\n"):
        with device.open("wb", buffering=0) as dying:
            dying.write(remains)
        found = guest.report(DATA)
        assert found.answered_by == "emulated"
        assert lab.snp_verdict(found, DATA).accepted


def test_evidence_of_another_machine_does_not_pass_for_ours(
    lab: Lab, port: tuple[Guest, socket.socket]
) -> None:
    lab.start_snp(host_data=b"1" * 32)
    guest, _ = port
    policy = lab.snp_policy(host_data=(b"2" * 32).hex())
    assert reasons(lab.snp_verdict(guest.report(DATA), DATA, policy)) == {"host_data"}


def test_a_silent_processor_is_given_up(short_path: Path) -> None:
    (short_path / "run/sealift").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(short_path / "run/sealift/sev-guest"))
        deaf.listen()
        with pytest.raises(Unanswered, match="does not answer"):
            Guest(short_path, timeout_s=0.2).report(DATA)


def test_the_shipped_file_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    names = {
        each.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for each in node.names
    }
    names |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names - {"__future__"} <= set(sys.stdlib_module_names)


def test_it_runs_alone_from_standard_input() -> None:
    source = Path(module.__file__).read_bytes()
    words = [sys.executable, "-I", "-", "report", DATA.hex()]
    done = subprocess.run(words, input=source, capture_output=True, check=False)
    if done.returncode:
        assert b"no secure processor" in done.stderr
    else:
        assert "answered_by" in json.loads(done.stdout)
