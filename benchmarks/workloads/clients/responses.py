"""Every response time of a client, kept in four bytes each and handed over as one text. Imported by the clients."""

from __future__ import annotations

import base64
import time
import zlib
from array import array
from typing import Any


class Responses:
    """Call `add` with each answer; times of `time.monotonic`, in seconds."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.began_unix = time.time()
        self.at = array("f")  # seconds since `began`, when the question was sent
        self.took = array("f")  # milliseconds until its answer

    def add(self, sent: float, now: float) -> None:
        """One question and its answer."""
        self.at.append(sent - self.began)
        self.took.append((now - sent) * 1000)

    def findings(self, operations: int, faults: list[Any], error: str | None) -> dict[str, Any]:
        """What every client says at its end. `responses` holds both arrays, one after the other, little-endian."""
        return {
            "operations": operations,
            "seconds": time.monotonic() - self.began,
            "longest_gap_ms": max(self.took) if self.took else None,
            "median_ms": sorted(self.took)[len(self.took) // 2] if self.took else None,
            "faults": faults[:10],
            "error": error,
            "began_unix": self.began_unix,
            "responses": base64.b64encode(zlib.compress(self.at.tobytes() + self.took.tobytes(), 1)).decode(),
        }
