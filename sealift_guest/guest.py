#!/usr/bin/python3
"""Inside the encrypted VM: makes this boot's keys, answers the owner's question, receives the released keys.

Standard library only. In the VM it is `/usr/libexec/sealift/guest`, beside the module for the secure processor.
`guest boot` runs before SSH. `guest serve` listens afterwards, so that no interpreter starts while an owner waits.
`guest live` does both, as a systemd service (`Type=notify`).

It listens on the loopback interface. The owner's SSH connection forwards the question there, without another process.
Every program on this machine may ask for a report. An order that changes something needs the token, which only root can
read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

if __name__ == "__main__":
    sys.dont_write_bytecode = True
    import processor
else:
    from sealift_guest import processor

PORT = 7741
LINE_LIMIT = 1 << 20
NONCE_BYTES = 32
DOMAIN = b"sealift report data v1"
IDLE_S = 60
DISK_TIMEOUT_S = 600

DISK_KEY = "736869e5-84f0-4973-92ec-06879ce3da0b"
SSH_HOST_KEY = "5ea11f70-0001-4c0e-9b1a-2f6f0c7d8a51"
WIREGUARD_KEY = "5ea11f70-0002-4c0e-9b1a-2f6f0c7d8a51"
"""The entries of a launch secret, by GUID: the disk key as 64 hexadecimal digits, the SSH host key in OpenSSH's format,
the WireGuard key in base64."""

WRONG_KEY, BROKEN_DISK, EMPTY_DISK = 3, 4, 5
DISK_FAULTS = {
    WRONG_KEY: "the data disk does not open with this key",
    BROKEN_DISK: "the data disk's integrity is broken",
    EMPTY_DISK: "the data disk is empty",
}
"""Exit statuses of `data-disk`."""


class Refused(Exception):
    """An order that failed. The owner gets the sentence, and the exit status of `data-disk` if that has failed."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Places:
    """The paths of files, below a root that is / except in tests."""

    root: Path = Path("/")

    @property
    def ssh_key(self) -> Path:
        """The SSH host key, in a file system in memory."""
        return self.root / "etc/ssh/ssh_host_ed25519_key"

    @property
    def wireguard_key(self) -> Path:
        """The WireGuard private key."""
        return self.root / "run/sealift/keys/wireguard"

    @property
    def disk_key(self) -> Path:
        """An injected disk key, until it has been used."""
        return self.root / "run/sealift/keys/disk"

    @property
    def token(self) -> Path:
        """The token that an order needs if it changes something."""
        return self.root / "run/sealift/keys/token"

    @property
    def settings(self) -> Path:
        """The network's files."""
        return self.root / "etc/sealift"


def binding_digest(owner_nonce: bytes, guest_nonce: bytes, ssh_key: str, wireguard_key: str) -> bytes:
    """The 64 bytes of report data: `Binding.digest` of `sealift.evidence.formats.report_data`, without its imports."""
    hashed = hashlib.sha512()
    for item in (DOMAIN, owner_nonce, guest_nonce, ssh_key.encode(), wireguard_key.encode()):
        hashed.update(struct.pack("<I", len(item)) + item)
    return hashed.digest()


