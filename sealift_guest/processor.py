"""Inside the encrypted VM: ask the secure processor for a report, a derived key, or an injected secret.

Standard library only, nothing of the rest of Sealift: the VM has this file unchanged. Programs there import it, or it
is run as `python3 processor.py report HEX`. It tries three devices, in this order:

- `tsm`: configfs, /sys/kernel/config/tsm/report (Linux 6.7; Documentation/ABI/testing/configfs-tsm)
- `ioctl`: /dev/sev-guest (Linux 5.19; include/uapi/linux/sev-guest.h)
- `emulated`: a virtio-serial port, or a unix socket, with an emulated processor behind it
"""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import json
import os
import secrets
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPORT_BYTES = 1184
RESPONSE_BYTES = 4000
TABLE_LIMIT = 64 * 1024
LINE_LIMIT = 1 << 20
PORT = "org.sealift.sev-guest"
SOCKET = "run/sealift/sev-guest"
TIMEOUT_S = 30.0

_GET_REPORT, _GET_DERIVED_KEY, _GET_EXTENDED_REPORT = 0xC0205300, 0xC0205301, 0xC0205302
_CALL = struct.Struct("<B7xQQQ")  # struct snp_guest_request_ioctl
_VMM_ERROR_SHIFT = 32
_VMM_INVALID_LENGTH = 1  # SNP_GUEST_VMM_ERR_INVALID_LEN: the table needs more room, or there is none
_GENERATION_TRIES = 5


class Unanswered(Exception):
    """No secure processor answers, or it refuses."""


@dataclass(frozen=True)
class Report:
    """1184 bytes of report, a certificate table or nothing, and the device: tsm, ioctl, emulated."""

    report: bytes
    certificate_table: bytes
    answered_by: str


@dataclass(frozen=True)
class Guest:
    """The devices below `root`, which is / except in tests."""

    root: Path = Path("/")
    timeout_s: float = TIMEOUT_S

    def report(self, report_data: bytes) -> Report:
        """A report over 64 bytes. Raises Unanswered with each device's message."""
        if len(report_data) != 64:
            raise Unanswered(f"report data has 64 bytes, and this has {len(report_data)}")
        faults = []
        for ask in (self._ask_tsm, self._ask_ioctl, self._ask_emulated):
            try:
                found = ask(report_data)
            except (OSError, Unanswered) as error:
                faults.append(f"{ask.__name__.removeprefix('_ask_')}: {error}")
                continue
            if found is not None:
                return found
        raise Unanswered("; ".join(faults) or "this machine has no secure processor's device")

    def derived_key(self, request: bytes) -> tuple[bytes, str]:
        """The response (64 bytes) to a request of 32 bytes (struct snp_derived_key_req), and the device."""
        if (device := self._device()) is not None:
            response = ctypes.create_string_buffer(64)
            try:
                _ioctl(device, _GET_DERIVED_KEY, ctypes.create_string_buffer(request, len(request)), response)
            except OSError as error:
                raise Unanswered(f"ioctl: {error}") from error
            return response.raw, "ioctl"
        answer = self._emulated({"call": "derived-key", "payload": base64.b64encode(request).decode()})
        if answer is None:
            raise Unanswered("this machine has no secure processor's device")
        return base64.b64decode(answer["payload"]), "emulated"

    def secret(self, guid: str) -> tuple[bytes, str]:
        """The secret that was injected with a GUID before this machine ran, and its source: "coco" or "emulated"."""
        folder = self.root / "sys/kernel/security/secrets/coco"
        with suppress(FileNotFoundError):
            return (folder / guid.lower()).read_bytes(), "coco"
        answer = self._emulated({"call": "secret", "guid": guid})
        if answer is None:
            raise Unanswered(f"no secret: neither {folder} nor an emulated processor is there")
        if answer.get("missing"):
            raise Unanswered(f"nothing was injected under {guid}")
        return base64.b64decode(answer["secret"]), "emulated"

    def _ask_tsm(self, report_data: bytes) -> Report | None:
        folder = self.root / "sys/kernel/config/tsm/report"
        if not folder.is_dir():
            return None
        entry = folder / f"sealift-{secrets.token_hex(8)}"
        entry.mkdir()
        try:
            if (provider := (entry / "provider").read_text().strip()) != "sev_guest":
                raise OSError(errno.ENODEV, f"its provider is {provider!r}")
            # Another writer between our write and our read would give us another report.
            for _ in range(_GENERATION_TRIES):
                (entry / "inblob").write_bytes(report_data)
                before = (entry / "generation").read_text()
                report = (entry / "outblob").read_bytes()
                table = b""
                with suppress(OSError):
                    table = (entry / "auxblob").read_bytes()
                if (entry / "generation").read_text() == before:
                    return Report(_whole(report), table, "tsm")
            raise OSError(errno.EBUSY, "somebody else writes to its entry")
        finally:
            with suppress(OSError):
                entry.rmdir()

    def _ask_ioctl(self, report_data: bytes) -> Report | None:
        device = self._device()
        if device is None:
            return None
        table = ctypes.create_string_buffer(TABLE_LIMIT)
        response = ctypes.create_string_buffer(RESPONSE_BYTES)
        plain = struct.pack("<64sII24x", report_data, 0, 0)
        extended = plain + struct.pack("<QI4x", ctypes.addressof(table), TABLE_LIMIT)
        try:
            _ioctl(device, _GET_EXTENDED_REPORT, ctypes.create_string_buffer(extended), response)
            certificates = table.raw if any(table.raw[:16]) else b""
        except OSError:
            # A host without certificates, or a kernel without this request: ask for the report alone.
            response = ctypes.create_string_buffer(RESPONSE_BYTES)
            _ioctl(device, _GET_REPORT, ctypes.create_string_buffer(plain), response)
            certificates = b""
        return Report(_unwrap(response.raw), certificates, "ioctl")

    def _ask_emulated(self, report_data: bytes) -> Report | None:
        payload = struct.pack("<64sII24x", report_data, 0, 0)
        answer = self._emulated({"call": "report", "payload": base64.b64encode(payload).decode()})
        if answer is None:
            return None
        table = base64.b64decode(answer["table"])
        return Report(_unwrap(base64.b64decode(answer["payload"])), table, "emulated")

    def _device(self) -> Path | None:
        device = self.root / "dev/sev-guest"
        return device if device.exists() else None

    def _emulated(self, request: dict[str, str]) -> dict[str, str] | None:
        number = secrets.token_hex(8)
        # The newline before it ends a line that a program may have left incomplete when it died.
        line = b"\n" + json.dumps({"id": number, **request}).encode() + b"\n"
        deadline = time.monotonic() + self.timeout_s
        if (port := self._port()) is not None:
            handle = _open_port(port, deadline)
        elif (path := self.root / SOCKET).exists():
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(path))
                handle = os.dup(peer.fileno())
        else:
            return None
        try:
            answer = _exchange(handle, line, number, deadline)
        except OSError as error:
            raise Unanswered(f"emulated: {error.strerror}") from error
        finally:
            os.close(handle)
        if "error" in answer:
            raise Unanswered(answer["error"])
        return answer

    def _port(self) -> Path | None:
        named = self.root / "dev/virtio-ports" / PORT
        if named.exists():
            return named
        # Without udev there are no names below /dev, but the kernel lists them here.
        for entry in (self.root / "sys/class/virtio-ports").glob("*/name"):
            if entry.read_text().strip() == PORT:
                return self.root / "dev" / entry.parent.name
        return None


