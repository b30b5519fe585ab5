"""LAUNCH_MEASURE of legacy SEV, 48 bytes (SEV API, section 6.5).

HMAC(TIK, 04 ‖ major ‖ minor ‖ build ‖ LE32 policy ‖ digest 32 ‖ nonce 16) ‖ nonce.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass

from sealift.errors import UnusableInput
from sealift.evidence.layout import sized

SIZE = 48
DIGEST_BYTES = 32
NONCE_BYTES = 16

_CONTEXT = 4


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the secure processor says it launched: a MAC and the nonce that it drew."""

    mac: bytes
    nonce: bytes

    def pack(self) -> bytes:
        """As QMP's query-sev-launch-measure gives it, before base64."""
        return self.mac + self.nonce


@dataclass(frozen=True, slots=True)
class Firmware:
    """Version of the SEV firmware that measured."""

    api_major: int
    api_minor: int
    build: int


def parse_measurement(data: bytes) -> Measurement:
    """Read 48 bytes."""
    sized(data, SIZE, "a launch measurement")
    return Measurement(bytes(data[:32]), bytes(data[32:]))


def measure(tik: bytes, firmware: Firmware, policy: int, digest: bytes, nonce: bytes) -> Measurement:
    """What a genuine platform answers for this digest. Digest: 32 bytes; nonce: 16."""
    sized(digest, DIGEST_BYTES, "a launch digest")
    sized(nonce, NONCE_BYTES, "a measurement's nonce")
    try:
        head = struct.pack("<BBBBI", _CONTEXT, firmware.api_major, firmware.api_minor, firmware.build, policy)
    except struct.error as error:
        raise UnusableInput(
            "version or policy do not fit their fields",
            remedy="API major, minor and build are 0 to 255, the policy is 32 bits",
        ) from error
    return Measurement(hmac.digest(tik, head + digest + nonce, "sha256"), bytes(nonce))


def measurement_holds(
    measurement: Measurement, tik: bytes, firmware: Firmware, policy: int, digest: bytes
) -> bool:
    """Whether the platform measured this digest under this policy. Constant time."""
    expected = measure(tik, firmware, policy, digest, measurement.nonce)
    return hmac.compare_digest(expected.mac, measurement.mac)
