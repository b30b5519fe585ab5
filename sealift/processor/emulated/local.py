"""A chip's certificates without a process: evidence about a platform before it has a VM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.launch.digest import Mode
from sealift.files import read_bounded
from sealift.processor.emulated.chip import Chip
from sealift.processor.emulated.profile import Profile

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.processor.interface import Platform

PROFILE_NAME = "profile.json"
_PROFILE_LIMIT = 64 * 1024


def platform_here(state: Path, authority: Path | None, profile: Path | None, mode: Mode) -> Platform:
    """The evidence of the emulated processor with this state directory."""
    chip, settings = Chip.open(state, authority), read_profile(state, profile)
    return chip.snp_platform(settings) if mode is Mode.SNP else chip.sev_platform(settings)


def read_profile(state: Path, named: Path | None) -> Profile:
    """The settings in the named file, else in STATE/profile.json if it exists, else the defaults."""
    path = named or state / PROFILE_NAME
    if named is None and not path.exists():
        return Profile()
    try:
        changes = json.loads(read_bounded(path, _PROFILE_LIMIT))
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"{path} is not JSON", remedy="Write settings as one JSON object") from error
    if not isinstance(changes, dict):
        raise UnusableInput(f"{path} is not a JSON object", remedy="Write settings as one JSON object")
    return Profile().changed(changes)
