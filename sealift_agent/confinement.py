"""What the kernel's security modules have on this host: AppArmor's profiles, and whether SELinux is on."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
PROFILES = Path("/sys/kernel/security/apparmor/policy/profiles")
"""A directory for each profile, NAME.N, with its `name` and `raw_data`, as AppArmor's compiler has made it (Linux,
security/apparmor/apparmorfs.c). A profile's children are below it, and a part of its data."""

SELINUX = Path("/sys/fs/selinux/enforce")


def profiles() -> dict[str, str] | None:
    """AppArmor's profiles that are loaded, each with a hash of its policy. None without AppArmor.

    The kernel's own hashes are of another kind in each version (SHA-1 up to 6.7), so the policy itself is hashed. The
    hash is empty where the kernel does not show it (CONFIG_SECURITY_APPARMOR_EXPORT_BINARY).
    """
    try:
        if APPARMOR.read_text()[:1] != "Y":
            return None
    except OSError:
        return None
    found = {}
    for folder in PROFILES.glob("*/"):
        with contextlib.suppress(OSError):  # it has been removed meanwhile
            found[(folder / "name").read_text().rstrip("\n")] = _digest(folder / "raw_data")
    return found


def _digest(data: Path) -> str:
    try:
        return hashlib.sha256(data.read_bytes()).hexdigest()
    except OSError:
        return ""


def selinux() -> str:
    """Whether SELinux is on: enforcing, permissive, or an empty string."""
    try:
        return {"0": "permissive", "1": "enforcing"}.get(SELINUX.read_text().strip(), "")
    except OSError:
        return ""