def report(report_data: bytes) -> Report:
    """See `Guest.report`, on this machine."""
    return Guest().report(report_data)


def secret(guid: str) -> tuple[bytes, str]:
    """See `Guest.secret`, on this machine."""
    return Guest().secret(guid)


def _ioctl(
    device: Path, number: int, request: ctypes.Array[ctypes.c_char], response: ctypes.Array[ctypes.c_char]
) -> None:
    call = bytearray(_CALL.pack(1, ctypes.addressof(request), ctypes.addressof(response), 0))
    handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, number, call)
    except OSError as error:
        status = _CALL.unpack(call)[3]
        firmware, vmm = status & 0xFFFF_FFFF, status >> _VMM_ERROR_SHIFT
        raise OSError(
            error.errno, f"{error.strerror} (firmware {firmware:#x}, hypervisor {vmm:#x})"
        ) from error
    finally:
        os.close(handle)


def _unwrap(response: bytes) -> bytes:
    """The report in the kernel's 4000 bytes: status u32, size u32, 24 reserved, the report."""
    status, size = struct.unpack_from("<II", response)
    if status:
        raise OSError(errno.EIO, f"the secure processor answered with status {status:#x}")
    return _whole(response[32 : 32 + size])


def _whole(report: bytes) -> bytes:
    if len(report) != REPORT_BYTES:
        raise OSError(errno.EIO, f"a report of {len(report)} bytes, not {REPORT_BYTES}")
    return report


def _open_port(port: Path, deadline: float) -> int:
    while True:
        try:
            return os.open(port, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            # One program at a time. Another program's request takes milliseconds.
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _exchange(handle: int, line: bytes, number: str, deadline: float) -> dict[str, str]:
    os.set_blocking(handle, False)
    received = b""
    while time.monotonic() < deadline:
        writable = [handle] if line else []
        readable, ready, _ = select.select([handle], writable, [], deadline - time.monotonic())
        if ready:
            line = line[os.write(handle, line) :]
        if readable and not line:
            piece = os.read(handle, 65536)
            if not piece:
                # At a port, the host's side is disconnected, perhaps for a moment. At a socket, it is closed for good.
                time.sleep(0.05)
            received += piece
        elif readable:
            os.read(handle, 65536)  # an answer to an earlier program
        *lines, received = received.split(b"\n")
        for each in lines:
            with suppress(ValueError, RecursionError):
                answer = json.loads(each)
                if isinstance(answer, dict) and answer.get("id") == number:
                    return answer
        if len(received) > LINE_LIMIT:
            break
    raise OSError(errno.ETIMEDOUT, "the emulated processor does not answer")


def main(words: list[str]) -> int:
    """`report HEX`, `derived-key HEX` or `secret GUID`: one JSON object, bytes in base64."""
    try:
        command, argument = words
        guest = Guest()
        if command == "report":
            found = guest.report(bytes.fromhex(argument))
            said = {"report": found.report, "certificate_table": found.certificate_table}
            by = found.answered_by
        else:
            ask = guest.secret if command == "secret" else lambda text: guest.derived_key(bytes.fromhex(text))
            value, by = ask(argument)
            said = {command: value}
    except (Unanswered, OSError, ValueError) as error:
        sys.stderr.write(f"sealift guest: {error}\n")
        return 1
    text = {name: base64.b64encode(value).decode() for name, value in said.items()}
    sys.stdout.write(json.dumps({**text, "answered_by": by}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
