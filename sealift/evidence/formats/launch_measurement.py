"""LAUNCH_MEASURE of legacy SEV, 48 bytes (SEV API, section 6.5): a MAC of 32 bytes and a nonce of 16."""

from __future__ import annotations

from dataclasses import dataclass

from sealift.evidence.formats.layout import sized

SIZE = 48


@dataclass(frozen=True, slots=True)
class Measurement:
    """The answer of LAUNCH_MEASURE: a MAC over what was launched (`launch.measurement`), and the nonce in it."""

    mac: bytes
    nonce: bytes

    def pack(self) -> bytes:
        """The 48 bytes; QMP's query-sev-launch-measure gives them in base64."""
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
