"""Refusals of the firmware (SEV API, table "Status codes"; Linux, include/uapi/linux/psp-sev.h)."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The codes that the emulation uses."""

    INVALID_GUEST_STATE = 0x02
    INVALID_CERTIFICATE = 0x06
    POLICY_FAILURE = 0x07
    BAD_SIGNATURE = 0x0A
    BAD_MEASUREMENT = 0x0B
    UNSUPPORTED = 0x15
    INVALID_PARAM = 0x16
    INVALID_KEY = 0x27


class FirmwareRefused(Exception):
    """A command was refused; the guest's state is unchanged."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(f"{status.name} ({status:#x}): {detail}")
        self.status = status
        self.detail = detail
