"""The MAC of a legacy SEV launch measurement (SEV API, section 6.5).

HMAC(TIK, 04 ‖ major ‖ minor ‖ build ‖ LE32 policy ‖ digest 32 ‖ nonce 16).
"""

from __future__ import annotations

import hmac
import struct

from sealift.errors import UnusableInput
from sealift.evidence.formats.launch_measurement import Firmware, Measurement
from sealift.evidence.formats.layout import sized

DIGEST_BYTES = 32
NONCE_BYTES = 16

_CONTEXT = 4


def measure(tik: bytes, firmware: Firmware, policy: int, digest: bytes, nonce: bytes) -> Measurement:
    """The answer of a genuine platform for this digest. Digest: 32 bytes; nonce: 16."""
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