@dataclass(frozen=True)
class Guest:
    """The machine that runs this."""

    places: Places = Places()

    def boot(self, evidence: str | None = None) -> None:
        """Make this boot's keys, or use the injected ones. A second call changes nothing."""
        kind = evidence or self._evidence()
        places = self.places
        places.token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if kind == "sev":
            for guid, path in (
                (SSH_HOST_KEY, places.ssh_key),
                (WIREGUARD_KEY, places.wireguard_key),
                (DISK_KEY, places.disk_key),
            ):
                if not path.exists():
                    _write(path, processor.Guest(places.root).secret(guid)[0])
        elif kind == "snp":
            if not places.ssh_key.exists():
                _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(places.ssh_key))
            if not places.wireguard_key.exists():
                _write(places.wireguard_key, _run("wg", "genkey").encode())
        # Each question reads this file. A process would take a tenth of a second on an emulated processor.
        public = _run("ssh-keygen", "-y", "-f", str(places.ssh_key)).split()[:2]
        _write(_public(places.ssh_key), " ".join(public).encode())
        wireguard = _run("wg", "pubkey", stdin=places.wireguard_key.read_text()).strip()
        _write(_public(places.wireguard_key), wireguard.encode())
        if not places.token.exists():
            _write(places.token, secrets.token_hex(32).encode())

    def attest(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer with a report over the nonces and both public keys; with legacy SEV, only with the keys."""
        owner_nonce = _nonce(question.get("owner_nonce"))
        guest_nonce = secrets.token_bytes(NONCE_BYTES)
        ssh_key = _public(self.places.ssh_key).read_text()
        wireguard_key = _public(self.places.wireguard_key).read_text()
        said = {
            "guest_nonce": base64.b64encode(guest_nonce).decode(),
            "ssh_host_key": ssh_key,
            "wireguard_key": wireguard_key,
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        }
        if self._evidence() == "sev":
            return {**said, "report": "", "certificate_table": "", "answered_by": "launch"}
        digest = binding_digest(owner_nonce, guest_nonce, ssh_key, wireguard_key)
        try:
            found = processor.Guest(self.places.root).report(digest)
        except (processor.Unanswered, OSError) as silent:
            raise Refused(f"the secure processor gives no report: {silent}") from silent
        return {
            **said,
            "report": base64.b64encode(found.report).decode(),
            "certificate_table": base64.b64encode(found.certificate_table).decode(),
            "answered_by": found.answered_by,
        }

    def provision(self, order: dict[str, Any]) -> dict[str, Any]:
        """Open the disk and join the network. After a kill at any point, another call gives the same result."""
        disk = self._open_disk(order.get("disk_key"), fresh=order.get("fresh_disk") is True)
        private = self.places.wireguard_key.read_text().strip()
        head = f"[Interface]\nPrivateKey = {private}\nListenPort = {int(order['wireguard_port'])}\n\n"
        self.places.settings.mkdir(parents=True, exist_ok=True)
        _write(self.places.settings / "network.env", str(order["network_env"]).encode(), 0o644)
        _write(self.places.settings / "wireguard.conf", (head + str(order["wireguard_peers"])).encode())
        _run("/usr/libexec/sealift/network", "up")
        if Path("/run/systemd/system").is_dir():
            # It does not wait for Docker: the owner checks when Docker answers.
            _run("systemctl", "start", "--no-block", "docker.service")
        return {"disk": disk}

    def rekey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Change the key of the open disk from the old one to the new."""
        if not self._has_disk():
            raise Refused("this machine has no encrypted disk")
        self._disk("rekey", f"{order['old_key']}\n{order['new_key']}\n")
        return {"disk": "rekeyed"}

    def _evidence(self) -> str | None:
        for word in Path("/proc/cmdline").read_text().split():
            if word.startswith("sealift.evidence="):
                return word.partition("=")[2]
        return None

    def _has_disk(self) -> bool:
        """Whether it has an encrypted disk. A measured VM has one; a namespaced host has no device mapper."""
        return self._evidence() in {"snp", "sev"}

    def _open_disk(self, key: str | None, *, fresh: bool) -> str:
        if not self._has_disk():
            return "none"
        was_open = self._disk("status").strip() == "open"
        if key is None and self.places.disk_key.exists():
            key = self.places.disk_key.read_text().strip()
        if key is None and not was_open:
            raise Refused("no disk key came along, and none was injected")
        # An open disk is opened again if the owner does not know yet that this is its key.
        if key is not None and (fresh or not was_open):
            self._disk("format" if fresh else "open", f"{key}\n")
        self.places.disk_key.unlink(missing_ok=True)
        return "open" if was_open else "opened"

    def _disk(self, verb: str, keys: str = "") -> str:
        command = ["/usr/libexec/sealift/data-disk", verb]
        done = subprocess.run(
            command, input=keys, capture_output=True, text=True, check=False, timeout=DISK_TIMEOUT_S
        )
        if done.returncode != 0:
            said = DISK_FAULTS.get(done.returncode, f"`data-disk {verb}` ended with {done.returncode}")
            raise Refused(f"{said}: {done.stderr.strip()[-300:]}", done.returncode)
        return done.stdout


ORDERS = {"attest": Guest.attest, "provision": Guest.provision, "rekey": Guest.rekey}
OPEN_TO_ALL = {"attest"}


_TURN = threading.Lock()


def answer(guest: Guest, line: bytes) -> dict[str, Any]:
    """Execute one order, a line of JSON. Orders that change something run one at a time."""
    try:
        order = json.loads(line)
        name = order.pop("order")
        token = str(order.pop("token", ""))
        if name not in OPEN_TO_ALL and not hmac.compare_digest(token, guest.places.token.read_text()):
            raise Refused("the token is wrong")
        with nullcontext() if name in OPEN_TO_ALL else _TURN:
            return {"result": ORDERS[name](guest, order)}
    except Refused as refused:
        return {"error": str(refused)} | ({} if refused.status is None else {"status": refused.status})
    except (OSError, subprocess.SubprocessError) as failed:
        return {"error": str(failed)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # The order is not quoted: it may contain a key.
        return {"error": "the order is not one that this guest understands"}


def serve(guest: Guest, port: int = PORT, on_listening: Callable[[], object] | None = None) -> None:
    """Answer until the end of the process, one order for each connection."""
    listener = socket.create_server(("127.0.0.1", port))
    if on_listening is not None:
        on_listening()

    def one(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            peer.settimeout(IDLE_S)
            with peer.makefile("rb") as lines:
                line = lines.readline(LINE_LIMIT)
            peer.sendall(json.dumps(answer(guest, line)).encode() + b"\n")

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=one, args=(peer,), daemon=True).start()


def _tell_systemd() -> None:
    """Tell systemd that the keys are there, so that dependent units start. sd_notify(3)."""
    name = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(b"READY=1", f"\0{name[1:]}" if name.startswith("@") else name)


def _nonce(text: object) -> bytes:
    nonce = base64.b64decode(str(text), validate=True)
    if len(nonce) != NONCE_BYTES:
        raise Refused(f"the owner's nonce has {NONCE_BYTES} bytes, and this has {len(nonce)}")
    return nonce


def _public(key: Path) -> Path:
    """The public key in a file: kind and key, without a comment and an end of line."""
    return key.with_name(f"{key.name}.pub")


def _run(*words: str, stdin: str = "") -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise Refused(f"`{words[0]}` ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file atomically. It never has a wider mode, even for a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def main(words: list[str]) -> int:
    """`boot [snp|sev]`, `serve`, `live`, or an order's name: its JSON on standard input, the answer on the output."""
    guest = Guest()
    try:
        if words[0] == "boot":
            guest.boot(*words[1:2])
        elif words[0] == "live":
            guest.boot()
            serve(guest, on_listening=_tell_systemd)
        elif words[0] == "serve":
            serve(guest)
        else:
            order = {**json.loads(sys.stdin.read(LINE_LIMIT)), "order": words[0]}
            order.setdefault("token", guest.places.token.read_text())
            said = answer(guest, json.dumps(order).encode())
            sys.stdout.write(json.dumps(said) + "\n")
            return 1 if "error" in said else 0
    except (Refused, processor.Unanswered, OSError, ValueError, IndexError, RecursionError) as refused:
        sys.stderr.write(f"sealift guest: {refused}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
