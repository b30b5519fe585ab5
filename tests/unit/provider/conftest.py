"""A provider with an emulated processor, an image, and something in QEMU's place."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.machine.qemu import Accelerator
from sealift.processor.interface import Backend
from sealift.provider.orders import VmOrder
from sealift.provider.service import Provider
from sealift.provider.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parents[1] / "processor"))

from processor_lab import make_firmware

APPEND = "root=/dev/dm-0 ro roothash=00"


@pytest.fixture
def settings(short_path: Path, authority: Path) -> Settings:
    image = short_path / "images/base"
    image.mkdir(parents=True)
    contents = {
        "firmware": make_firmware(),
        "kernel": b"kernel" * 500,
        "initrd": b"initrd" * 500,
        "root": b"r" * 4096,
    }
    for name, content in contents.items():
        (image / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    sizes = {name: len(content) for name, content in contents.items()}
    manifest = {**{name: name for name in contents}, "append": APPEND, "sha256": hashes, "size_bytes": sizes}
    (image / "manifest.json").write_text(json.dumps(manifest))
    return Settings(
        processor=Backend.EMULATED,
        accelerator=Accelerator.TCG,
        state=short_path / "vms",
        images=short_path / "images",
        disks=short_path / "disks",
        chip=short_path / "chip",
        authority=authority,
        qemu=(sys.executable, str(Path(__file__).parent / "fake_qemu.py")),
    )


@pytest.fixture
def provider(settings: Settings) -> Iterator[Provider]:
    made = Provider(settings)
    yield made
    if settings.state.is_dir():
        for place in list(settings.state.iterdir()):
            if place.is_dir():
                made.stop(VmOrder(place.name))
