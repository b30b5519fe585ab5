"""What the processor's and the provider's tests share: one lab root, since its RSA keys take seconds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="slp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
