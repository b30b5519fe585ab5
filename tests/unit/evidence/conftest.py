"""Where the real vectors are, and two labs with keys of their own, one per generation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from evidence_lab import LegacyLab, SnpLab

VECTORS = Path(
    os.environ.get("SEALIFT_VECTORS") or Path(__file__).resolve().parents[3].parent / "shared" / "vectors"
)


@pytest.fixture(scope="session")
def vectors() -> Path:
    if not (VECTORS / "README.md").is_file():
        pytest.skip(f"the vectors are not at {VECTORS}; set SEALIFT_VECTORS")
    return VECTORS


@pytest.fixture(scope="session")
def snp_lab() -> SnpLab:
    return SnpLab.create()


@pytest.fixture(scope="session")
def legacy_lab() -> LegacyLab:
    return LegacyLab.create(2048)
