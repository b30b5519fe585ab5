"""The settings of the provider's administrator: the backend of the secure processor, and folders.

They are read from TOML (/etc/sealift/provider.toml, unless another file is named). Nothing here comes from the owner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from sealift.errors import UnusableInput
from sealift.files import read_bounded
from sealift.machine.qemu import QEMU, Accelerator
from sealift.processor.interface import Backend
from sealift.processor.wire import from_json
from sealift.words import read_toml

DEFAULT_FILE = Path("/etc/sealift/provider.toml")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

_FILE_LIMIT = 64 * 1024
# A unix socket's path has at most 107 bytes; below the state folder it needs a name of 32 bytes and a few more.
_STATE_PATH_LIMIT = 60


@dataclass(frozen=True)
class Settings:
    """Folders, and arguments of QEMU. `taps` lists the interfaces that VMs may use; empty: any name.

    `chip` and `authority` are for the emulated processor: this machine's chip and the lab's root.
    """

    processor: Backend = Backend.QEMU
    accelerator: Accelerator = Accelerator.KVM
    state: Path = Path("/run/sealift/provider")
    images: Path = Path("/srv/images")
    disks: Path = Path("/srv/disks")
    chip: Path = Path("/var/lib/sealift/chip")
    authority: Path | None = None
    profile: Path | None = None
    qemu: tuple[str, ...] = (QEMU,)
    amd_certificates: Path | None = None
    certificate_table: Path | None = None
    taps: tuple[str, ...] = ()
    memory_limit_mib: int = 1 << 20
    disk_limit_mib: int = 1 << 20


def read_settings(path: Path | None = None, *, processor: str | None = None) -> Settings:
    """The settings in a file, or the defaults without one. `processor` overrides the file's."""
    content: object = {}
    chosen = path or DEFAULT_FILE
    if path is not None or chosen.exists():
        try:
            content = read_toml(read_bounded(chosen, _FILE_LIMIT))
        except ValueError as error:
            raise UnusableInput(f"{chosen} cannot be read as TOML: {error}") from error
    settings = from_json(Settings, content, str(chosen))
    if processor is not None:
        settings = replace(settings, processor=from_json(Backend, processor, "the processor"))
    if len(str(settings.state)) > _STATE_PATH_LIMIT:
        raise UnusableInput(
            f"the state's path {settings.state} is too long for the sockets in it",
            remedy=f"Choose one of at most {_STATE_PATH_LIMIT} characters",
        )
    return settings


def checked_name(text: str, what: str) -> str:
    """A name that is safe in a path: at most 32 lower-case letters, digits and hyphens."""
    if not NAME.fullmatch(text):
        raise UnusableInput(
            f"{what} {text[:40]!r} is not a valid name",
            remedy="Use lower-case letters, digits and hyphens, at most 32 of them",
        )
    return text
