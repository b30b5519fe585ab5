"""The configuration of one VM: its name, addresses and keys. Many VMs boot the same root disk.

The guest gets it on a small read-only disk with a tar archive, which the init unpacks over its root. So kernel, initrd
and root are the same bytes for every VM, as a measured boot needs, and QEMU's arguments contain no secret. Anybody who
runs QEMU can read that disk. A VM that must hide its keys from its provider gets them in another way, and only its
addresses on this disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface
    from pathlib import Path

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PRIVATE_FOLDERS = (PurePosixPath("root/.ssh"), PurePosixPath("etc/wireguard"))


@dataclass(frozen=True)
class NetworkInterface:
    """One of the VM's interfaces, identified by its hardware address, with its IP configuration."""

    mac: str
    address: IPv4Interface
    gateway: IPv4Address | None = None


@dataclass(frozen=True)
class GuestFile:
    """A file in the guest, owned by root. Its parent folders are made."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644


@dataclass(frozen=True)
class GuestConfiguration:
    """The configuration that a VM gets at its start. `host_key` is a private key in OpenSSH's format (ed25519).

    A measured VM uses only the name and addresses, so it gets neither keys nor files.
    """

    hostname: str
    interfaces: tuple[NetworkInterface, ...]
    authorized_keys: tuple[str, ...] = ()
    host_key: bytes = field(default=b"", repr=False)
    files: tuple[GuestFile, ...] = ()


def write_configuration(path: Path, configuration: GuestConfiguration) -> None:
    """Make the disk (raw, readable by its owner only) with a VM's configuration.

    Raises UnusableInput for an invalid hostname, and for a file whose path is not absolute.
    """
    archive = configuration_bytes(configuration)
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=_private) as disk:
        disk.write(archive)


def configuration_bytes(configuration: GuestConfiguration) -> bytes:
    """The content of that disk: a tar archive, padded to a multiple of 512 bytes."""
    files = {_inside(file.path): file for file in (*_own_files(configuration), *configuration.files)}
    folders = sorted({folder for name in files for folder in name.parents if folder.name})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in folders:
            member = tarfile.TarInfo(str(folder))
            member.type = tarfile.DIRTYPE
            member.mode = 0o700 if folder in _PRIVATE_FOLDERS or folder.name == "root" else 0o755
            tar.addfile(member)
        for name, file in sorted(files.items()):
            member = tarfile.TarInfo(str(name))
            member.mode = file.mode
            member.size = len(file.content)
            tar.addfile(member, io.BytesIO(file.content))
    return archive.getvalue()


def _own_files(configuration: GuestConfiguration) -> list[GuestFile]:
    name = configuration.hostname
    if not _HOSTNAME.fullmatch(name):
        raise UnusableInput(f"{name!r} is not a hostname")
    network = "".join(
        f"{interface.mac.lower()} {interface.address.with_prefixlen} {interface.gateway or '-'}\n"
        for interface in configuration.interfaces
    )
    measured = [
        GuestFile("/etc/hostname", f"{name}\n".encode()),
        GuestFile("/etc/sealift/network", network.encode()),
    ]
    if not configuration.host_key:
        return measured
    identity = hashlib.sha256(f"sealift {name} {network}".encode()).hexdigest()[:32]
    return [
        *measured,
        GuestFile("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n".encode()),
        GuestFile("/etc/machine-id", f"{identity}\n".encode(), 0o444),
        GuestFile("/etc/ssh/ssh_host_ed25519_key", configuration.host_key, 0o600),
        GuestFile(
            "/root/.ssh/authorized_keys",
            "".join(f"{key.strip()}\n" for key in configuration.authorized_keys).encode(),
            0o600,
        ),
    ]


def _inside(path: str) -> PurePosixPath:
    name = PurePosixPath(path)
    if not name.is_absolute() or ".." in name.parts or len(name.parts) < 2:
        raise UnusableInput(f"{path!r} is not the absolute path of a file in a guest")
    return name.relative_to("/")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
