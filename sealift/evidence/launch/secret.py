"""Launch secrets of legacy SEV, packaged by the owner and opened by the platform (SEV API, section 6.6).

Encryption: AES-128-CTR under TEK. MAC: HMAC(TIK, 01 ‖ flags ‖ iv ‖ LE32 length ‖ LE32 length ‖ ciphertext ‖
measurement's MAC).
"""

from __future__ import annotations

import hmac
import secrets
import struct
from typing import TYPE_CHECKING

from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.formats.launch_secret import PAYLOAD_LIMIT, SecretPacket
from sealift.evidence.formats.layout import sized
from sealift.evidence.launch.session import aes_ctr

if TYPE_CHECKING:
    from sealift.evidence.formats.launch_session import TransportKeys


_CONTEXT = 1


def package_secret(
    keys: TransportKeys, measurement_mac: bytes, table: bytes, *, iv: bytes | None = None
) -> SecretPacket:
    """Encrypt a table for the guest whose verified measurement has this MAC (32 bytes).

    `iv` is random unless given. Never use one twice with the same TEK.
    """
    if not table or len(table) % 16 or len(table) > PAYLOAD_LIMIT:
        raise UnusableInput(
            "a launch secret is a multiple of 16 bytes, at most 16 KiB",
            remedy="Send fewer or shorter secrets",
        )
    vector = sized(iv, 16, "an initialisation vector") if iv is not None else secrets.token_bytes(16)
    ciphertext = aes_ctr(keys.tek, vector, table)
    return SecretPacket(0, vector, _mac(keys.tik, 0, vector, ciphertext, measurement_mac), ciphertext)


def unpack_secret(keys: TransportKeys, measurement_mac: bytes, packet: SecretPacket) -> bytes:
    """Check the MAC over the received packet, then decrypt it, as the platform does. Raises EvidenceRejected."""
    expected = _mac(keys.tik, packet.flags, packet.iv, packet.payload, measurement_mac)
    if not hmac.compare_digest(expected, packet.mac):
        raise EvidenceRejected(
            "the launch secret was made for another launch, or was altered",
            reasons=("secret: MAC",),
            remedy="Package it with the keys and the measurement of this launch",
        )
    return aes_ctr(keys.tek, packet.iv, packet.payload)


def _mac(tik: bytes, flags: int, iv: bytes, ciphertext: bytes, measurement_mac: bytes) -> bytes:
    sized(measurement_mac, 32, "a measurement's MAC")
    lengths = struct.pack("<II", len(ciphertext), len(ciphertext))
    head = struct.pack("<BI", _CONTEXT, flags) + iv + lengths
    return hmac.digest(tik, head + ciphertext + measurement_mac, "sha256")
