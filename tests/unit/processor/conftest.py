"""One emulated processor per module, as new for every test."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processor_lab import Lab, make_image

from sealift.processor.emulated.process import emulated_processor
from sealift.processor.emulated.profile import Profile
from sealift.processor.wire import to_json
from sealift_guest.processor import Guest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.processor.emulated.client import EmulatedProcessor


@pytest.fixture(scope="module")
def machine(authority: Path) -> Iterator[tuple[Path, EmulatedProcessor]]:
    folder = Path(tempfile.mkdtemp(prefix="slp"))
    (folder / "run/sealift").mkdir(parents=True)
    with emulated_processor(folder / "e", folder / "state", authority=authority) as processor:
        (folder / "run/sealift/sev-guest").symlink_to(processor.guest_socket)
        yield folder, processor
    shutil.rmtree(folder)


@pytest.fixture
def lab(machine: tuple[Path, EmulatedProcessor], tmp_path: Path) -> Lab:
    folder, processor = machine
    processor.reset()
    processor.configure(**to_json(Profile()))
    return Lab(processor, Guest(folder), make_image(tmp_path))
