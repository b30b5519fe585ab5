"""The launch policy of a legacy SEV guest, 32 bits (SEV API, chapter 3, table "Guest policy")."""

from __future__ import annotations

from enum import IntFlag

API_MAJOR_SHIFT = 16
API_MINOR_SHIFT = 24


class SevPolicy(IntFlag):
    """Bits 0 to 5. A set bit forbids something, except ES, which demands encrypted registers."""

    NO_DEBUG = 1 << 0
    NO_KEY_SHARING = 1 << 1
    ES = 1 << 2
    NO_SEND = 1 << 3
    SAME_DOMAIN = 1 << 4
    SEV_ONLY = 1 << 5


def minimum_api(policy: int) -> tuple[int, int]:
    """The lowest API version (major, minor) of a platform that may launch the guest."""
    return policy >> API_MAJOR_SHIFT & 0xFF, policy >> API_MINOR_SHIFT & 0xFF


def describe(policy: int) -> str:
    """The policy as readable text."""
    names = [flag.name.lower().replace("_", "-") for flag in SevPolicy if policy & flag and flag.name]
    major, minor = minimum_api(policy)
    return f"{policy:#x} ({', '.join(names) or 'nothing forbidden'}; API {major}.{minor} or later)"
